"""As many containers are ready as wanted, made one at a time and only when nobody is waiting."""

import asyncio
import os
from itertools import pairwise

import pytest

from hutch.domain.instances import ContainerRole
from hutch.domain.nodes import NodeState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.operations import Runner
from hutch.reconcilers.warm_pool import (
    FIRST_PAUSE,
    PATIENCE_SECONDS,
    TakenError,
    WarmPool,
    withdraw,
)
from hutch.services import instances as services
from hutch.store import containers
from tests.lab import CAPACITY
from tests.reconcilers.conftest import World, read_only


async def fill(world: World) -> int:
    """One pass of a server that has just started; how many containers the pool has then."""
    await WarmPool(world.context, world.monotonic).reconcile()
    return await pool(world)


async def pool(world: World) -> int:
    return sum(each.role is ContainerRole.POOL for each in await world.rows())


async def added(world: World, server: WarmPool) -> int:
    """How many additions have been begun after another pass."""
    await server.reconcile()
    return len(await world.operations(Kind.POOL_ADD))


async def test_no_pool_costs_no_write(world: World):
    await WarmPool(read_only(world.context), world.monotonic).reconcile()


async def test_a_full_pool_costs_no_write(world: World):
    await world.want_pool(1)
    await world.pooled()
    await WarmPool(read_only(world.context), world.monotonic).reconcile()


async def test_one_container_is_added_at_a_time(world: World):
    await world.want_pool(3)
    assert await fill(world) == 1
    assert await fill(world) == 1
    [operation] = await world.operations(Kind.POOL_ADD)
    [row] = await world.rows()
    assert operation.params["container"] == row.id
    assert (operation.target, row.ready) == (f"pool:{world.lab.node.id}", False)


async def test_several_servers_add_one_between_them(world: World):
    await world.want_pool(3)
    await asyncio.gather(*(WarmPool(world.context).reconcile() for _ in range(4)))
    assert await pool(world) == 1


async def test_the_pool_is_filled_to_what_is_wanted_and_then_emptied(world: World):
    await world.want_pool(2)
    runner = Runner(world.context)
    task = asyncio.create_task(runner.run())
    server = WarmPool(world.context, world.monotonic)

    async def until(number: int) -> None:
        async with asyncio.timeout(30):
            while len(await world.seen()) != number or len(await world.rows()) != number:
                await server.reconcile()
                await asyncio.sleep(0.02)

    try:
        await until(2)
        await server.reconcile()
        assert await world.operations(Kind.POOL_REMOVE) == []
        await world.want_pool(0)
        await until(0)
    finally:
        await runner.drain(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(await world.operations(Kind.POOL_ADD)) == 2


async def test_the_oldest_ones_are_kept(world: World):
    rows = [await world.pooled() for _ in range(3)]
    await world.want_pool(1)
    assert await fill(world) == 1
    removed = {each.params["container"] for each in await world.operations(Kind.POOL_REMOVE)}
    assert removed == {row.id for row in rows[1:]}


async def test_one_that_was_given_away_meanwhile_is_not_taken_back(world: World, alice: Actor):
    row = await world.pooled()
    instance, _ = await services.create(world.context, alice, services.Wish("box"))
    with pytest.raises(TakenError):
        async with world.context.db.write() as session:
            await withdraw(session, world.context, row)
    async with world.context.db.read() as session:
        current = await containers.current(session, instance.id)
    assert current is not None
    assert current.id == row.id
    assert await world.operations(Kind.POOL_REMOVE) == []


async def test_people_come_first(world: World, alice: Actor):
    await world.want_pool(1)
    _, operation = await services.create(world.context, alice, services.Wish("box"))
    assert await fill(world) == 0
    await world.end(operation)
    assert await fill(world) == 1


@pytest.mark.parametrize("waits", ["stuck", "put off"])
async def test_work_that_does_not_go_on_holds_up_no_pool(world: World, alice: Actor, waits: str):
    await world.want_pool(1)
    _, operation = await services.create(world.context, alice, services.Wish("box"))
    if waits == "stuck":
        await world.end(operation, OperationState.STUCK)
    else:
        world.wait(-60)
    assert await fill(world) == 1


async def test_a_busy_machine_is_left_in_peace_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    await world.want_pool(1)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    url = world.lab.node.url
    server = WarmPool(world.context, world.monotonic)
    # The load of this machine says nothing of another one.
    here = "unix:" + url.removeprefix("file:")
    monkeypatch.setattr(world.context.engines, "of", lambda _node: world.engine)
    await world.change_node(url=here)
    assert await added(world, server) == 0
    world.wait(PATIENCE_SECONDS + 1)
    assert await added(world, server) == 1


@pytest.mark.parametrize(
    "node",
    [
        {"disk_used": CAPACITY.disk - 1},
        {"state": NodeState.CORDONED.value},
        {"memory": 1024**3, "cpus": 1},
    ],
    ids=["disk short", "cordoned", "everything promised"],
)
async def test_a_node_that_takes_no_instance_gets_no_pool(
    world: World, alice: Actor, node: dict[str, object]
):
    await world.machine(alice, "box")
    await world.want_pool(1)
    await world.change_node(**node)
    assert await fill(world) == 0


async def test_a_node_that_is_away_gets_no_pool(world: World):
    await world.want_pool(1)
    await world.change_node(unreachable_since=world.context.now())
    assert await fill(world) == 0


async def test_an_image_that_the_node_lacks_is_not_tried(world: World):
    await world.want_pool(1)
    world.engine.remove_image("base")
    server = WarmPool(world.context, world.monotonic)
    assert await added(world, server) == 0
    world.engine.add_image("base")
    assert await added(world, server) == 0
    world.wait(FIRST_PAUSE + 1)
    assert await added(world, server) == 1


async def test_failed_attempts_come_less_and_less_often(world: World):
    await world.want_pool(1)
    server = WarmPool(world.context, world.monotonic)
    moments: list[float] = []
    for _ in range(200):
        before = len(await world.operations(Kind.POOL_ADD))
        if await added(world, server) > before:
            moments.append(world.monotonic.seconds)
            [operation, *_] = await world.operations(Kind.POOL_ADD)
            await world.end(operation, OperationState.FAILED)
            async with world.context.db.write() as session:
                await containers.delete_container(session, operation.params["container"])
        world.wait(10)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps == sorted(gaps)
    assert len(moments) < 8
