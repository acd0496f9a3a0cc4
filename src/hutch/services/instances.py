"""Instances: what a person asks of their machine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.instances import Container, ContainerRole, Desired, Instance, InstanceState
from hutch.domain.leases import EndReason
from hutch.domain.limits import POOL_DISK, Holding, Limits, holding_of
from hutch.domain.nodes import Node
from hutch.domain.operations import Kind, Operation, OperationState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.engine.base import ExecResult, Usage
from hutch.errors import (
    BusyError,
    NotFoundError,
    WrongStateError,
)
from hutch.services import scheduling
from hutch.services.access import find_instance, require, visible_instances
from hutch.services.context import Context
from hutch.services.hostkeys import new_host_key
from hutch.services.listening import listening_ports
from hutch.services.operations import enqueue
from hutch.services.placement import check_growth, check_quota_of, place
from hutch.services.transitions import end_all
from hutch.store import (
    containers,
    events,
    images,
    instances,
    leases,
    nodes,
    operations,
    ports,
    users,
)
from hutch.store.db import Session

SSH_TARGET_PORT = 22


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for. None leaves it to the lab's defaults."""

    name: str
    image: str = "base"
    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    node: str | None = None

    def limits(self, default: Limits) -> Limits:
        return Limits(
            default.cpus if self.cpus is None else self.cpus,
            default.memory if self.memory is None else self.memory,
            default.disk if self.disk is None else self.disk,
            default.processes,
        ).check()


def target(instance_id: str) -> str:
    """An instance as the target of an operation."""
    return f"instance:{instance_id}"


async def create(context: Context, actor: Actor, wish: Wish) -> tuple[Instance, Operation]:
    """Grant an instance and start making it.

    Everything is checked and decided in one transaction: the quota, the node, the host port, the
    address. What cannot be had is refused here and leaves nothing behind.
    """
    require(actor, Action.INSTANCE_CREATE)
    names.instance_name(wish.name)
    limits = wish.limits(context.settings.default_limits)
    instance_id = new_id()
    host_key, host_secret = new_host_key()
    async with context.db.write() as session:
        image = await images.find_image(session, wish.image)
        if image is None:
            raise NotFoundError("image", wish.image)
        await check_quota_of(session, context, actor.user_id, holding_of(limits))
        node = await place(session, context, wish.node, limits)
        await instances.add_instance(
            session,
            instance_id=instance_id,
            owner_id=actor.user_id,
            name=wish.name,
            node_id=node.id,
            image_id=image.id,
            limits=limits,
            host_key=host_key,
            host_secret=context.vault.seal(host_secret),
            at=context.now(),
        )
        await ports.allocate_port(
            session,
            instance_id,
            instances.SSH,
            SSH_TARGET_PORT,
            first=context.settings.ssh_port_first,
            last=context.settings.ssh_port_last,
            avoid=listening_ports(node),
        )
        container = None
        if limits.disk >= POOL_DISK:
            container = await containers.take_from_pool(session, node.id, image.id, instance_id)
        if container is None:
            await containers.add_container(
                session, node, image.id, ContainerRole.CURRENT, context.now(), instance_id
            )
        operation = await enqueue(
            session,
            context,
            actor,
            Kind.INSTANCE_CREATE,
            target(instance_id),
            owner_id=actor.user_id,
            label=wish.name,
            params={"instance": instance_id, "pooled": container is not None},
        )
        await events.record(
            session,
            actor,
            context.now(),
            "instance.create",
            ("instance", instance_id, wish.name),
            owner_id=actor.user_id,
            result="requested",
            operation=operation.id,
            image=image.name,
            node=node.name,
        )
        instance = await _must_get(session, instance_id)
    context.hints.work.set()
    return instance, operation


async def _must_get(session: Session, instance_id: str) -> Instance:
    instance = await instances.get_instance(session, instance_id)
    if instance is None:
        raise NotFoundError("instance", instance_id)
    return instance


async def show(context: Context, actor: Actor, ref: str) -> Instance:
    async with context.db.read() as session:
        return await find_instance(session, actor, Action.INSTANCE_READ, ref)


