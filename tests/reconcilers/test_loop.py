"""Every reconciler runs by itself, soon after something changed, and never stops another."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hutch.domain.operations import Kind
from hutch.domain.people import Actor
from hutch.engine.base import ContainerSpec
from hutch.errors import DatabaseUnavailableError
from hutch.reconcilers import Reconcilers, loop
from hutch.reconcilers.drift import STOPPED_OUTSIDE
from hutch.reconcilers.watch import Watch
from hutch.services.context import Context
from tests.lab import with_settings
from tests.reconcilers.conftest import World, read_only

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Counting:
    """A reconciler that counts its passes, and does `then` in each."""

    def __init__(self, name: str = "counting", then: Callable[[], float | None] | None = None):
        self.name = name
        self.passes = 0
        self._then = then
        self._changed = asyncio.Condition()

    async def reconcile(self) -> float | None:
        async with self._changed:
            self.passes += 1
            self._changed.notify_all()
        return self._then() if self._then else None

    async def reached(self, passes: int) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.passes >= passes)


@asynccontextmanager
async def running(reconcilers: Reconcilers) -> AsyncIterator[None]:
    task = asyncio.create_task(reconcilers.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SHORTEST_PAUSE", 0.01)


async def test_each_runs_at_start_and_then_when_something_changed(context: Context):
    one, other = Counting("one"), Counting("other")
    async with running(Reconcilers(context, [one, other])):
        await one.reached(1)
        await other.reached(1)
        await asyncio.sleep(0.1)
        assert (one.passes, other.passes) == (1, 1)
        context.hints.reconcile.set()
        await one.reached(2)
        await other.reached(2)


async def test_each_runs_now_and_then_without_any_change(context: Context):
    one = Counting()
    async with running(Reconcilers(with_settings(context, reconcile_seconds=0.2), [one])):
        await one.reached(4)


async def test_a_reconciler_may_ask_to_look_again_soon(context: Context):
    one = Counting(then=lambda: 0.05)
    async with running(Reconcilers(context, [one])):
        await one.reached(4)


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), DatabaseUnavailableError("gone"), TimeoutError()]
)
async def test_one_that_fails_stops_neither_itself_nor_others(context: Context, error: Exception):
    def fail() -> None:
        raise error

    broken, sound = Counting("broken", fail), Counting("sound")
    async with running(Reconcilers(context, [broken, sound])):
        for passes in (1, 2, 3):
            await broken.reached(passes)
            await sound.reached(passes)
            context.hints.reconcile.set()


async def test_one_that_waits_for_ever_holds_up_no_other(context: Context):
    class Waiting:
        name = "waiting"

        async def reconcile(self) -> None:
            await asyncio.Event().wait()

    sound = Counting()
    async with running(Reconcilers(context, [Waiting(), sound])):
        await sound.reached(1)
        context.hints.reconcile.set()
        await sound.reached(2)


async def test_a_storm_of_hints_makes_few_passes(context: Context, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "SHORTEST_PAUSE", 0.2)
    one = Counting()
    async with running(Reconcilers(context, [one])):
        for _ in range(100):
            context.hints.reconcile.set()
            await asyncio.sleep(0.005)
    assert 2 <= one.passes <= 6


async def test_a_change_in_the_engine_is_shown_within_seconds(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    async with running(Reconcilers(world.context)):
        async with asyncio.timeout(10):
            # The listener is there once the reconcilers have looked for the first time.
            await asyncio.sleep(0.3)
            await world.engine.stop(await world.container(box))
            while await world.drift(box) != STOPPED_OUTSIDE:
                await asyncio.sleep(0.05)


async def test_all_of_them_find_nothing_to_do_in_a_lab_in_order(world: World, alice: Actor):
    await world.machine(alice, "box")
    context = read_only(world.context)
    everything = Reconcilers(context)
    await everything.once()
    await everything.close()
    assert await world.operations(*Kind) == []


async def test_an_engine_is_listened_to_anew_after_its_listener_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    changes, calls = world.engine.changes, 0

    def fail_first():
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the stream broke")
        return changes()

    monkeypatch.setattr(world.engine, "changes", fail_first)
    watch = Watch(world.context)
    for _ in range(4):
        await watch.reconcile()
        # Let the listener begin.
        await asyncio.sleep(0.01)
    await watch.close()
    assert calls == 2


async def test_a_node_at_another_address_is_listened_to_there(world: World):
    watch = Watch(world.context)
    await watch.reconcile()
    before = world.context.engines.of(await world.node())
    await world.change_node(network="other0")
    await watch.reconcile()
    after = world.context.engines.of(await world.node())
    assert after is not before
    world.context.hints.reconcile.clear()
    limits = world.context.settings.default_limits
    await after.create(ContainerSpec("hutch-00000001", "base", limits, "10.180.0.50"))
    async with asyncio.timeout(5):
        await world.context.hints.reconcile.wait()
    await watch.close()
