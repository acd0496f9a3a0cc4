"""A fresh disk from an image, with the name, the port and the keys kept.

| step     | does                                                   | undo                       |
|----------|--------------------------------------------------------|--------------------------- |
| decide   | decides the new container's name and address           | forgets them               |
| build    | makes, starts and provisions it beside the old one     | deletes it                 |
| halt     | stops the old one                                      | starts it if it ran        |
| switch   | leads the host ports to the new one                    | leads them back to the old |
| answer   | waits until SSH answers from the new one               |                            |
| commit   | the new one is the instance from now on (pivot)        |                            |
| lend     | has its leases' accelerators brought into the new one  |                            |
| remove   | deletes the old one with its snapshots                 |                            |
| settle   | stops the new one if the instance was stopped          |                            |

Until `commit` the old disk is untouched: an image that does not boot costs nothing. Accelerators
stay in the old one, which does not run from `halt` on and takes them with it when it is removed.
"""

from contextlib import suppress
from typing import Any

from hutch.domain.instances import Container, ContainerRole, InstanceState
from hutch.domain.operations import RUNNABLE, Kind
from hutch.domain.people import SYSTEM
from hutch.errors import EngineError, EngineNotFoundError, NoRoomError
from hutch.operations import drivers, machine
from hutch.operations.base import Failed, Procedure, Retry, Step, Work
from hutch.services import scheduling, transitions
from hutch.store import containers, instances, leases, nodes, operations, snapshots
from hutch.store.db import Session

_LEND_PAUSE = 0.1
"""Seconds between two looks whether the accelerators have arrived."""


async def _decide(work: Work) -> None:
    instance_id = work.params["instance"]
    async with work.guarded() as session:
        if await containers.of_role(session, instance_id, ContainerRole.INCOMING) is not None:
            return
        instance = await instances.get_instance(session, instance_id)
        node = None if instance is None else await nodes.get_node(session, instance.node_id)
        if node is None:
            raise LookupError("the instance or its node is gone")
        if node.capacity.disk - node.disk_used < work.context.settings.disk_reserve:
            raise NoRoomError(
                f"Node {node.name} has no space for a second disk, which a rebuild needs.",
                hint="Free space on the node, then try again. Your machine is as it was.",
            )
        await containers.add_container(
            session,
            node,
            work.params["image"],
            ContainerRole.INCOMING,
            work.context.now(),
            instance_id,
        )


async def _forget(work: Work) -> None:
    async with work.guarded() as session:
        incoming = await containers.of_role(
            session, work.params["instance"], ContainerRole.INCOMING
        )
        if incoming is not None:
            await containers.delete_container(session, incoming.id)


async def _incoming(work: Work) -> tuple[machine.Machine, Container]:
    it = await machine.load(work, ContainerRole.INCOMING)
    if it.container is None:
        raise LookupError("the new container's row is gone")
    return it, it.container


async def _build(work: Work) -> None:
    it, container = await _incoming(work)
    await work.remember(keys_version=it.keys_version)
    await drivers.make(work, it.engine, await machine.spec(work, it, container, ()))
    await machine.provision(work, it, container)


async def _unbuild(work: Work) -> None:
    it, container = await _incoming(work)
    await it.engine.delete(container.engine_name)


async def _halt(work: Work) -> None:
    # A rebuild is also how a machine comes back whose container somebody deleted by hand.
    with suppress(EngineNotFoundError):
        await machine.ensure_stopped(work)


async def _resume(work: Work) -> None:
    if work.params["running"]:
        with suppress(EngineNotFoundError):
            await machine.ensure_running(work)


async def _switch(work: Work) -> None:
    old = await machine.load(work)
    new, container = await _incoming(work)
    for forward in new.forwards:
        await old.engine.remove_forward(old.name, forward.name)
        await new.engine.set_forward(container.engine_name, forward)


async def _switch_back(work: Work) -> None:
    old = await machine.load(work)
    new, container = await _incoming(work)
    for forward in old.forwards:
        await new.engine.remove_forward(container.engine_name, forward.name)
        with suppress(EngineNotFoundError):
            await old.engine.set_forward(old.name, forward)


async def _answer(work: Work) -> None:
    it, _ = await _incoming(work)
    if not await machine.answers(it):
        raise Failed(
            EngineError(
                "The new machine did not answer over SSH, so the old one was put back.",
                hint="The image may be broken; tell your administrator.",
            )
        )


async def _commit(work: Work) -> None:
    instance_id = work.params["instance"]
    async with work.guarded() as session:
        new = await containers.of_role(session, instance_id, ContainerRole.INCOMING)
        if new is None:
            return
        old = await containers.current(session, instance_id)
        # In this order: two current ones are refused by the database.
        if old is not None:
            await containers.set_role(session, old.id, ContainerRole.OUTGOING)
        await containers.set_role(session, new.id, ContainerRole.CURRENT)
        await snapshots.delete_all(session, instance_id)
        await instances.update_instance(session, instance_id, image_id=work.params["image"])


async def _lend(work: Work) -> None:
    # Each by an operation on the lease: one that is being taken back just now is not brought in.
    instance_id = work.params["instance"]
    if "lent" not in work.data:
        async with work.guarded(lent=True) as session:
            for lease in await leases.list_live(session, instance_id=instance_id):
                await transitions.reattach(session, work.context, SYSTEM, lease)
        work.context.hints.work.set()
    async with work.context.db.read() as session:
        for lease in await leases.list_live(session, instance_id=instance_id):
            live = await operations.live_operation(session, transitions.target(lease.id))
            if live is not None and live.params.get("again") and live.state in RUNNABLE:
                raise Retry(_LEND_PAUSE, "Bringing the accelerators into the new machine")


async def _remove(work: Work) -> None:
    it = await machine.load(work, ContainerRole.OUTGOING)
    if it.container is not None:
        await it.engine.delete(it.container.engine_name)
        async with work.guarded() as session:
            await containers.delete_container(session, it.container.id)


async def _settle(work: Work) -> None:
    if not work.params["running"]:
        await machine.ensure_stopped(work)


async def _done(session: Session, work: Work) -> None:
    running = work.params["running"]
    state = InstanceState.RUNNING if running else InstanceState.STOPPED
    await machine.came_to_rest(session, work, state)


async def _failed(session: Session, work: Work, error: dict[str, Any]) -> None:
    await machine.fell_back(session, work, error)


REBUILD = Procedure(
    Kind.INSTANCE_REBUILD,
    (
        Step("decide", "Finding a place for the new disk", _decide, _forget),
        Step("build", "Making the new machine", _build, _unbuild),
        Step("halt", "Shutting the old one down", _halt, _resume),
        Step("switch", "Leading the ports to the new one", _switch, _switch_back),
        Step("answer", "Waiting for SSH to answer", _answer),
        Step("commit", "Switching over", _commit, pivot=True),
        Step("lend", "Bringing the accelerators into the new machine", _lend),
        Step("remove", "Removing the old disk", _remove),
        Step("settle", "Finishing", _settle),
    ),
    done=_done,
    failed=_failed,
    after=scheduling.poke,
)
