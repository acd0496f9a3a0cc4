"""What hutch does not know is reported, never silently deleted."""

from hutch.domain.ids import new_id
from hutch.domain.instances import Container, ContainerRole
from hutch.domain.operations import Kind
from hutch.domain.people import Actor
from hutch.engine.base import ContainerSpec
from hutch.reconcilers.orphans import LEFT_SECONDS, MOST_LEFTOVERS, Orphans
from hutch.reconcilers.warm_pool import making
from hutch.services import instances as services
from hutch.services.instances import target
from hutch.store import containers
from tests.lab import Clock
from tests.reconcilers.conftest import World, read_only


async def stray(world: World, name: str = "hutch-0badcafe", **labels: str) -> None:
    limits = world.context.settings.default_limits
    await world.engine.create(ContainerSpec(name, "base", limits, "10.180.9.9", labels))


async def forget(world: World, *rows: Container) -> None:
    """Lose the row of a container, as a creation does whose undoing came before its doing."""
    async with world.context.db.write() as session:
        for row in rows:
            await containers.delete_container(session, row.id)


async def removals(world: World) -> list[str]:
    return [each.params["container"] for each in await world.operations(Kind.POOL_REMOVE)]


async def test_nothing_is_written_when_every_container_is_known(world: World, alice: Actor):
    await world.machine(alice, "box")
    await world.pooled()
    await Orphans(read_only(world.context), world.monotonic).reconcile()


async def test_a_strange_container_is_reported_once_and_stays(world: World):
    await stray(world)
    for server in (Orphans(world.context, world.monotonic), Orphans(world.context)):
        for _ in range(3):
            world.wait(LEFT_SECONDS)
            await server.reconcile()
    [told] = await world.events("container.orphan")
    assert told.target_id == "hutch-0badcafe"
    assert told.detail == {"node": "node1", "of_this_lab": False}
    assert await removals(world) == []
    assert len(await world.seen()) == 1


async def test_what_a_restored_database_does_not_know_is_not_deleted(world: World):
    """It carries our label, but this process never saw its row: it may be someone's machine."""
    await stray(world, lab=world.context.vault.lab, container=new_id())
    server = Orphans(world.context, world.monotonic)
    for _ in range(3):
        await server.reconcile()
        world.wait(LEFT_SECONDS)
    assert (await world.events("container.orphan"))[0].detail["of_this_lab"] is True
    assert await removals(world) == []


async def test_a_database_that_loses_rows_costs_nobody_their_machine(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    server = Orphans(world.context, world.monotonic)
    await server.reconcile()
    await forget(world, *await world.rows())
    for _ in range(3):
        await server.reconcile()
        world.wait(LEFT_SECONDS)
    assert [each.target_id for each in await world.events("container.orphan")] == [name]
    assert await removals(world) == []


async def test_a_leftover_of_the_pool_is_removed_after_a_while(world: World):
    row = await world.pooled()
    server = Orphans(world.context, world.monotonic)
    await server.reconcile()
    await forget(world, row)
    await server.reconcile()
    world.wait(LEFT_SECONDS - 1)
    await server.reconcile()
    assert await removals(world) == []
    world.wait(2)
    for _ in range(3):
        await server.reconcile()
    [operation] = await world.operations(Kind.POOL_REMOVE)
    assert operation.params["engine_name"] == row.engine_name
    assert operation.params["node"] == world.lab.node.id


async def test_a_leftover_of_a_creation_is_removed(world: World, alice: Actor):
    wish = services.Wish("box")
    instance, operation = await services.create(world.context, alice, wish)
    [row] = await world.rows()
    await world.engine.create(world.spec(row))
    server = Orphans(world.context, world.monotonic)
    await server.reconcile()
    await forget(world, row)
    await world.end(operation)
    await server.reconcile()
    world.wait(LEFT_SECONDS + 1)
    await server.reconcile()
    assert await removals(world) == [row.id]
    assert operation.target == target(instance.id)


async def test_a_clock_that_jumps_ahead_removes_nothing_early(world: World, clock: Clock):
    row = await world.pooled()
    server = Orphans(world.context, world.monotonic)
    await server.reconcile()
    await forget(world, row)
    await server.reconcile()
    clock.forward(days=365)
    await server.reconcile()
    assert await removals(world) == []


async def test_many_leftovers_at_once_are_no_leftovers(world: World):
    rows = [await world.pooled() for _ in range(MOST_LEFTOVERS + 1)]
    server = Orphans(world.context, world.monotonic)
    await server.reconcile()
    await forget(world, *rows)
    await server.reconcile()
    world.wait(LEFT_SECONDS + 1)
    await server.reconcile()
    assert await removals(world) == []
    assert len(await world.events("container.orphan")) == MOST_LEFTOVERS + 1


async def test_a_pooled_container_that_is_gone_loses_its_row(world: World):
    row = await world.pooled()
    await world.engine.delete(row.engine_name)
    for _ in range(2):
        await Orphans(world.context, world.monotonic).reconcile()
    assert await removals(world) == [row.id]
    [known] = await world.rows()
    # Nobody gets it any more.
    assert known.role is ContainerRole.OUTGOING


async def test_one_that_is_only_being_made_keeps_its_row(world: World):
    row = await world.pooled(ready=False)
    await world.engine.delete(row.engine_name)
    operation = await world.begin(Kind.POOL_ADD, making(world.lab.node.id), container=row.id)
    await Orphans(read_only(world.context), world.monotonic).reconcile()
    await world.end(operation)
    await Orphans(world.context, world.monotonic).reconcile()
    assert await removals(world) == [row.id]


async def test_an_engine_that_is_away_loses_no_rows(world: World):
    await world.pooled()
    world.engine.faults.die()
    await Orphans(read_only(world.context), world.monotonic).reconcile()