async def list_all(
    context: Context,
    actor: Actor,
    *,
    everyone: bool = False,
    owner: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[Instance]:
    """One's own instances and those that others share; for an administrator everyone's.

    With `owner` those of one person by name: all for an administrator, for everyone else what
    that person shares with them.
    """
    async with context.db.read() as session:
        return await visible_instances(
            session, actor, everyone=everyone, owner=owner, limit=limit, after=after
        )


async def current(
    context: Context, actor: Actor, action: Action, ref: str
) -> tuple[Instance, Node, Container]:
    """An instance with the node and the container it lives in, for a direct look at the engine."""
    async with context.db.read() as session:
        instance = await find_instance(session, actor, action, ref)
        node = await nodes.get_node(session, instance.node_id)
        container = await containers.current(session, instance.id)
    if node is None or container is None:
        raise WrongStateError(
            f"{instance.name} is {instance.state} and has no disk.", hint="Create it anew."
        )
    return instance, node, container


async def usage(context: Context, actor: Actor, ref: str) -> tuple[Instance, Usage]:
    """What an instance uses now, beside what it may."""
    instance, node, container = await current(context, actor, Action.INSTANCE_READ, ref)
    return instance, await context.engines.of(node).usage(container.engine_name)


async def execute(
    context: Context,
    actor: Actor,
    ref: str,
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = 60.0,
    as_root: bool = False,
) -> ExecResult:
    """Run a program inside a running instance, as its owner unless `as_root`.

    Raises TooManyRequestsError when the actor runs too many already.
    """
    with context.programs.take(actor.user_id):
        return await _execute(context, actor, ref, argv, stdin, timeout, as_root)


async def _execute(
    context: Context,
    actor: Actor,
    ref: str,
    argv: Sequence[str],
    stdin: bytes,
    timeout: float,
    as_root: bool,
) -> ExecResult:
    instance, node, container = await current(context, actor, Action.INSTANCE_EXEC, ref)
    if instance.state is not InstanceState.RUNNING:
        raise WrongStateError(
            f"{instance.name} is {instance.state}.", hint=f"`hutch start {instance.name}` first."
        )
    async with context.db.write() as session:
        await events.record(
            session,
            actor,
            context.now(),
            "instance.exec",
            ("instance", instance.id, instance.name),
            owner_id=instance.owner_id,
            program=argv[0][:200],
        )
    # `runuser` looks the person's ids and home up inside, so hutch need not know them.
    command = list(argv) if as_root else ["runuser", "-u", instance.owner_name, "--", *argv]
    return await context.engines.of(node).exec(
        container.engine_name,
        command,
        stdin=stdin,
        timeout=timeout,
        cwd="/" if as_root else f"/home/{instance.owner_name}",
        environment={} if as_root else {"HOME": f"/home/{instance.owner_name}"},
    )


_MAY: dict[Kind, tuple[Action, frozenset[InstanceState], InstanceState]] = {
    Kind.INSTANCE_START: (
        Action.INSTANCE_CONTROL,
        frozenset({InstanceState.STOPPED}),
        InstanceState.STARTING,
    ),
    Kind.INSTANCE_STOP: (
        Action.INSTANCE_CONTROL,
        frozenset({InstanceState.RUNNING}),
        InstanceState.STOPPING,
    ),
    Kind.INSTANCE_RESTART: (
        Action.INSTANCE_CONTROL,
        frozenset({InstanceState.RUNNING}),
        InstanceState.RESTARTING,
    ),
    Kind.INSTANCE_REBUILD: (
        Action.INSTANCE_REBUILD,
        frozenset({InstanceState.RUNNING, InstanceState.STOPPED}),
        InstanceState.REBUILDING,
    ),
    Kind.INSTANCE_DELETE: (
        Action.INSTANCE_DELETE,
        frozenset({InstanceState.RUNNING, InstanceState.STOPPED, InstanceState.FAILED}),
        InstanceState.DELETING,
    ),
}
"""For each simple operation: the permission, the states in which it may begin, the state then."""

_VERBS = {
    Kind.INSTANCE_START: ("start", Desired.RUNNING),
    Kind.INSTANCE_STOP: ("stop", Desired.STOPPED),
    Kind.INSTANCE_RESTART: ("restart", Desired.RUNNING),
    Kind.INSTANCE_REBUILD: ("rebuild", None),
    Kind.INSTANCE_DELETE: ("delete", None),
}

_ENDS_LEASES = {
    Kind.INSTANCE_STOP: EndReason.STOPPED,
    Kind.INSTANCE_DELETE: EndReason.DELETED,
}
"""What takes an instance's accelerators away; through everything else it keeps them."""


async def start(context: Context, actor: Actor, ref: str) -> Operation:
    return await _begin(context, actor, ref, Kind.INSTANCE_START)


async def stop(context: Context, actor: Actor, ref: str) -> Operation:
    return await _begin(context, actor, ref, Kind.INSTANCE_STOP)


async def restart(context: Context, actor: Actor, ref: str) -> Operation:
    return await _begin(context, actor, ref, Kind.INSTANCE_RESTART)


async def rebuild(context: Context, actor: Actor, ref: str, image: str | None = None) -> Operation:
    """Replace the disk by a fresh one of the image, keeping name, port and keys.

    The old disk is removed only after the new one has answered over SSH; its snapshots go with it.
    """
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.INSTANCE_REBUILD, ref)
        wanted = await images.find_image(session, image or instance.image_name)
        if wanted is None:
            raise NotFoundError("image", image or instance.image_name)
        operation = await _begin_in(
            session,
            context,
            actor,
            instance,
            Kind.INSTANCE_REBUILD,
            image=wanted.id,
            running=instance.desired is Desired.RUNNING,
        )
    context.hints.work.set()
    return operation


