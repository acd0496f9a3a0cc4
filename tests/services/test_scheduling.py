"""The scheduling transaction: what a pass writes down, and that it is all of it or nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hutch.domain.fairness import usage_of
from hutch.domain.instances import InstanceState
from hutch.domain.leases import EndReason, Lease, LeaseState, Notice
from hutch.domain.nodes import NodeState
from hutch.domain.people import SYSTEM, Actor
from hutch.errors import DatabaseUnavailableError
from hutch.services import events, leases, scheduling, transitions
from hutch.services.context import Context
from hutch.store import instances as stored_instances
from hutch.store import leases as stored
from hutch.store import notices, operations, tables
from hutch.store import users as stored_users
from tests.lab import Clock, Lab, close_context, open_context, with_settings
from tests.leases import Hands, add_group, add_machine


async def _take(context: Context, hands: Hands, person: Actor, count: int, **more: Any) -> Lease:
    """A lease whose accelerators are in its instance already."""
    lease = await leases.take(context, person, count=count, **more)
    await hands.attach(lease)
    return await hands.lease(lease.id)


async def _later(context: Context, hands: Hands, clock: Clock, **how_far: float) -> None:
    """Time goes on, the agents are heard, and a pass is made."""
    clock.forward(**how_far)
    await hands.hear_agents()
    await scheduling.run_pass(context)


async def _notices(context: Context, person: Actor) -> list[Notice]:
    """What a person was told, the first first."""
    async with context.db.read() as session:
        found = await notices.list_notices(session, user_id=person.user_id, limit=100)
    return found[::-1]


async def _reasons(context: Context, lease: Lease) -> list[str]:
    found = await events.list_all(context, SYSTEM, target_id=lease.id)
    return [each.action.removeprefix("lease.") for each in reversed(found)]


# -- the end of the time ---------------------------------------------------------------------------


async def test_a_lease_whose_time_is_up_goes_back(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    lease = await _take(context, hands, alice, 1, minutes=60)
    await _later(context, hands, clock, minutes=59, seconds=59)
    assert (await hands.lease(lease.id)).state is LeaseState.ACTIVE
    await _later(context, hands, clock, seconds=1)
    now = await hands.lease(lease.id)
    assert (now.state, now.end_reason) == (LeaseState.DETACHING, EndReason.EXPIRED)
    assert (await _reasons(context, lease))[-2:] == ["warn", "expire"]
    told = [(each.kind, each.text) for each in await _notices(context, alice)]
    assert told[-1] == (
        "lease.ended", "The time of your 1 accelerator in box is up: it goes back now.",
    )  # fmt: skip
    async with context.db.read() as session:
        live = await operations.live_operation(session, transitions.target(lease.id))
    assert live
    assert (live.kind, live.created_by) == ("lease_detach", "hutch")


async def test_the_holder_is_told_before_the_time_is_up_and_once(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    now = clock.stop()
    await hands.hear_agents()
    lease = await _take(context, hands, alice, 2, minutes=120)
    assert await scheduling.run_pass(context) == now + timedelta(minutes=90)
    await _later(context, hands, clock, minutes=89)
    assert await _notices(context, alice) == []
    for _ in range(3):
        await _later(context, hands, clock, minutes=1)
    [notice] = await _notices(context, alice)
    assert notice.kind == "lease.warned"
    assert notice.text == (
        "The lease of your 2 accelerators in box ends at 2026-03-01 14:00 UTC. "
        "`hutch gpu extend` asks for more time."
    )
    told = (await hands.lease(lease.id)).announcement
    assert told
    assert (told.reason, told.due, told.notice_id) == (
        EndReason.EXPIRED, lease.expires_at, notice.id,
    )  # fmt: skip
    async with context.db.read() as session:
        live = await operations.live_operation(session, f"notice:{notice.id}")
    assert live
    assert live.params["instance"] == lease.instance_id


async def test_who_extends_is_told_again_before_the_new_end(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    lease = await _take(context, hands, alice, 1, minutes=60)
    await _later(context, hands, clock, minutes=45)
    await hands.deliver()
    extended = await leases.extend(context, alice, lease=lease.id, minutes=60)
    assert extended.announcement is None
    assert (await _reasons(context, lease))[-3:] == ["warn", "pardon", "extend"]
    await _later(context, hands, clock, minutes=44)
    assert len(await _notices(context, alice)) == 1
    await _later(context, hands, clock, minutes=1)
    assert [each.kind for each in await _notices(context, alice)] == ["lease.warned"] * 2


async def test_a_short_lease_is_not_announced_as_ending_when_it_has_only_begun(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    await _take(context, hands, alice, 1, minutes=20)
    await _later(context, hands, clock, minutes=9)
    assert await _notices(context, alice) == []
    await _later(context, hands, clock, minutes=1)
    assert len(await _notices(context, alice)) == 1


async def test_a_lab_may_do_without_warnings(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    quiet = with_settings(context, lease_warning_minutes=0)
    lease = await _take(quiet, hands, alice, 1, minutes=60)
    await _later(quiet, hands, clock, minutes=59, seconds=55)
    assert await _notices(context, alice) == []
    assert (await hands.lease(lease.id)).announcement is None


async def test_who_has_waited_is_told_when_it_is_there(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await _take(context, hands, alice, 4)
    waiting = await leases.take(context, bob, count=1)
    clock.forward(minutes=5)
    await hands.hear_agents()
    await leases.release(context, alice)
    await hands.detach(held)
    await hands.attach(waiting)
    [notice] = await _notices(context, bob)
    assert notice.kind == "lease.granted"
    assert notice.text.startswith("Your 1 accelerator in bobs is there now, until ")
    assert await _notices(context, alice) == []


# -- borrowing and reclaiming ----------------------------------------------------------------------


async def _borrowed(
    context: Context, hands: Hands, clock: Clock, alice: Actor, bob: Actor
) -> list[Lease]:
    """Alice borrows all four; bob's group is guaranteed two."""
    async with context.db.write() as session:
        await add_group(session, "vision", bob, guarantee=2)
    first = await _take(context, hands, alice, 2)
    clock.forward(seconds=1)
    return [first, await _take(context, hands, alice, 2)]


