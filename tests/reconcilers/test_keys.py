"""Instances that lack their owner's latest keys get them, however the first push ended."""

from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.reconcilers.keys import FIRST_PAUSE, Keys
from hutch.store import users
from tests.reconcilers.conftest import World, read_only


async def change_keys(world: World, person: Actor) -> None:
    async with world.context.db.write() as session:
        await users.update_user(session, person.user_id, keys_version=7)


async def pushes(world: World) -> int:
    return len(await world.operations(Kind.KEYS_PUSH))


async def test_nothing_is_written_when_all_have_their_keys(world: World, alice: Actor):
    await world.machine(alice, "box")
    await Keys(read_only(world.context), world.monotonic).reconcile()


async def test_a_running_instance_that_is_behind_is_brought_up_to_date(
    world: World, alice: Actor, bob: Actor
):
    box = await world.machine(alice, "box")
    await world.machine(alice, "rests", running=False)
    await world.machine(bob, "box")
    await change_keys(world, alice)
    await Keys(world.context, world.monotonic).reconcile()
    [operation] = await world.operations(Kind.KEYS_PUSH)
    assert operation.target == f"keys:{box.id}"
    assert world.context.hints.work.is_set()


async def test_a_push_that_is_under_way_is_waited_for(world: World, alice: Actor):
    await world.machine(alice, "box")
    await change_keys(world, alice)
    await Keys(world.context, world.monotonic).reconcile()
    await Keys(read_only(world.context), world.monotonic).reconcile()


async def test_pushes_that_do_not_help_come_less_and_less_often(world: World, alice: Actor):
    await world.machine(alice, "box")
    await change_keys(world, alice)
    server = Keys(world.context, world.monotonic)
    for _ in range(60):
        await server.reconcile()
        for each in await world.operations(Kind.KEYS_PUSH):
            await world.end(each, OperationState.FAILED)
        world.wait(FIRST_PAUSE)
    assert 4 <= await pushes(world) <= 8
    assert (await world.operations(Kind.KEYS_PUSH))[0].created_by == "hutch"
