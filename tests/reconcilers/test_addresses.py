"""A node that gets another address: the ports of its instances follow, and nothing is restarted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hutch.domain.instances import Desired, Instance, InstanceState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.operations import Runner
from hutch.reconcilers.drift import FORWARD_CHANGED
from hutch.reconcilers.instances import Instances
from hutch.services import instances as services
from hutch.services import nodes
from hutch.services.instances import target
from tests.reconcilers.conftest import World

ELSEWHERE = "192.0.2.77"


@pytest_asyncio.fixture
async def box(world: World, alice: Actor) -> Instance:
    return await world.machine(alice, "box")


async def work(world: World) -> None:
    """A server works until everything that was begun has ended."""
    runner = Runner(world.context)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(20):
        while any(each.finished_at is None for each in await world.operations(*Kind)):
            await asyncio.sleep(0.02)
    await runner.drain(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def _nothing_stops(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    stopped: list[str] = []
    stop = world.engine.stop

    async def told(name: str) -> None:
        stopped.append(name)
        await stop(name)

    monkeypatch.setattr(world.engine, "stop", told)
    yield
    assert stopped == []


async def led_from(world: World, box: Instance) -> set[str]:
    seen = await world.engine.get(await world.container(box))
    assert seen is not None
    return {each.listen_address for each in seen.forwards}


@pytest.mark.usefixtures("_nothing_stops")
async def test_ports_follow_while_the_instances_go_on_running(
    world: World, box: Instance, alice: Actor, ada: Actor
):
    rests = await world.machine(alice, "rests", running=False)
    changed = await nodes.set_address(world.context, ada, world.lab.node.name, ELSEWHERE)
    assert changed.address == ELSEWHERE
    await work(world)
    assert await led_from(world, box) == {ELSEWHERE}
    assert await world.state(box) == (InstanceState.RUNNING, Desired.RUNNING)
    assert await world.state(rests) == (InstanceState.STOPPED, Desired.STOPPED)
    [begun] = await world.operations(*Kind)
    assert (begun.target, begun.created_by) == (target(box.id), ada.name)


@pytest.mark.usefixtures("_nothing_stops")
async def test_what_was_busy_shows_it_and_is_mended_by_starting_it(
    world: World, box: Instance, alice: Actor, ada: Actor
):
    busy = await world.begin(Kind.INSTANCE_CONFIGURE, target(box.id))
    await nodes.set_address(world.context, ada, world.lab.node.name, ELSEWHERE)
    assert await world.operations(Kind.INSTANCE_START) == []
    await world.end(busy, OperationState.CANCELLED)
    reconciler = Instances(world.context, world.monotonic)
    await reconciler.reconcile()
    assert await world.drift(box) == FORWARD_CHANGED
    await services.start(world.context, alice, "box")
    await work(world)
    assert await led_from(world, box) == {ELSEWHERE}
    await reconciler.reconcile()
    assert await world.drift(box) is None


@pytest.mark.usefixtures("box")
async def test_the_same_address_again_begins_nothing(world: World, ada: Actor):
    await nodes.set_address(world.context, ada, world.lab.node.name, world.lab.node.address)
    assert await world.operations(*Kind) == []
    assert await world.events("node.set_address") == []
