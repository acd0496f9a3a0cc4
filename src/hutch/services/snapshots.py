"""Snapshots: taken, restored and deleted by the person whose instance it is."""

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.instances import Desired, Instance, InstanceState
from hutch.domain.operations import Kind, Operation
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.snapshots import Snapshot, SnapshotKind, SnapshotState
from hutch.errors import BusyError, ConflictError, NoRoomError, NotFoundError, WrongStateError
from hutch.services.access import find_instance
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.services.operations import enqueue
from hutch.store import events, instances, nodes, operations, snapshots
from hutch.store.db import Session

_AT_REST = frozenset({InstanceState.RUNNING, InstanceState.STOPPED})


async def list_all(context: Context, actor: Actor, ref: str) -> list[Snapshot]:
    """An instance's snapshots, oldest first."""
    async with context.db.read() as session:
        instance = await find_instance(session, actor, Action.SNAPSHOT_READ, ref)
        return await snapshots.list_snapshots(session, instance.id)


async def create(context: Context, actor: Actor, ref: str, name: str) -> tuple[Snapshot, Operation]:
    """Begin a snapshot of an instance's disk, running or stopped."""
    names.snapshot_name(name)
    async with context.db.write() as session:
        instance = await _find_at_rest(session, actor, ref)
        most = context.settings.snapshots_per_instance
        if await snapshots.count_manual(session, instance.id) >= most:
            raise ConflictError(
                f"{instance.name} already has {most} snapshots, which is the most allowed.",
                hint="Delete one first: `hutch snapshot list` shows them.",
                most=most,
            )
        await _check_space(session, context, instance)
        snapshot = Snapshot(
            id=new_id(),
            instance_id=instance.id,
            name=name,
            kind=SnapshotKind.MANUAL,
            state=SnapshotState.CREATING,
            created_at=context.now(),
        )
        await snapshots.add_snapshot(session, snapshot)
        operation = await _enqueue(
            session, context, actor, instance, Kind.SNAPSHOT_CREATE, snapshot
        )
    context.hints.work.set()
    return snapshot, operation


async def restore(context: Context, actor: Actor, ref: str, name: str) -> Operation:
    """Begin to put an instance's disk back to a snapshot.

    A snapshot of the present state is taken first and kept as the way back.
    """
    async with context.db.write() as session:
        instance = await _find_at_rest(session, actor, ref)
        snapshot = await _find(session, instance, name)
        operation = await _enqueue(
            session,
            context,
            actor,
            instance,
            Kind.SNAPSHOT_RESTORE,
            snapshot,
            running=instance.desired is Desired.RUNNING,
        )
        await instances.set_state(session, instance.id, InstanceState.RESTORING)
    context.hints.work.set()
    return operation


async def delete(context: Context, actor: Actor, ref: str, name: str) -> Operation:
    async with context.db.write() as session:
        instance = await _find_at_rest(session, actor, ref)
        snapshot = await _find(session, instance, name)
        operation = await _enqueue(
            session, context, actor, instance, Kind.SNAPSHOT_DELETE, snapshot
        )
        await snapshots.set_state(session, snapshot.id, SnapshotState.DELETING)
    context.hints.work.set()
    return operation


async def _check_space(session: Session, context: Context, instance: Instance) -> None:
    """What a snapshot keeps counts for nobody's disk: it must not eat up everybody's."""
    node = await nodes.get_node(session, instance.node_id)
    if node is not None and node.capacity.disk - node.disk_used < context.settings.disk_reserve:
        raise NoRoomError(
            f"Node {node.name} has too little space left for another snapshot.",
            hint="Delete snapshots that are no longer needed; your administrator can add space.",
            node=node.name,
        )


async def _find_at_rest(session: Session, actor: Actor, ref: str) -> Instance:
    instance = await find_instance(session, actor, Action.SNAPSHOT_WRITE, ref)
    live = await operations.live_operation(session, target(instance.id))
    if live is not None:
        raise BusyError(instance.name, live.id, live.kind)
    if instance.state not in _AT_REST:
        raise WrongStateError(
            f"{instance.name} is {instance.state}.",
            hint="Snapshots need an instance that is running or stopped.",
            state=instance.state,
        )
    return instance


async def _find(session: Session, instance: Instance, name: str) -> Snapshot:
    snapshot = await snapshots.find_snapshot(session, instance.id, name)
    if snapshot is None or snapshot.state is not SnapshotState.READY:
        raise NotFoundError(
            "snapshot", name, hint=f"`hutch snapshot list {instance.name}` shows what there is."
        )
    return snapshot


async def _enqueue(
    session: Session,
    context: Context,
    actor: Actor,
    instance: Instance,
    kind: Kind,
    snapshot: Snapshot,
    **params: bool,
) -> Operation:
    operation = await enqueue(
        session,
        context,
        actor,
        kind,
        target(instance.id),
        owner_id=instance.owner_id,
        label=instance.name,
        params={
            "instance": instance.id,
            "snapshot": snapshot.id,
            "name": snapshot.name,
            **params,
        },
    )
    await events.record(
        session,
        actor,
        context.now(),
        kind.value.replace("_", "."),
        ("instance", instance.id, instance.name),
        owner_id=instance.owner_id,
        result="requested",
        operation=operation.id,
        snapshot=snapshot.name,
    )
    return operation
