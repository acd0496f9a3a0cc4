"""For every kind of operation: a lab in which it makes sense, and how a person begins it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from hutch.domain.accelerators import Accelerator, DeviceNode, FoundAccelerator, Vendor
from hutch.domain.ids import new_id
from hutch.domain.instances import ContainerRole, Instance, InstanceState
from hutch.domain.leases import Lease, LeaseState, Notice
from hutch.domain.operations import ENDED, LIVE, Kind, Operation, OperationState
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.ports import PortState, Protocol, Reach
from hutch.engine.base import Power
from hutch.engine.plans import plan_all
from hutch.operations import Runner
from hutch.operations.base import Done, Procedure, Step, Work
from hutch.operations.machine import forwards_of
from hutch.operations.registry import PROCEDURES
from hutch.operations.snapshots import engine_name
from hutch.services import instances, leases, notices, operations, ports, scheduling, snapshots
from hutch.services.context import Context
from hutch.store import accelerators as accelerator_rows
from hutch.store import containers as container_rows
from hutch.store import images as image_rows
from hutch.store import instances as instance_rows
from hutch.store import leases as lease_rows
from hutch.store import nodes as node_rows
from hutch.store import notices as notice_rows
from hutch.store import operations as operation_rows
from hutch.store import ports as port_rows
from hutch.store import revocations as revocation_rows
from hutch.store import snapshots as snapshot_rows
from tests.agents_fake import FakeAgent, Manner, agent_of, answering

GiB = 1024**3
PATIENCE = 20.0


class CrashError(BaseException):
    """The server dies here: nothing after this line is carried out."""


_crashed: list[CrashError] = []


def crash() -> None:
    """Die: the task that carries the operation out ends here, and `run` raises."""
    _crashed.append(CrashError())
    raise _crashed[-1]


async def run(context: Context, procedures: Mapping[str, Procedure] = PROCEDURES) -> None:
    """A server works until nothing that can go on is left, or until it crashes."""
    runner = Runner(context, procedures)
    working = asyncio.create_task(runner.run())
    _crashed.clear()
    try:
        async with asyncio.timeout(PATIENCE), answering(context):
            while await _is_at_work(context):
                done, _ = await asyncio.wait({working, *runner.tasks}, timeout=0.05)
                for task in done:
                    # Looked at, so that asyncio does not tell of it in the middle of a later test.
                    _ = task.cancelled() or task.exception()
                if _crashed:
                    raise _crashed.pop()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await runner.drain(1.0)


async def _is_at_work(context: Context) -> bool:
    if await _unfinished(context):
        return True
    # What the end of one changed may let another begin.
    await scheduling.poke(context)
    return bool(await _unfinished(context))


async def _unfinished(context: Context) -> list[Operation]:
    async with context.db.read() as session:
        return await operation_rows.list_operations(
            session, limit=100, states=LIVE - {OperationState.STUCK}
        )


async def end(context: Context, operation: Operation) -> Operation:
    """The operation, which must have ended."""
    ended = await operations.show(context, SYSTEM, operation.id)
    assert ended.state in ENDED, (ended.state, ended.message, ended.error)
    return ended


# -- labs ---------------------------------------------------------------------------------------


async def with_instance(context: Context, actor: Actor, *, stopped: bool = False) -> Instance:
    instance, _ = await instances.create(context, actor, instances.Wish("box"))
    await run(context)
    if stopped:
        await instances.stop(context, actor, "box")
        await run(context)
    return await instances.show(context, actor, instance.id)


async def with_snapshot(context: Context, actor: Actor, *, stopped: bool = False) -> None:
    await with_instance(context, actor, stopped=stopped)
    await snapshots.create(context, actor, "box", "one")
    await run(context)


async def pooled(context: Context) -> str:
    """A container of the pool in the making; its row's id."""
    async with context.db.write() as session:
        node = (await node_rows.list_nodes(session))[0]
        image = (await image_rows.list_images(session))[0]
        container = await container_rows.add_container(
            session, node, image.id, ContainerRole.POOL, context.now()
        )
        await operations.enqueue(
            session, context, SYSTEM, Kind.POOL_ADD, f"pool:{node.id}",
            owner_id=None, label="pool", params={"container": container.id},
        )  # fmt: skip
    return container.id


