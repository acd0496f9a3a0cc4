"""After a node has restarted, what should run runs again; what was stopped on purpose does not."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hutch.domain.instances import Desired, Instance, InstanceState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.engine.base import Power
from hutch.operations import Runner
from hutch.operations.machine import SSH_FORWARD
from hutch.reconcilers.drift import STOPPED_OUTSIDE
from hutch.reconcilers.instances import Instances
from hutch.reconcilers.nodes import Nodes
from hutch.reconcilers.settling import BLOCKED_SECONDS, MOST_SECONDS, SETTLE_SECONDS
from hutch.services import instances as services
from hutch.services.instances import target
from hutch.store import nodes
from tests.reconcilers.conftest import World, read_only

RUNNING, STOPPED = InstanceState.RUNNING, InstanceState.STOPPED


class Server:
    """The reconcilers of one server that matter here, with what they remember."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._nodes = Nodes(world.context)
        self.instances = Instances(world.context, world.monotonic)

    async def look(self) -> None:
        await self._nodes.reconcile()
        await self.instances.reconcile()

    async def watch(self, seconds: float, every: float = 60.0) -> None:
        """Look at once, and again and again while time passes."""
        await self.look()
        while seconds > 0:
            step = min(every, seconds)
            self._world.wait(step)
            seconds -= step
            await self.look()

    async def settle(self) -> None:
        await self.watch(SETTLE_SECONDS + 0.1, every=SETTLE_SECONDS + 0.1)


async def starts(world: World) -> set[str]:
    """The ids of the instances that hutch has begun to start."""
    return {each.params["instance"] for each in await world.operations(Kind.INSTANCE_START)}


async def is_dealt_with(world: World) -> bool:
    return (await world.node()).boot_id == (await world.engine.status()).boot_id


@pytest_asyncio.fixture
async def box(world: World, alice: Actor) -> Instance:
    return await world.machine(alice, "box")