async def test_borrowed_accelerators_are_warned_then_reclaimed_then_given_to_whose_they_are(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    kept, last = await _borrowed(context, hands, clock, alice, bob)
    waiting = await leases.take(context, bob, count=2)
    assert await _notices(context, alice) == [], "it is protected at first"
    await _later(context, hands, clock, minutes=60)
    announcement = (await hands.lease(last.id)).announcement
    assert announcement
    assert announcement.reason is EndReason.PREEMPTED
    assert (await hands.lease(kept.id)).announcement is None
    explanation = (await hands.lease(waiting.id)).explanation
    assert explanation
    assert (explanation["waiting"], explanation["is_guaranteed"]) == ("reclaim", True)
    [notice] = await _notices(context, alice)
    assert notice.text.startswith("Your 2 accelerators in box are borrowed")

    await hands.deliver()
    await _later(context, hands, clock, minutes=9)
    assert (await hands.lease(last.id)).state is LeaseState.ACTIVE
    await _later(context, hands, clock, minutes=1)
    going = await hands.lease(last.id)
    assert (going.state, going.end_reason) == (LeaseState.DETACHING, EndReason.PREEMPTED)
    assert (await _reasons(context, last))[-2:] == ["warn", "preempt"]
    await hands.detach(going)
    assert (await hands.lease(waiting.id)).accelerators == last.accelerators
    assert (await hands.lease(kept.id)).state is LeaseState.ACTIVE


async def test_nothing_is_reclaimed_from_who_was_not_reached(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    borrowed = await _borrowed(context, hands, clock, alice, bob)
    await leases.take(context, bob, count=2)
    for _ in range(20):
        await _later(context, hands, clock, minutes=15)
    assert [each.kind for each in await _notices(context, alice)] == ["lease.warned"]
    for lease in borrowed:
        assert (await hands.lease(lease.id)).state is LeaseState.ACTIVE


async def test_a_borrower_who_was_told_and_may_stay_after_all_is_told_that_too(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    _, last = await _borrowed(context, hands, clock, alice, bob)
    await leases.take(context, bob, count=2)
    await _later(context, hands, clock, minutes=61)
    await hands.deliver()
    await leases.release(context, bob)
    assert (await hands.lease(last.id)).announcement is None
    assert [each.kind for each in await _notices(context, alice)] == ["lease.warned", "lease.kept"]
    await _later(context, hands, clock, minutes=60)
    assert (await hands.lease(last.id)).state is LeaseState.ACTIVE
    assert (await _reasons(context, last))[-2:] == ["warn", "pardon"]


async def test_a_borrower_does_not_escape_by_extending(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    _, last = await _borrowed(context, hands, clock, alice, bob)
    await leases.take(context, bob, count=2)
    await _later(context, hands, clock, minutes=61)
    with pytest.raises(Exception, match="bob waits"):
        await leases.extend(context, alice, lease=last.id, minutes=60)
    assert (await hands.lease(last.id)).announcement is not None


# -- who is passed over ----------------------------------------------------------------------------


async def test_a_maximum_lowered_below_what_is_held_tears_nothing_away_and_grants_nothing(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await _take(context, hands, alice, 2)
    others = await _take(context, hands, bob, 2)
    waiting = await leases.take(context, alice, count=1)
    async with context.db.write() as session:
        await stored_users.update_user(session, alice.user_id, quota_accelerators=1)
    await leases.release(context, bob)
    await hands.detach(others)
    assert (await hands.lease(held.id)).state is LeaseState.ACTIVE
    now = await hands.lease(waiting.id)
    assert now.state is LeaseState.QUEUED
    assert now.explanation
    assert (now.explanation["waiting"], now.explanation["held_by"]) == ("person", [held.id])
    async with context.db.write() as session:
        await stored_users.update_user(session, alice.user_id, quota_accelerators=None)
    await scheduling.run_pass(context)
    assert (await hands.lease(waiting.id)).state is LeaseState.ATTACHING


_UNGRANTABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "its agent is silent": ("nodes", {"agent_seen_at": 0}),
    "its agent was never heard": ("nodes", {"agent_seen_at": None}),
    "its node does not answer": ("nodes", {"unreachable_since": 1}),
    "it is out of service": ("accelerators", {"withdrawn": "a fan is broken"}),
    "it has failed": ("accelerators", {"health": "failed"}),
    "it is missing": ("accelerators", {"health": "missing"}),
}


@pytest.mark.parametrize("why", sorted(_UNGRANTABLE))
async def test_an_accelerator_is_not_granted_but_kept_by_who_holds_it_while(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands, why: str
) -> None:
    held = await _take(context, hands, alice, 1)
    table, values = _UNGRANTABLE[why]
    before: dict[str, Any] = {}
    async with context.db.write() as session:
        for column, value in values.items():
            found = await session.exec_driver_sql(f"SELECT {column} FROM {table}")
            before[column] = found.scalars().first()
            shown = "NULL" if value is None else repr(value)
            await session.exec_driver_sql(f"UPDATE {table} SET {column} = {shown}")
    waiting = await leases.take(context, bob, count=1)
    assert waiting.state is LeaseState.QUEUED
    assert waiting.explanation
    assert waiting.explanation["waiting"] == "no_such_device"
    assert (await hands.lease(held.id)).state is LeaseState.ACTIVE
    async with context.db.write() as session:
        for column, value in before.items():
            shown = "NULL" if value is None else repr(value)
            await session.exec_driver_sql(f"UPDATE {table} SET {column} = {shown}")
    await scheduling.run_pass(context)
    assert (await hands.lease(waiting.id)).state is LeaseState.ATTACHING


async def test_what_runs_on_a_node_that_takes_nothing_new_gets_accelerators_all_the_same(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        await session.execute(tables.nodes.update().values(state=NodeState.CORDONED.value))
    assert (await leases.take(context, alice, count=1)).state is LeaseState.ATTACHING


async def test_a_machine_that_does_not_run_just_now_holds_nobody_up(
    context: Context, lab: Lab, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await _take(context, hands, alice, 4)
    async with context.db.write() as session:
        second = await add_machine(session, bob, lab.node, "second")
    first = await leases.take(context, bob, count=2, instance="second")
    later = await leases.take(context, bob, count=2, instance="bobs")
    async with context.db.write() as session:
        await stored_instances.set_state(session, second, InstanceState.RESTARTING)
    await leases.release(context, alice)
    await hands.detach(held)
    assert (await hands.lease(later.id)).state is LeaseState.ATTACHING
    explanation = (await hands.lease(first.id)).explanation
    assert explanation
    assert explanation["waiting"] == "instance"
    async with context.db.write() as session:
        await stored_instances.set_state(session, second, InstanceState.RUNNING)
    await scheduling.run_pass(context)
    assert (await hands.lease(first.id)).state is LeaseState.ATTACHING


async def test_a_lease_of_a_group_that_is_gone_stands_for_itself(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    async with context.db.write() as session:
        await add_group(session, "vision", alice)
    lease = await _take(context, hands, alice, 1)
    async with context.db.write() as session:
        await session.execute(tables.memberships.delete())
        await session.execute(tables.groups.delete())
    await scheduling.run_pass(context)
    await hands.detach(*await leases.release(context, alice, lease=lease.id))
    assert (await hands.lease(lease.id)).state is LeaseState.ENDED


# -- usage -----------------------------------------------------------------------------------------


async def _booked(context: Context) -> dict[str, float]:
    async with context.db.read() as session:
        found = await session.execute(select(tables.decayed_usage))
        return {row.subject: row.seconds for row in found}


async def test_what_was_held_is_booked_when_it_ends_to_the_person_and_the_group(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    start = clock.stop()
    await hands.hear_agents()
    half_life = timedelta(hours=context.settings.usage_half_life_hours)
    async with context.db.write() as session:
        group = await add_group(session, "vision", alice)
    lease = await _take(context, hands, alice, 3, minutes=600)
    await leases.release(context, alice)
    end = clock.forward(hours=5)
    await hands.detach(lease)
    used = usage_of(3, start, end, end, half_life)
    assert 0.9 * 3 * 5 * 3600 < used < 3 * 5 * 3600
    assert await _booked(context) == pytest.approx(
        {f"user:{alice.user_id}": used, f"group:{group.id}": used}
    )
    clock.forward(hours=context.settings.usage_half_life_hours)
    await hands.hear_agents()
    again = await _take(context, hands, alice, 1)
    await leases.release(context, alice)
    clock.forward(seconds=1)
    await hands.detach(again)
    assert await _booked(context) == pytest.approx(
        {f"user:{alice.user_id}": used / 2 + 1, f"group:{group.id}": used / 2 + 1}, abs=0.1
    )


async def test_leases_that_end_at_once_are_all_booked(
    context: Context, clock: Clock, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    start = clock.stop()
    await hands.hear_agents()
    held = [await _take(context, hands, alice, 1) for _ in range(4)]
    await leases.release(context, alice)
    end = clock.forward(hours=1)
    await asyncio.gather(*(hands.detach(lease) for lease in held))
    half_life = timedelta(hours=context.settings.usage_half_life_hours)
    assert await _booked(context) == pytest.approx(
        {f"user:{alice.user_id}": usage_of(4, start, end, end, half_life)}
    )


async def test_of_two_who_wait_it_is_the_turn_of_who_has_used_less(
    context: Context, lab: Lab, clock: Clock, alice: Actor, bob: Actor, ada: Actor,
    gpus: list[str], hands: Hands,
) -> None:  # fmt: skip
    async with context.db.write() as session:
        await add_machine(session, ada, lab.node, "adas")
    used = await _take(context, hands, alice, 1)
    clock.forward(hours=10)
    await hands.hear_agents()
    await hands.detach(*await leases.release(context, alice, lease=used.id))
    held = await _take(context, hands, ada, 4)
    much = await leases.take(context, alice, count=4)
    little = await leases.take(context, bob, count=4)
    assert [each.id for each in await leases.queue(context, ada)] == [little.id, much.id]
    await leases.release(context, ada)
    await hands.detach(held)
    assert (await hands.lease(little.id)).state is LeaseState.ATTACHING
    assert (await hands.lease(much.id)).state is LeaseState.QUEUED


# -- all or nothing --------------------------------------------------------------------------------


async def _waiting(context: Context, lab: Lab, alice: Actor, bob: Actor) -> list[str]:
    """Four leases in the line that the next pass will grant, whatever has become of the last."""
    async with context.db.write() as session:
        await session.execute(tables.nodes.update().values(agent_seen_at=None))
    made = [
        await leases.take(context, person, count=1, instance=name)
        for person, name in ((alice, "box"), (bob, "bobs")) * 2
    ]
    await Hands(context).hear_agents()
    return [each.id for each in made]


async def _everything(context: Context) -> list[Any]:
    tables_ = ("leases", "holdings", "operations", "notices", "events")
    async with context.db.read() as session:
        return [(await session.exec_driver_sql(f"SELECT * FROM {name}")).all() for name in tables_]


@contextmanager
def _failing_at(monkeypatch: pytest.MonkeyPatch, call: int) -> Iterator[None]:
    """The database goes away at the `call`-th operation that a pass enqueues."""
    enqueue, calls = transitions.enqueue, iter(range(1, 100))

    async def fail(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise DatabaseUnavailableError("The database does not answer.")
        return await enqueue(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(transitions, "enqueue", fail)
        yield


@pytest.mark.parametrize("call", [1, 2, 4])
async def test_a_pass_that_breaks_in_the_middle_changes_nothing_and_the_next_does_it_all(
    context: Context, lab: Lab, alice: Actor, bob: Actor, gpus: list[str], hands: Hands,
    monkeypatch: pytest.MonkeyPatch, call: int,
) -> None:  # fmt: skip
    waiting = await _waiting(context, lab, alice, bob)
    before = await _everything(context)
    with _failing_at(monkeypatch, call), pytest.raises(DatabaseUnavailableError):
        await scheduling.run_pass(context)
    assert await _everything(context) == before
    await scheduling.run_pass(context)
    assert {(await hands.lease(each)).state for each in waiting} == {LeaseState.ATTACHING}


async def test_what_was_asked_for_stands_in_line_even_if_the_pass_after_it_breaks(
    context: Context, alice: Actor, gpus: list[str], hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _failing_at(monkeypatch, 1):
        lease = await leases.take(context, alice, count=1)
    assert lease.state is LeaseState.QUEUED
    await scheduling.run_pass(context)
    assert (await hands.lease(lease.id)).state is LeaseState.ATTACHING


async def test_two_passes_at_once_grant_everything_once(
    context: Context, lab: Lab, alice: Actor, bob: Actor, gpus: list[str], database_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    servers = [open_context(database_url, tmp_path / "data") for _ in range(3)]
    waiting = await _waiting(context, lab, alice, bob)
    await asyncio.gather(*(scheduling.run_pass(servers[n % 3]) for n in range(9)))
    async with context.db.read() as session:
        found = await stored.list_held(session)
        attaching = await session.execute(
            select(tables.operations.c.target).where(tables.operations.c.kind == "lease_attach")
        )
        targets = list(attaching.scalars())
    assert sorted(each.accelerator_id for each in found) == sorted(gpus)
    assert sorted(targets) == sorted(transitions.target(each) for each in waiting)
    for server in servers:
        await close_context(server)


async def test_what_is_granted_does_not_begin_before_that_ended_which_made_room_for_it(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On PostgreSQL a lease may end while a pass has its turn and has not looked yet."""
    clock.stop()
    await hands.hear_agents()
    first = await _take(context, hands, alice, len(gpus))
    await leases.release(context, alice, lease=first.id)
    second = await leases.take(context, bob, count=1)
    assert second.state is LeaseState.QUEUED
    read = scheduling.read

    async def read_late(session: Any, *rest: Any) -> Any:
        clock.forward(seconds=1)
        await transitions.finish(session, context, first.id)
        return await read(session, *rest)

    monkeypatch.setattr(scheduling, "read", read_late)
    await scheduling.run_pass(context)
    async with context.db.read() as session:
        spans = list(await session.execute(select(tables.holdings)))
    [began] = [each.since for each in spans if each.lease_id == second.id]
    assert began == max(each.until for each in spans if each.lease_id == first.id)


async def test_a_pass_that_sees_nothing_new_writes_nothing(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    await _take(context, hands, alice, 4)
    await leases.take(context, bob, count=1)
    context.hints.work.clear()
    before = await _everything(context)
    for _ in range(2):
        await scheduling.run_pass(context)
    assert await _everything(context) == before
    assert not context.hints.work.is_set()


async def test_a_lease_that_is_taken_back_while_it_is_attached_does_not_become_active(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1)
    await leases.release(context, alice)
    async with context.db.write() as session:
        assert not await transitions.activate(session, context, lease.id)
    assert (await hands.lease(lease.id)).state is LeaseState.DETACHING


async def test_a_lease_that_could_not_be_attached_says_why_and_frees_what_it_held(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=4)
    waiting = await leases.take(context, bob, count=4)
    for expected in (True, False):
        async with context.db.write() as session:
            done = await transitions.fail(session, context, lease.id, "The engine refused.")
            assert done is expected
    now = await hands.lease(lease.id)
    assert (now.state, now.end_reason, now.error) == (
        LeaseState.ENDED, EndReason.FAILED, "The engine refused.",
    )  # fmt: skip
    [notice] = await _notices(context, alice)
    assert notice.text.endswith("The engine refused.")
    await scheduling.run_pass(context)
    assert (await hands.lease(waiting.id)).state is LeaseState.ATTACHING


async def test_what_has_ended_stays_ended(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await _take(context, hands, alice, 1)
    await hands.detach(*await leases.release(context, alice))
    before = await _everything(context)
    async with context.db.write() as session:
        for change in (transitions.activate, transitions.finish):
            assert not await change(session, context, lease.id)
        for change in (transitions.begin_detach, transitions.end_waiting):
            assert not await change(session, context, SYSTEM, lease, EndReason.EXPIRED)
        assert not await transitions.grant(session, context, lease, {}, context.now())
    assert await _everything(context) == before


# -- clocks ----------------------------------------------------------------------------------------


async def test_a_clock_that_is_set_back_takes_nothing_away_and_gives_nothing_twice(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    clock.stop()
    await hands.hear_agents()
    held = await _take(context, hands, alice, 3, minutes=60)
    clock.back(days=2)
    await scheduling.run_pass(context)
    assert (await hands.lease(held.id)).state is LeaseState.ACTIVE
    early = await _take(context, hands, bob, 1, minutes=60)
    assert set(early.accelerators).isdisjoint(held.accelerators)
    await hands.detach(*await leases.release(context, alice))
    async with context.db.read() as session:
        spans = (
            await session.execute(select(tables.holdings.c.since, tables.holdings.c.until))
        ).all()
    assert all(until is None or since <= until for since, until in spans)
    assert all(seconds >= 0 for seconds in (await _booked(context)).values())
    clock.forward(days=2)
    await hands.hear_agents()
    await scheduling.run_pass(context)
    assert (await hands.lease(early.id)).end_reason is EndReason.EXPIRED


async def test_a_clock_that_leaps_ahead_ends_what_is_over_and_goes_on(
    context: Context, clock: Clock, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await _take(context, hands, alice, 4, minutes=60)
    waiting = await leases.take(context, bob, count=1)
    await _later(context, hands, clock, days=365)
    now = await hands.lease(held.id)
    assert (now.state, now.end_reason) == (LeaseState.DETACHING, EndReason.EXPIRED)
    await hands.detach(held)
    granted = await hands.lease(waiting.id)
    assert granted.state is LeaseState.ATTACHING
    assert granted.expires_at
    assert granted.expires_at > clock()