CARDS = [
    FoundAccelerator(
        f"simulated:{number}", Vendor.SIMULATED, "Simulated A100",
        nodes=(DeviceNode(f"/dev/hutch-gpu/{number}", 1, 3),),
    )
    for number in range(4)
]  # fmt: skip


async def with_agent(context: Context) -> FakeAgent:
    """The node gets four accelerators, and an agent that answers while `run` runs."""
    async with context.db.read() as session:
        node = (await node_rows.list_nodes(session))[0]
    agent = FakeAgent(context, node)
    await agent.sign_in(*CARDS)
    return agent


async def with_lease(context: Context, actor: Actor, count: int = 2) -> Lease:
    """An instance with an active lease of accelerators."""
    await with_instance(context, actor)
    await with_agent(context)
    lease = await leases.take(context, actor, count=count)
    await run(context)
    lease = await leases.show(context, actor, lease.id)
    assert lease.state is LeaseState.ACTIVE
    return lease


async def container_of(context: Context, instance_id: str) -> str:
    """The engine's name of the container that an instance lives in."""
    async with context.db.read() as session:
        row = await container_rows.current(session, instance_id)
    assert row is not None
    return row.engine_name


async def held_by(context: Context, lease: Lease) -> list[Accelerator]:
    async with context.db.read() as session:
        known = await accelerator_rows.list_accelerators(session)
    return [each for each in known if each.id in lease.accelerators]


async def inside(context: Context, lease: Lease) -> str:
    """Where the first of a lease's accelerators is found inside."""
    return str(plan_all(await held_by(context, lease))[0].path)


async def operation_of(context: Context, lease: Lease) -> Operation:
    """What is being done to a lease."""
    async with context.db.read() as session:
        found = await operation_rows.live_operation(session, f"lease:{lease.id}")
    assert found is not None
    return found


# -- beginnings -----------------------------------------------------------------------------------


async def _create(context: Context, actor: Actor) -> Operation:
    return (await instances.create(context, actor, instances.Wish("box", cpus=1)))[1]


async def _create_pooled(context: Context, actor: Actor) -> Operation:
    await pooled(context)
    await run(context)
    operation = await _create(context, actor)
    assert operation.params["pooled"]
    return operation


async def _start(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor, stopped=True)
    return await instances.start(context, actor, "box")