@pytest_asyncio.fixture
async def runner(world: World) -> AsyncIterator[Runner]:
    runner = Runner(world.context)
    task = asyncio.create_task(runner.run())
    yield runner
    await runner.drain(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_should_run_is_started_and_nothing_else(
    world: World, box: Instance, alice: Actor, bob: Actor
):
    other = await world.machine(bob, "box")
    await world.machine(alice, "rests", running=False)
    world.engine.reboot(restore=False)
    await Server(world).settle()
    assert await starts(world) == {box.id, other.id}
    assert await world.state(box) == (InstanceState.STARTING, Desired.RUNNING)
    assert await is_dealt_with(world)
    [told] = await world.events("node.restarted")
    assert told.detail["started"] == 2
    assert await world.events("instance.drift") == []


async def test_everything_runs_again_with_port_and_without_drift(
    world: World, box: Instance, runner: Runner
):
    name = await world.container(box)
    world.engine.reboot(restore=False)
    await world.engine.remove_forward(name, SSH_FORWARD)
    server = Server(world)
    await server.settle()
    async with asyncio.timeout(20):
        while (await world.state(box))[0] is not RUNNING:
            await asyncio.sleep(0.02)
    seen = await world.engine.get(name)
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert [each.listen_port for each in seen.forwards] == [box.ssh_port]
    await server.look()
    assert await world.drift(box) is None


async def test_what_the_engine_brings_back_itself_is_left_to_it(world: World, box: Instance):
    world.engine.reboot(restore=False)
    server = Server(world)
    await server.look()
    world.wait(SETTLE_SECONDS - 1)
    await world.engine.start(await world.container(box))
    await server.settle()
    assert await world.operations(*Kind) == []
    assert await is_dealt_with(world)
    assert await world.state(box) == (RUNNING, Desired.RUNNING)
    assert await world.events("instance.drift") == []


async def test_nothing_is_started_while_the_engine_is_still_starting(world: World, alice: Actor):
    boxes = [await world.machine(alice, f"box{number}") for number in range(4)]
    world.engine.reboot(restore=False)
    server = Server(world)
    for each in boxes[:-1]:
        await server.look()
        assert await starts(world) == set()
        await world.engine.start(await world.container(each))
        world.wait(SETTLE_SECONDS - 0.5)
    await server.look()
    assert await starts(world) == set()
    await server.settle()
    assert await starts(world) == {boxes[-1].id}


async def test_a_node_on_which_something_comes_and_goes_settles_in_the_end(
    world: World, box: Instance, alice: Actor
):
    restless = await world.container(await world.machine(alice, "restless"))
    world.engine.reboot(restore=False)
    server = Server(world)
    for _ in range(int(MOST_SECONDS / 4) + 1):
        await server.look()
        await world.engine.start(restless)
        world.wait(2)
        await server.look()
        await world.engine.stop(restless)
        world.wait(2)
    assert box.id in await starts(world)


async def test_a_restart_of_the_daemon_alone_begins_nothing(world: World, box: Instance):
    world.engine.reboot()
    await Server(world).settle()
    assert await world.operations(*Kind) == []
    assert await is_dealt_with(world)


async def test_what_had_been_stopped_by_hand_stays_stopped(world: World, box: Instance):
    await world.engine.stop(await world.container(box))
    server = Server(world)
    await server.watch(900)
    world.engine.reboot(restore=False)
    await server.settle()
    assert await world.operations(*Kind) == []
    assert await world.drift(box) == STOPPED_OUTSIDE
    assert await world.state(box) == (STOPPED, Desired.RUNNING)
    assert await is_dealt_with(world)


async def test_it_stays_stopped_also_when_hutch_restarts(world: World, box: Instance):
    await world.engine.stop(await world.container(box))
    await Server(world).watch(900)
    await Server(world).watch(900)
    assert await world.operations(*Kind) == []
    world.engine.reboot(restore=False)
    await Server(world).settle()
    assert await world.operations(*Kind) == []
    assert await world.drift(box) == STOPPED_OUTSIDE


async def test_a_stop_shortly_before_the_node_went_away_was_part_of_the_shutdown(
    world: World, box: Instance
):
    server = Server(world)
    await server.watch(900)
    await world.engine.stop(await world.container(box))
    await server.watch(120)
    assert await world.drift(box) == STOPPED_OUTSIDE
    world.engine.faults.die()
    await server.watch(7200, every=1800)
    world.engine.reboot(restore=False)
    world.engine.faults.revive()
    await server.settle()
    assert await starts(world) == {box.id}
    assert await world.drift(box) is None


async def test_being_away_for_long_makes_an_old_stop_no_older(world: World, box: Instance):
    """What counts is how long before the outage it was stopped, not how long ago."""
    await world.engine.stop(await world.container(box))
    server = Server(world)
    await server.look()
    world.engine.faults.die()
    await server.watch(48 * 3600, every=6 * 3600)
    world.engine.reboot(restore=False)
    world.engine.faults.revive()
    await server.settle()
    assert await starts(world) == {box.id}


async def test_a_node_that_is_only_cut_off_starts_nothing(world: World, box: Instance):
    await world.engine.stop(await world.container(box))
    server = Server(world)
    await server.look()
    world.engine.faults.die()
    await server.watch(600)
    world.engine.faults.revive()
    await server.watch(600)
    assert await world.operations(*Kind) == []
    assert await world.drift(box) == STOPPED_OUTSIDE


async def test_a_restart_while_hutch_was_down_is_dealt_with(world: World, box: Instance):
    world.engine.reboot(restore=False)
    world.wait(24 * 3600)
    await Server(world).settle()
    assert await starts(world) == {box.id}


async def test_hutch_that_is_killed_meanwhile_begins_the_rest(
    world: World, alice: Actor, monkeypatch: pytest.MonkeyPatch
):
    boxes = [await world.machine(alice, f"box{number}") for number in range(3)]
    world.engine.reboot(restore=False)
    server = Server(world)
    await server.look()
    world.wait(SETTLE_SECONDS + 1)
    calls = 0
    update = nodes.update_node

    async def dies(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    monkeypatch.setattr(nodes, "update_node", dies)
    with pytest.raises(asyncio.CancelledError):
        await server.instances.reconcile()
    assert calls == 1
    assert not await is_dealt_with(world)
    monkeypatch.setattr(nodes, "update_node", update)
    # One was even carried out, and then went down again, before the next server came.
    begun = (await world.operations(Kind.INSTANCE_START))[0]
    again = next(each for each in boxes if target(each.id) == begun.target)
    await world.end(begun)
    await world.change(again, state="stopped")

    await Server(world).settle()
    found = [each.target for each in await world.operations(Kind.INSTANCE_START)]
    assert sorted(found) == sorted([*(target(each.id) for each in boxes), target(again.id)])
    assert await is_dealt_with(world)


async def test_several_servers_start_each_instance_once(world: World, alice: Actor):
    boxes = [await world.machine(alice, f"box{number}") for number in range(5)]
    world.engine.reboot(restore=False)
    servers = [Server(world) for _ in range(3)]
    await asyncio.gather(*(each.look() for each in servers))
    world.wait(SETTLE_SECONDS + 1)
    await asyncio.gather(*(each.look() for each in servers))
    begun = await world.operations(Kind.INSTANCE_START)
    assert sorted(each.params["instance"] for each in begun) == sorted(each.id for each in boxes)
    assert len(await world.events("node.restarted")) == 1


async def test_what_its_owner_stops_meanwhile_is_not_started(
    world: World, box: Instance, alice: Actor
):
    world.engine.reboot(restore=False)
    server = Server(world)
    await server.look()
    await services.stop(world.context, alice, "box")
    await server.settle()
    assert await starts(world) == set()


async def test_what_a_snapshot_is_taken_of_is_started_after_it(world: World, box: Instance):
    operation = await world.begin(Kind.SNAPSHOT_CREATE, target(box.id), instance=box.id)
    world.engine.reboot(restore=False)
    server = Server(world)
    await server.settle()
    assert await starts(world) == set()
    assert not await is_dealt_with(world)
    await world.end(operation)
    await server.settle()
    assert await starts(world) == {box.id}
    assert await is_dealt_with(world)


async def test_a_stuck_operation_does_not_keep_the_restart_open_for_ever(
    world: World, box: Instance
):
    operation = await world.begin(Kind.SNAPSHOT_CREATE, target(box.id), instance=box.id)
    await world.end(operation, OperationState.STUCK)
    world.engine.reboot(restore=False)
    await Server(world).watch(BLOCKED_SECONDS + 60)
    assert await is_dealt_with(world)


async def test_a_second_restart_begins_anew(world: World, box: Instance):
    server = Server(world)
    world.engine.reboot(restore=False)
    await server.look()
    world.engine.reboot(restore=False)
    world.wait(SETTLE_SECONDS + 1)
    await server.look()
    assert await starts(world) == set()
    await server.settle()
    assert await starts(world) == {box.id}
    assert await is_dealt_with(world)


async def test_a_clock_that_wakes_up_in_the_past_starts_what_should_run(
    world: World, box: Instance
):
    await Server(world).watch(600)
    world.engine.reboot(restore=False)
    server = Server(world)
    world.wait(-20 * 365 * 86400)
    world.monotonic.seconds = 0.0
    await server.settle()
    assert await starts(world) == {box.id}


async def test_a_node_that_came_to_rest_costs_no_write(world: World, box: Instance):
    world.engine.reboot()
    await Server(world).settle()
    await Instances(read_only(world.context), world.monotonic).reconcile()