async def delete(context: Context, actor: Actor, ref: str) -> Operation:
    """Delete an instance and everything on it.

    One that is still being created is cancelled: the answer is its creation, which ends as
    `cancelled` when nothing of it is left. A stuck operation of the instance is given up.
    """
    async with context.db.write() as session:
        await leases.lock_leases(session)
        instance = await find_instance(session, actor, Action.INSTANCE_DELETE, ref)
        live = await operations.live_operation(session, target(instance.id))
        if live is not None and live.state is OperationState.STUCK:
            await operations.end_stuck(session, live.id, context.now())
            instance = replace(instance, state=InstanceState.STOPPED)
        elif live is not None and live.kind == Kind.INSTANCE_CREATE:
            if await operations.request_cancel(session, live.id):
                await _record(session, context, actor, instance, "delete", live.id)
                context.hints.changed(live.id)
                return replace(live, cancel_requested=True)
            # It ended a moment ago: what it made is deleted as any other.
            instance = await find_instance(session, actor, Action.INSTANCE_DELETE, ref)
        operation = await _begin_in(session, context, actor, instance, Kind.INSTANCE_DELETE)
        ended = await _end_leases(session, context, actor, instance, Kind.INSTANCE_DELETE)
    context.hints.work.set()
    if ended:
        scheduling.poke(context)
    return operation


async def _begin(context: Context, actor: Actor, ref: str, kind: Kind) -> Operation:
    async with context.db.write() as session:
        if kind in _ENDS_LEASES:
            await leases.lock_leases(session)
        instance = await find_instance(session, actor, _MAY[kind][0], ref)
        operation = await _begin_in(session, context, actor, instance, kind)
        ended = await _end_leases(session, context, actor, instance, kind)
    context.hints.work.set()
    if ended:
        scheduling.poke(context)
    return operation


async def _end_leases(
    session: Session, context: Context, actor: Actor, instance: Instance, kind: Kind
) -> bool:
    """Begin the end of the instance's leases if it is to lose them; whether there was one."""
    reason = _ENDS_LEASES.get(kind)
    if reason is None:
        return False
    return bool(await end_all(session, context, actor, reason, instance_id=instance.id))


