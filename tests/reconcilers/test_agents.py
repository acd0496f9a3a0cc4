"""An agent that falls silent takes its accelerators out of the queue's reach, until it returns."""

from hutch.domain.accelerators import Health
from hutch.reconcilers.agents import Agents
from hutch.services.telemetry import Recorder
from hutch.store import accelerators
from tests.accelerators import broken, card, reading, sign_in
from tests.reconcilers.conftest import World

A, B = "0000:3b:00.0", "0000:5e:00.0"


async def joined(world: World) -> Recorder:
    return Recorder(
        world.context, world.lab.node, await sign_in(world.context, world.lab, card(A), card(B))
    )


async def health(world: World) -> dict[str, Health]:
    async with world.context.db.read() as session:
        found = await accelerators.list_accelerators(session)
    return {each.found.address: each.found.health for each in found}


async def test_a_node_without_an_agent_is_left_alone(world: World):
    world.wait(1000)
    assert await Agents(world.context, world.monotonic).reconcile() is None
    assert (await world.node()).agent_silent_since is None


async def test_an_agent_that_speaks_is_not_silent(world: World):
    recorder = await joined(world)
    agents = Agents(world.context, world.monotonic)
    for _ in range(20):
        await agents.reconcile()
        world.wait(4)
        await recorder.flush()
    assert set((await health(world)).values()) == {Health.OK}


async def test_a_silent_agent_is_told_of_once_and_its_accelerators_are_unknown(world: World):
    await joined(world)
    seen = (await world.node()).agent_seen_at
    agents = Agents(world.context, world.monotonic)
    for _ in range(10):
        await agents.reconcile()
        world.wait(5)
    assert set((await health(world)).values()) == {Health.UNKNOWN}
    assert (await world.node()).agent_silent_since == seen
    [event] = await world.events("node.agent_silent")
    assert event.detail == {"accelerators": 2}
    assert world.context.hints.reconcile.is_set()


async def test_what_was_broken_stays_so_and_is_not_told_of_again(world: World):
    recorder = await joined(world)
    recorder.add([broken(A)], 2)
    await recorder.flush()
    world.wait(60)
    await Agents(world.context, world.monotonic).reconcile()
    assert await health(world) == {A: Health.FAILED, B: Health.UNKNOWN}
    recorder.add([broken(A), reading(B)], 2)
    await recorder.flush()
    assert await health(world) == {A: Health.FAILED, B: Health.OK}
    assert len(await world.events("accelerator.failed")) == 1
    assert await world.events("accelerator.recovered") == []


async def test_an_agent_that_returns_is_told_of_and_its_accelerators_are_well(world: World):
    recorder = await joined(world)
    agents = Agents(world.context, world.monotonic)
    world.wait(60)
    await agents.reconcile()
    world.wait(30)
    world.context.hints.reconcile.clear()
    recorder.add([reading(A), reading(B)], 2)
    await recorder.flush()
    await agents.reconcile()
    assert set((await health(world)).values()) == {Health.OK}
    [event] = await world.events("node.agent_returned")
    assert 88 <= event.detail["silent_seconds"] <= 92
    assert world.context.hints.reconcile.is_set()


async def test_signing_in_anew_is_a_return_as_well(world: World):
    await joined(world)
    world.wait(60)
    await Agents(world.context, world.monotonic).reconcile()
    await joined(world)
    assert set((await health(world)).values()) == {Health.OK}
    assert len(await world.events("node.agent_returned")) == 1


async def test_a_clock_that_leaps_makes_nobody_silent(world: World):
    recorder = await joined(world)
    agents = Agents(world.context, world.monotonic)
    await agents.reconcile()
    world.monotonic.seconds += 4
    world.clock.forward(hours=3)
    await agents.reconcile()
    await recorder.flush()
    world.monotonic.seconds += 4
    world.clock.forward(hours=3)
    await agents.reconcile()
    await recorder.flush()
    world.monotonic.seconds += 4
    world.clock.back(hours=9)
    await agents.reconcile()
    assert set((await health(world)).values()) == {Health.OK}


async def test_a_silence_from_before_the_server_began_counts(world: World):
    await joined(world)
    world.clock.forward(minutes=5)
    await Agents(world.context, world.monotonic).reconcile()
    assert set((await health(world)).values()) == {Health.UNKNOWN}


async def test_it_is_looked_at_soon_enough(world: World):
    await joined(world)
    again = await Agents(world.context, world.monotonic).reconcile()
    assert again is not None
    assert again <= world.context.settings.agent_silence_seconds / 2
