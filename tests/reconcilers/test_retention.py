"""What is too old is forgotten, but not because a clock says so that has just jumped."""

from datetime import timedelta

from hutch.domain.ids import new_id
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import SYSTEM, Actor, Scope, Token
from hutch.reconcilers.retention import EVERY, Retention
from hutch.store import events, tokens
from tests.reconcilers.conftest import World, read_only

YEARS = timedelta(days=3000)


async def age(world: World, alice: Actor) -> None:
    """Leave something of each kind behind, and let years go by."""
    await world.begin(Kind.KEYS_PUSH, "keys:live")
    await world.end(await world.begin(Kind.KEYS_PUSH, "keys:ended"))
    stuck = await world.begin(Kind.KEYS_PUSH, "keys:stuck")
    await world.end(stuck, OperationState.STUCK)
    now = world.context.now()
    async with world.context.db.write() as session:
        for title, end in (("old", now), ("everlasting", None)):
            token = Token(new_id(), alice.user_id, title, Scope.FULL, now, end, None)
            await tokens.add_token(session, token, title.encode())
        await tokens.add_failure(session, "name:alice", now)
    await record_event(world)
    world.wait(YEARS.total_seconds())
    await record_event(world)


async def record_event(world: World) -> None:
    async with world.context.db.write() as session:
        await events.record(
            session, SYSTEM, world.context.now(), "node.unreachable", ("node", "n", "n")
        )


async def left(world: World, alice: Actor) -> tuple[int, int, list[str], int]:
    """Events, operations, tokens and failed sign-ins that there are."""
    now = world.context.now()
    async with world.context.db.read() as session:
        titles = [each.title for each in await tokens.list_tokens(session, alice.user_id)]
        failures, _ = await tokens.count_failures(session, "name:alice", now - 5 * YEARS, now)
    number = len(await world.operations(Kind.KEYS_PUSH))
    return len(await world.events("node.")), number, sorted(titles), failures


EVERYTHING = (2, 3, ["everlasting", "old"], 1)


async def test_what_is_old_goes_and_the_rest_stays(world: World, alice: Actor):
    await age(world, alice)
    server = Retention(world.context, world.monotonic)
    await server.reconcile()
    world.wait(EVERY + 1)
    await server.reconcile()
    assert await left(world, alice) == (1, 2, ["everlasting"], 0)


async def test_it_is_done_once_an_hour(world: World, alice: Actor):
    await age(world, alice)
    server = Retention(read_only(world.context), world.monotonic)
    await server.reconcile()
    for _ in range(30):
        world.wait(EVERY / 31)
        await server.reconcile()


async def test_a_clock_that_jumps_ahead_deletes_nothing(world: World, alice: Actor):
    await age(world, alice)
    server = Retention(read_only(world.context), world.monotonic)
    await server.reconcile()
    world.monotonic.seconds += EVERY + 1
    world.clock.forward(days=4000)
    await server.reconcile()
    world.wait(EVERY / 2)
    await server.reconcile()
    assert await left(world, alice) == EVERYTHING


async def test_cleaning_goes_on_an_hour_after_the_clock_was_set(world: World, alice: Actor):
    await age(world, alice)
    server = Retention(world.context, world.monotonic)
    await server.reconcile()
    world.clock.back(days=1)
    await server.reconcile()
    world.wait(EVERY + 1)
    await server.reconcile()
    assert await left(world, alice) == (1, 2, ["everlasting"], 0)