async def _begin_in(
    session: Session,
    context: Context,
    actor: Actor,
    instance: Instance,
    kind: Kind,
    **params: Any,
) -> Operation:
    _, states, moving = _MAY[kind]
    verb, desired = _VERBS[kind]
    live = await operations.live_operation(session, target(instance.id))
    if live is not None:
        raise BusyError(instance.name, live.id, live.kind)
    if instance.state not in states and not _mends_drift(instance, kind):
        raise WrongStateError(
            f"{instance.name} is {instance.state}; it cannot {verb} now.",
            hint="`hutch show` tells its state and what is in progress.",
            state=instance.state,
        )
    operation = await enqueue(
        session,
        context,
        actor,
        kind,
        target(instance.id),
        owner_id=instance.owner_id,
        label=instance.name,
        params={"instance": instance.id, **params},
    )
    values: dict[str, Any] = {"state": moving.value}
    if desired is not None:
        values |= {"desired": desired.value, "drift": None}
    await instances.update_instance(session, instance.id, **values)
    await _record(session, context, actor, instance, verb, operation.id)
    return operation


def _mends_drift(instance: Instance, kind: Kind) -> bool:
    """Someone stopped or started it by hand: then starting or stopping it again is a repair."""
    return instance.drift is not None and kind in {Kind.INSTANCE_START, Kind.INSTANCE_STOP}


async def _record(
    session: Session,
    context: Context,
    actor: Actor,
    instance: Instance,
    verb: str,
    operation_id: str,
    **detail: Any,
) -> None:
    await events.record(
        session,
        actor,
        context.now(),
        f"instance.{verb}",
        ("instance", instance.id, instance.name),
        owner_id=instance.owner_id,
        result="requested",
        operation=operation_id,
        **detail,
    )


async def configure(
    context: Context,
    actor: Actor,
    ref: str,
    *,
    cpus: int | None = None,
    memory: int | None = None,
    disk: int | None = None,
) -> Operation:
    """Change an instance's limits, while it runs where the engine can."""
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.INSTANCE_CONFIGURE, ref)
        # Whoever waited for this lock reads again: what was true before may have been changed.
        await users.lock_user(session, instance.owner_id)
        instance = await find_instance(session, actor, Action.INSTANCE_CONFIGURE, ref)
        live = await operations.live_operation(session, target(instance.id))
        if live is not None:
            raise BusyError(instance.name, live.id, live.kind)
        if instance.state not in {InstanceState.RUNNING, InstanceState.STOPPED}:
            raise WrongStateError(
                f"{instance.name} is {instance.state}.",
                hint="Limits can be changed of an instance that is running or stopped.",
                state=instance.state,
            )
        old = instance.limits
        new = Limits(
            old.cpus if cpus is None else cpus,
            old.memory if memory is None else memory,
            old.disk if disk is None else disk,
            old.processes,
        ).check()
        more = Holding(0, new.cpus - old.cpus, new.memory - old.memory, new.disk - old.disk)
        await check_quota_of(session, context, instance.owner_id, more)
        await check_growth(session, context, instance, new)
        operation = await enqueue(
            session,
            context,
            actor,
            Kind.INSTANCE_CONFIGURE,
            target(instance.id),
            owner_id=instance.owner_id,
            label=instance.name,
            params={"instance": instance.id, "old": _as_dict(old), "new": _as_dict(new)},
        )
        # Counted from now on, so that two changes at once cannot both fit into what is left.
        await instances.set_limits(session, instance.id, _larger(old, new))
        await _record(
            session, context, actor, instance, "configure", operation.id, limits=_as_dict(new)
        )
    context.hints.work.set()
    return operation


def _larger(one: Limits, other: Limits) -> Limits:
    return Limits(
        max(one.cpus, other.cpus),
        max(one.memory, other.memory),
        max(one.disk, other.disk),
        max(one.processes, other.processes),
    )


def _as_dict(limits: Limits) -> dict[str, int]:
    return {
        "cpus": limits.cpus,
        "memory": limits.memory,
        "disk": limits.disk,
        "processes": limits.processes,
    }
