"""What is known of a node is what its engine says, and that it is away is told once."""

import asyncio
from datetime import timedelta

import pytest

from hutch.engine.base import NodeStatus
from hutch.errors import EngineError
from hutch.reconcilers import reach
from hutch.reconcilers.nodes import SEEN_EVERY, Nodes
from hutch.services.context import Context
from tests.lab import CAPACITY, Clock
from tests.reconcilers.conftest import World, read_only


async def test_a_node_that_is_as_it_was_is_not_written(world: World):
    await Nodes(read_only(world.context)).reconcile()


async def test_a_node_is_written_as_seen_once_in_a_minute(world: World):
    world.wait(SEEN_EVERY.total_seconds() + 1)
    await Nodes(world.context).reconcile()
    seen = (await world.node()).seen_at
    assert seen is not None
    assert world.context.now() - seen < timedelta(seconds=10)
    await Nodes(read_only(world.context)).reconcile()


async def test_a_clock_that_was_set_back_does_not_stop_the_writing(world: World, clock: Clock):
    clock.back(days=3)
    await Nodes(world.context).reconcile()
    seen = (await world.node()).seen_at
    assert seen is not None
    assert abs(world.context.now() - seen) < timedelta(seconds=10)


async def test_a_new_disk_is_known_at_once(world: World):
    await world.change_node(disk=1, cpus=1, memory=1)
    await Nodes(world.context).reconcile()
    assert (await world.node()).capacity == CAPACITY


async def test_a_disk_that_fills_is_known_at_once(world: World):
    await world.change_node(disk_used=CAPACITY.disk // 2)
    await Nodes(world.context).reconcile()
    status = await world.engine.status()
    assert (await world.node()).disk_used == status.disk_used


async def test_a_node_that_is_away_for_long_is_told_of_once(world: World):
    world.engine.faults.die()
    await Nodes(world.context).reconcile()
    since = (await world.node()).unreachable_since
    assert since is not None
    for _ in range(5):
        world.wait(3600)
        await Nodes(world.context).reconcile()
    assert (await world.node()).unreachable_since == since
    assert len(await world.events("node.unreachable")) == 1


async def test_a_node_that_returns_is_told_of_once(world: World):
    world.engine.faults.die()
    await Nodes(world.context).reconcile()
    world.wait(90)
    world.engine.faults.revive()
    for _ in range(3):
        await Nodes(world.context).reconcile()
    assert (await world.node()).unreachable_since is None
    [returned] = await world.events("node.returned")
    assert 85 <= returned.detail["away_seconds"] <= 95
    assert world.context.hints.reconcile.is_set()


async def test_two_servers_tell_of_it_once(world: World):
    world.engine.faults.die()
    await asyncio.gather(*(Nodes(world.context).reconcile() for _ in range(4)))
    assert len(await world.events("node.unreachable")) == 1


async def test_an_engine_that_refuses_to_tell_its_state_counts_as_away(world: World):
    world.engine.faults.fail("status", error=EngineError, times=1)
    await Nodes(world.context).reconcile()
    assert (await world.node()).unreachable_since is not None


async def test_an_engine_that_never_answers_counts_as_away(
    world: World, context: Context, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 0.05)
    world.engine.faults.hang("status")
    await Nodes(context).reconcile()
    assert (await world.node()).unreachable_since is not None


async def test_a_restart_is_left_for_whoever_brings_the_instances_back(world: World):
    before = await world.node()
    world.engine.reboot()
    world.wait(600)
    await Nodes(world.context).reconcile()
    after = await world.node()
    assert (after.boot_id, after.seen_at) == (before.boot_id, before.seen_at)
    status: NodeStatus = await world.engine.status()
    assert status.boot_id != after.boot_id