async def _stop(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    return await instances.stop(context, actor, "box")


async def _restart(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    return await instances.restart(context, actor, "box")


async def _rebuild(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor)
    return await instances.rebuild(context, actor, "box")


async def _rebuild_stopped(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor, stopped=True)
    return await instances.rebuild(context, actor, "box")


async def _configure(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    return await instances.configure(context, actor, "box", memory=8 * GiB, cpus=1)


async def _delete(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor)
    return await instances.delete(context, actor, "box")


async def _snapshot(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    return (await snapshots.create(context, actor, "box", "one"))[1]


async def _restore(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor)
    await snapshots.restore(context, actor, "box", "one")
    await run(context)
    # The second restore has an older way back to tidy away.
    return await snapshots.restore(context, actor, "box", "one")


async def _restore_stopped(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor, stopped=True)
    return await snapshots.restore(context, actor, "box", "one")


async def _delete_snapshot(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor)
    return await snapshots.delete(context, actor, "box", "one")


async def with_port(context: Context, actor: Actor, *, stopped: bool = False) -> None:
    await with_instance(context, actor, stopped=stopped)
    for wish in (
        ports.Wish(8888),
        ports.Wish(80, reach=Reach.WEB),
        ports.Wish(53, protocol=Protocol.UDP, reach=Reach.NODE),
    ):
        await ports.add(context, actor, "box", wish)
        await run(context)


async def _add_port(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    return (await ports.add(context, actor, "box", ports.Wish(8888)))[2]


async def _add_port_stopped(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor, stopped=True)
    return (await ports.add(context, actor, "box", ports.Wish(8888, reach=Reach.NODE)))[2]


async def _remove_port(context: Context, actor: Actor) -> Operation:
    await with_port(context, actor)
    return await ports.remove(context, actor, "box", "8888")


async def _restart_with_ports(context: Context, actor: Actor) -> Operation:
    await with_port(context, actor)
    return await instances.restart(context, actor, "box")


async def _rebuild_with_ports(context: Context, actor: Actor) -> Operation:
    await with_port(context, actor)
    return await instances.rebuild(context, actor, "box")


async def _restore_with_ports(context: Context, actor: Actor) -> Operation:
    await with_snapshot(context, actor)
    await ports.add(context, actor, "box", ports.Wish(8888))
    await run(context)
    return await snapshots.restore(context, actor, "box", "one")


async def _push_keys(context: Context, actor: Actor) -> Operation:
    instance = await with_instance(context, actor)
    async with context.db.write() as session:
        return await operations.enqueue(
            session, context, actor, Kind.KEYS_PUSH, f"keys:{instance.id}",
            owner_id=actor.user_id, label="box", params={"instance": instance.id},
        )  # fmt: skip


async def _deliver_notice(context: Context, actor: Actor) -> Operation:
    instance = await with_instance(context, actor)
    notice = await with_notice(context, instance)
    async with context.db.write() as session:
        assert await notices.deliver(session, context, notice, instance.name)
    return (await _unfinished(context))[0]


async def with_notice(context: Context, instance: Instance) -> Notice:
    notice = Notice(
        new_id(), instance.owner_id, instance.id, None, "lease.warned", "Soon it ends.",
        context.now(), None, None,
    )  # fmt: skip
    async with context.db.write() as session:
        await notice_rows.add_notice(session, notice)
    return notice


async def _attach(context: Context, actor: Actor) -> Operation:
    await with_instance(context, actor)
    await with_agent(context)
    lease = await leases.take(context, actor, count=2)
    await scheduling.poke(context)
    return await operation_of(context, lease)


async def _detach(context: Context, actor: Actor) -> Operation:
    lease = await with_lease(context, actor)
    # What cannot be shut goes every step of the way.
    agent_of(context).finds_devices = False
    [lease] = await leases.release(context, actor, lease=lease.id)
    return await operation_of(context, lease)


async def _detach_free(context: Context, actor: Actor) -> Operation:
    lease = await with_lease(context, actor)
    [lease] = await leases.release(context, actor, lease=lease.id)
    return await operation_of(context, lease)


async def _detach_used(context: Context, actor: Actor) -> Operation:
    lease = await with_lease(context, actor)
    container = await container_of(context, lease.instance_id)
    agent, path = agent_of(context), await inside(context, lease)
    agent.open(container, path, "python3")
    agent.open(container, path, "stubborn", Manner.STUBBORN)
    agent.open(container, "/dev/null", "innocent")
    agent.open("hutch-another", path, "neighbour")
    [lease] = await leases.release(context, actor, lease=lease.id)
    return await operation_of(context, lease)


async def _stop_lent(context: Context, actor: Actor) -> Operation:
    await with_lease(context, actor)
    return await instances.stop(context, actor, "box")


async def _delete_lent(context: Context, actor: Actor) -> Operation:
    await with_lease(context, actor)
    return await instances.delete(context, actor, "box")


async def _restart_lent(context: Context, actor: Actor) -> Operation:
    await with_lease(context, actor)
    return await instances.restart(context, actor, "box")


async def _rebuild_lent(context: Context, actor: Actor) -> Operation:
    await with_lease(context, actor)
    return await instances.rebuild(context, actor, "box")


async def _restore_lent(context: Context, actor: Actor) -> Operation:
    """To a snapshot from a time when other accelerators were on loan."""
    lease = await with_lease(context, actor, count=1)
    await snapshots.create(context, actor, "box", "one")
    await run(context)
    await leases.release(context, actor, lease=lease.id)
    await run(context)
    await leases.take(context, actor, count=3)
    await run(context)
    return await snapshots.restore(context, actor, "box", "one")


async def _pool_add(context: Context, _actor: Actor) -> Operation:
    await pooled(context)
    return (await _unfinished(context))[0]


async def _pool_remove(context: Context, _actor: Actor) -> Operation:
    container_id = await pooled(context)
    await run(context)
    async with context.db.write() as session:
        return await operations.enqueue(
            session, context, SYSTEM, Kind.POOL_REMOVE, "pool:one",
            owner_id=None, label="pool", params={"container": container_id},
        )  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    kind: Kind
    begin: Callable[[Context, Actor], Awaitable[Operation]]
    last: str = ""
    """The step with which it is done, if not the procedure's last."""

    @property
    def steps(self) -> list[str]:
        """The steps that it comes to."""
        names = [each.name for each in self.procedure.steps]
        return names[: names.index(self.last) + 1] if self.last else names

    @property
    def procedure(self) -> Procedure:
        return PROCEDURES[self.kind.value]


SCENARIOS: dict[str, Scenario] = {
    "create": Scenario(Kind.INSTANCE_CREATE, _create),
    "create from the pool": Scenario(Kind.INSTANCE_CREATE, _create_pooled),
    "start": Scenario(Kind.INSTANCE_START, _start),
    "stop": Scenario(Kind.INSTANCE_STOP, _stop),
    "restart": Scenario(Kind.INSTANCE_RESTART, _restart),
    "rebuild": Scenario(Kind.INSTANCE_REBUILD, _rebuild),
    "rebuild a stopped one": Scenario(Kind.INSTANCE_REBUILD, _rebuild_stopped),
    "configure": Scenario(Kind.INSTANCE_CONFIGURE, _configure),
    "delete": Scenario(Kind.INSTANCE_DELETE, _delete),
    "snapshot": Scenario(Kind.SNAPSHOT_CREATE, _snapshot),
    "restore": Scenario(Kind.SNAPSHOT_RESTORE, _restore),
    "restore a stopped one": Scenario(Kind.SNAPSHOT_RESTORE, _restore_stopped),
    "delete a snapshot": Scenario(Kind.SNAPSHOT_DELETE, _delete_snapshot),
    "add a port": Scenario(Kind.PORT_ADD, _add_port),
    "add a port to a stopped one": Scenario(Kind.PORT_ADD, _add_port_stopped),
    "remove a port": Scenario(Kind.PORT_REMOVE, _remove_port),
    "restart with ports": Scenario(Kind.INSTANCE_RESTART, _restart_with_ports),
    "rebuild with ports": Scenario(Kind.INSTANCE_REBUILD, _rebuild_with_ports),
    "restore with ports": Scenario(Kind.SNAPSHOT_RESTORE, _restore_with_ports),
    "push keys": Scenario(Kind.KEYS_PUSH, _push_keys),
    "attach": Scenario(Kind.LEASE_ATTACH, _attach),
    "detach": Scenario(Kind.LEASE_DETACH, _detach),
    "detach what is free": Scenario(Kind.LEASE_DETACH, _detach_free, last="holders"),
    "detach what is used": Scenario(Kind.LEASE_DETACH, _detach_used),
    "stop with a lease": Scenario(Kind.INSTANCE_STOP, _stop_lent),
    "delete with a lease": Scenario(Kind.INSTANCE_DELETE, _delete_lent),
    "restart with a lease": Scenario(Kind.INSTANCE_RESTART, _restart_lent),
    "rebuild with a lease": Scenario(Kind.INSTANCE_REBUILD, _rebuild_lent),
    "restore with a lease": Scenario(Kind.SNAPSHOT_RESTORE, _restore_lent),
    "deliver a notice": Scenario(Kind.NOTICE_DELIVER, _deliver_notice),
    "add to the pool": Scenario(Kind.POOL_ADD, _pool_add),
    "remove from the pool": Scenario(Kind.POOL_REMOVE, _pool_remove),
}

EVERY_STEP = [(name, step) for name, scenario in SCENARIOS.items() for step in scenario.steps]


def with_step(
    scenario: Scenario, name: str, change: Callable[[Step], Step]
) -> dict[str, Procedure]:
    """All procedures, with one step of one kind changed."""
    procedure = scenario.procedure
    steps = tuple(change(step) if step.name == name else step for step in procedure.steps)
    return {**PROCEDURES, scenario.kind.value: replace(procedure, steps=steps)}


def before(step: Step, act: Callable[[], None]) -> Step:
    async def do(work: Work) -> None:
        act()
        await step.do(work)

    return replace(step, do=do)


def after(step: Step, act: Callable[[], None]) -> Step:
    async def do(work: Work) -> None:
        try:
            await step.do(work)
        except Done:
            act()
            raise
        act()

    return replace(step, do=do)


# -- what must be so whenever nothing is in progress -----------------------------------------


async def assert_whole(context: Context) -> None:
    """Database and engine tell the same story, and nothing is left behind in either."""
    async with context.db.read() as session:
        node = (await node_rows.list_nodes(session))[0]
        rows = await container_rows.list_containers(session)
        known = await instance_rows.list_instances(session)
        saved = {each.id: await snapshot_rows.list_snapshots(session, each.id) for each in known}
        live = await lease_rows.list_live(session)
        held = await lease_rows.list_held(session)
        cards = {each.id: each for each in await accelerator_rows.list_accelerators(session)}
        ordered = await revocation_rows.list_open(session, node.id)
        leading = await port_rows.of_node(session, node.id)
    assert {each.state for each in live} <= {LeaseState.QUEUED, LeaseState.ACTIVE}
    assert {each.lease_id for each in held} == {each.id for each in live if each.accelerators}
    assert not ordered, "an order that nobody waits for"
    engine = context.engines.of(node)
    real = {each.name: each for each in await engine.containers()}
    assert set(real) == {row.engine_name for row in rows}, "a container nobody knows, or a lost one"
    addresses = [each.address for each in real.values()]
    assert len(set(addresses)) == len(addresses)
    for row in rows:
        assert row.role in {ContainerRole.CURRENT, ContainerRole.POOL}, row.role
    current = {row.instance_id: row for row in rows if row.role is ContainerRole.CURRENT}
    for instance in known:
        row = current.pop(instance.id, None)
        if instance.state is InstanceState.FAILED:
            assert row is None, "a failed instance holds a container"
            continue
        assert row is not None, "an instance without a container"
        seen = real[row.engine_name]
        expected = Power.RUNNING if instance.state is InstanceState.RUNNING else Power.STOPPED
        assert instance.state in {InstanceState.RUNNING, InstanceState.STOPPED}, instance.state
        assert seen.power is expected
        assert seen.limits == instance.limits
        lent = {
            each
            for lease in live
            if lease.instance_id == instance.id
            for each in lease.accelerators
        }
        assert seen.devices == plan_all(cards[each] for each in lent)
        assert not lent or instance.state is InstanceState.RUNNING, "a stopped one holds nothing"
        assert set(seen.forwards) == set(forwards_of(node, leading[instance.id]))
        assert {port.state for port in leading[instance.id]} == {PortState.OPEN}
        assert {engine_name(each.id) for each in saved[instance.id]} == set(
            await engine.snapshots(row.engine_name)
        )
        assert {each.state for each in saved[instance.id]} <= {"ready"}
    assert not current, "a container of an instance that is gone"
