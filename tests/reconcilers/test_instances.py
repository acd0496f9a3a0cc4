"""What someone does outside hutch is shown on the instance, and never fought."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hutch.domain.instances import Desired, InstanceState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.domain.sizes import GiB
from hutch.engine.base import Forward
from hutch.errors import EngineNotFoundError
from hutch.operations.machine import SSH_FORWARD, forward_name
from hutch.reconcilers.drift import (
    FORWARD_CHANGED,
    LIMITS_CHANGED,
    MISSING,
    STARTED_OUTSIDE,
    STOPPED_OUTSIDE,
    SUSPENDED_OUTSIDE,
)
from hutch.reconcilers.instances import SUSPENDED_SECONDS, Instances
from hutch.services import instances as services
from hutch.services import ports
from hutch.services.instances import target
from hutch.store import ports as port_rows
from tests.reconcilers.conftest import World, read_only

RUNNING, STOPPED = InstanceState.RUNNING, InstanceState.STOPPED


async def compare(world: World) -> None:
    """One pass of a server that has just started."""
    await Instances(world.context, world.monotonic).reconcile()


async def drifts(world: World) -> list[tuple[str | None, str | None]]:
    """What was recorded, oldest first: what differs, and what differed before."""
    found = await world.events("instance.drift")
    return [(each.detail["code"], each.detail["was"]) for each in reversed(found)]


async def test_nothing_is_written_when_all_is_as_it_should_be(world: World, alice: Actor):
    await world.machine(alice, "runs")
    await world.machine(alice, "rests", running=False)
    await Instances(read_only(world.context), world.monotonic).reconcile()


async def test_a_stop_by_hand_is_shown_and_not_fought(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.stop(await world.container(box))
    for _ in range(3):
        await compare(world)
        world.wait(3600)
    known = await world.instance(box.id)
    assert (known.state, known.desired) == (STOPPED, Desired.RUNNING)
    assert known.drift is not None
    assert known.drift.code == STOPPED_OUTSIDE
    assert "`hutch start box`" in known.drift.message
    assert await world.operations(*Kind) == []
    assert await drifts(world) == [(STOPPED_OUTSIDE, None)]


async def test_a_shown_drift_costs_no_further_write(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.stop(await world.container(box))
    await compare(world)
    await Instances(read_only(world.context), world.monotonic).reconcile()


async def test_drift_ends_when_it_was_put_right_by_hand(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.stop(name)
    await compare(world)
    await world.engine.start(name)
    await compare(world)
    known = await world.instance(box.id)
    assert (known.state, known.desired, known.drift) == (RUNNING, Desired.RUNNING, None)
    assert await drifts(world) == [(STOPPED_OUTSIDE, None), (None, STOPPED_OUTSIDE)]


async def test_a_start_by_hand_is_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box", running=False)
    await world.engine.start(await world.container(box))
    await compare(world)
    assert await world.state(box) == (RUNNING, Desired.STOPPED)
    assert await world.drift(box) == STARTED_OUTSIDE


async def test_the_owner_can_start_what_was_stopped_by_hand(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.stop(await world.container(box))
    await compare(world)
    await services.start(world.context, alice, "box")
    await compare(world)
    assert await world.state(box) == (InstanceState.STARTING, Desired.RUNNING)
    assert await world.drift(box) is None


async def test_a_container_that_was_deleted_by_hand_is_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.delete(await world.container(box))
    await compare(world)
    assert await world.state(box) == (STOPPED, Desired.RUNNING)
    assert await world.drift(box) == MISSING
    assert await world.operations(*Kind) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"memory": 8 * GiB}, "memory 8GiB instead of 4GiB. `hutch set box --memory 4GiB`"),
        ({"cpus": 7, "processes": 99}, "cpus 7 instead of 2, processes 99 instead of 8192."),
        ({"disk": 21 * GiB}, "`hutch set box --disk 20GiB`"),
    ],
)
async def test_limits_that_were_changed_by_hand_are_told_with_numbers(
    world: World, alice: Actor, change: dict[str, int], told: str
):
    box = await world.machine(alice, "box")
    await world.engine.set_limits(await world.container(box), replace(box.limits, **change))
    await compare(world)
    known = await world.instance(box.id)
    assert known.drift is not None
    assert known.drift.code == LIMITS_CHANGED
    assert told in known.drift.message
    assert (known.state, known.limits) == (RUNNING, box.limits)


async def test_limits_that_were_taken_away_are_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    world.engine.lose_limits(await world.container(box))
    await compare(world)
    assert await world.drift(box) == LIMITS_CHANGED


async def test_a_lost_forward_is_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.remove_forward(await world.container(box), SSH_FORWARD)
    await compare(world)
    assert await world.drift(box) == FORWARD_CHANGED


async def test_a_forward_to_another_port_is_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    elsewhere = Forward(SSH_FORWARD, world.lab.node.address, box.ssh_port, 2222)
    await world.engine.set_forward(await world.container(box), elsewhere)
    await compare(world)
    assert await world.drift(box) == FORWARD_CHANGED


async def test_ports_that_lead_there_too_little_or_too_much_are_shown(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.set_forward(name, Forward("left-over", "192.0.2.1", 31000, 80))
    await world.engine.remove_forward(name, SSH_FORWARD)
    await compare(world)
    known = await world.instance(box.id)
    assert known.drift is not None
    assert known.drift.code == FORWARD_CHANGED
    assert f"{box.ssh_port} not leading to it" in known.drift.message
    assert "31000 leading to it without leave" in known.drift.message


async def test_a_port_of_ones_own_is_no_drift_and_a_lost_one_is(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    _, port, operation = await ports.add(world.context, alice, "box", ports.Wish(8888))
    forward = Forward(forward_name(port.id), "192.0.2.1", port.host_port, 8888)
    await world.engine.set_forward(name, forward)
    async with world.context.db.write() as session:
        await port_rows.update_port(session, port.id, state="open")
    await world.end(operation)
    await compare(world)
    assert await world.drift(box) is None
    await world.engine.set_forward(name, replace(forward, protocol="udp"))
    await compare(world)
    assert await world.drift(box) == FORWARD_CHANGED


async def test_one_drift_turns_into_another_and_each_is_told_once(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.stop(name)
    await compare(world)
    await world.engine.delete(name)
    await compare(world)
    await compare(world)
    assert await drifts(world) == [(STOPPED_OUTSIDE, None), (MISSING, STOPPED_OUTSIDE)]


async def test_other_limits_than_before_are_told_again_but_are_as_old(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.set_limits(name, replace(box.limits, cpus=3))
    await compare(world)
    first = (await world.instance(box.id)).drift
    world.wait(60)
    await world.engine.set_limits(name, replace(box.limits, cpus=4))
    await compare(world)
    second = (await world.instance(box.id)).drift
    assert first is not None
    assert second is not None
    assert "cpus 4 instead of 2" in second.message
    assert second.since == first.since
    assert len(await drifts(world)) == 2


async def test_a_frozen_container_is_shown_when_it_stays_so(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    world.engine.freeze(await world.container(box))
    server = Instances(world.context, world.monotonic)
    await server.reconcile()
    assert await world.drift(box) is None
    world.wait(SUSPENDED_SECONDS + 1)
    await server.reconcile()
    assert await world.drift(box) == SUSPENDED_OUTSIDE
    assert await world.state(box) == (RUNNING, Desired.RUNNING)


@pytest.mark.parametrize("state", [OperationState.PENDING, OperationState.STUCK])
async def test_an_instance_that_an_operation_works_on_is_left_alone(
    world: World, alice: Actor, state: OperationState
):
    box = await world.machine(alice, "box")
    operation = await world.begin(Kind.SNAPSHOT_RESTORE, target(box.id), instance=box.id)
    await world.end(operation, state)
    await world.engine.stop(await world.container(box))
    await Instances(read_only(world.context), world.monotonic).reconcile()


@pytest.mark.parametrize("ended", [True, False])
async def test_an_operation_that_comes_in_between_is_believed(
    world: World, alice: Actor, monkeypatch: pytest.MonkeyPatch, ended: bool
):
    """The engine was asked while a restart had it down: what it said is no longer so."""
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.stop(name)
    get = world.engine.get

    async def get_while_something_happens(name: str):
        seen = await get(name)
        operation = await world.begin(Kind.INSTANCE_RESTART, target(box.id), instance=box.id)
        await world.engine.start(name)
        if ended:
            await world.end(operation)
        return seen

    monkeypatch.setattr(world.engine, "get", get_while_something_happens)
    await compare(world)
    assert await world.drift(box) is None
    assert await world.state(box) == (RUNNING, Desired.RUNNING)


async def test_a_list_that_is_out_of_date_is_not_believed(
    world: World, alice: Actor, monkeypatch: pytest.MonkeyPatch
):
    box = await world.machine(alice, "box")
    name = await world.container(box)
    await world.engine.stop(name)
    old = await world.engine.containers()
    await world.engine.start(name)

    async def cached():
        return old

    monkeypatch.setattr(world.engine, "containers", cached)
    await compare(world)
    assert await world.drift(box) is None


@pytest.mark.parametrize(
    "moving", [InstanceState.STARTING, InstanceState.STOPPING, InstanceState.REBUILDING]
)
async def test_an_instance_that_was_left_moving_comes_to_rest(
    world: World, alice: Actor, moving: InstanceState
):
    box = await world.machine(alice, "box")
    await world.change(box, state=moving.value)
    await compare(world)
    assert await world.state(box) == (RUNNING, Desired.RUNNING)
    assert await world.drift(box) is None


async def test_a_creation_of_which_nothing_is_left_has_failed(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.delete(await world.container(box))
    await world.change(box, state=InstanceState.CREATING.value)
    await compare(world)
    known = await world.instance(box.id)
    assert known.state is InstanceState.FAILED
    assert known.error
    await Instances(read_only(world.context), world.monotonic).reconcile()


async def test_an_engine_that_is_away_makes_no_drift(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    world.engine.faults.die()
    for _ in range(3):
        world.wait(3600)
        await Instances(read_only(world.context), world.monotonic).reconcile()
    world.engine.faults.revive()
    await compare(world)
    assert await world.drift(box) is None
    assert await drifts(world) == []


async def test_an_engine_that_goes_away_between_two_questions_makes_no_drift(
    world: World, alice: Actor
):
    box = await world.machine(alice, "box")
    await world.engine.stop(await world.container(box))
    world.engine.faults.fail("get", error=EngineNotFoundError)
    await compare(world)
    assert await world.drift(box) is None


async def test_clocks_that_jump_change_nothing(world: World, alice: Actor):
    box = await world.machine(alice, "box")
    await world.engine.stop(await world.container(box))
    await compare(world)
    for days in (4000, -8000):
        world.wait(timedelta(days=days).total_seconds())
        await compare(world)
    assert await world.state(box) == (STOPPED, Desired.RUNNING)
    assert await drifts(world) == [(STOPPED_OUTSIDE, None)]
    assert await world.operations(*Kind) == []
