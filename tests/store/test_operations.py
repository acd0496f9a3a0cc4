"""Operations: claimed by one, saved by who holds the lease, whatever the clock does."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from hutch.domain.operations import ENDED, LIVE, Operation, OperationState
from hutch.errors import BusyError
from hutch.store import operations
from hutch.store.db import Database
from tests.store import rows

NOW = rows.NOW
LEASE = timedelta(seconds=15)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


async def _add(database: Database, target: str = "instance:1", **changes: object) -> Operation:
    async with database.write() as session:
        return await rows.add_operation(session, target, **changes)


async def _claim(database: Database, now: datetime, *busy: str) -> Operation | None:
    async with database.write() as session:
        return await operations.claim(session, now, LEASE, busy=frozenset(busy))


async def test_an_operation_comes_back_as_it_was_added(database: Database) -> None:
    added = await _add(database, error={"code": "x", "detail": {"ä": [1, None]}}, progress=0.25)
    async with database.read() as session:
        assert await operations.get_operation(session, added.id) == added
        assert await operations.get_operation(session, "nothing") is None
        assert await operations.live_operation(session, "instance:1") == added
        assert await operations.live_operation(session, "instance:2") is None
        assert await operations.live_targets(session) == {"instance:1"}


@pytest.mark.parametrize("state", sorted(LIVE))
async def test_a_target_in_work_is_busy_and_the_error_names_the_work(
    database: Database, state: OperationState
) -> None:
    live = await _add(database, state=state)
    with pytest.raises(BusyError) as caught:
        await _add(database)
    assert caught.value.detail == {"operation": live.id, "kind": live.kind}


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_a_target_whose_work_has_ended_is_free(
    database: Database, state: OperationState
) -> None:
    await _add(database, state=state)
    await _add(database)


async def test_of_two_servers_that_begin_work_on_one_target_one_is_told_it_is_busy(
    database_url: str,
) -> None:
    one, other = Database(database_url), Database(database_url)
    for number in range(10):
        both = asyncio.Barrier(2)

        async def add(
            database: Database, target: str = f"instance:{number}", both: asyncio.Barrier = both
        ) -> str:
            await both.wait()
            try:
                await _add(database, target)
            except BusyError:
                return "busy"
            return "begun"

        assert sorted(await asyncio.gather(add(one), add(other))) == ["begun", "busy"]
    await one.close()
    await other.close()


async def test_whoever_is_told_that_a_target_is_busy_can_go_on_with_the_rest(
    database_url: str,
) -> None:
    """One of many targets was taken by another server a moment ago: the others are still begun."""
    one, other = Database(database_url), Database(database_url)
    added = asyncio.Event()

    async def first() -> None:
        async with one.write() as session:
            await rows.add_operation(session, "taken")
            added.set()
            await asyncio.sleep(0.05)

    async def second() -> None:
        await added.wait()
        async with other.write() as session:
            with pytest.raises(BusyError):
                await rows.add_operation(session, "taken")
            await rows.add_operation(session, "free")

    await asyncio.gather(first(), second())
    async with one.read() as session:
        assert await operations.live_targets(session) == {"taken", "free"}
    await one.close()
    await other.close()


async def test_operations_are_listed_newest_first_by_owner_target_and_state(
    database: Database,
) -> None:
    done = OperationState.DONE
    first = await _add(database, "a", owner_id="alice", state=done)
    second = await _add(database, "a", owner_id="alice", created_at=NOW + SECOND)
    third = await _add(database, "b", owner_id="bob", created_at=NOW + 2 * SECOND)

    async def listed(limit: int = 50, **wanted: object) -> list[Operation]:
        async with database.read() as session:
            return await operations.list_operations(session, limit=limit, **wanted)  # type: ignore[arg-type]

    assert await listed() == [third, second, first]
    assert await listed(2) == [third, second]
    assert await listed(owner_id="alice") == [second, first]
    assert await listed(target="b") == [third]
    assert await listed(states=LIVE) == [third, second]
    assert await listed(states=frozenset({done}), owner_id="bob") == []


async def test_what_has_been_due_for_longest_is_claimed_first(database: Database) -> None:
    later = await _add(database, "later", run_at=NOW - SECOND)
    sooner = await _add(database, "sooner", run_at=NOW - 2 * SECOND)
    await _add(database, "not-yet", run_at=NOW + SECOND)
    claimed = [await _claim(database, NOW) for _ in range(3)]
    assert [one and one.id for one in claimed] == [sooner.id, later.id, None]


async def test_a_claim_gives_a_lease_with_a_token_of_its_own(database: Database) -> None:
    await _add(database, "a")
    await _add(database, "b")
    one, other = await _claim(database, NOW), await _claim(database, NOW)
    assert one is not None
    assert other is not None
    assert one.state is OperationState.RUNNING
    assert one.lease_until == NOW + LEASE
    assert one.lease_token
    assert one.lease_token != other.lease_token
    assert await _claim(database, NOW) is None


@pytest.mark.parametrize("state", sorted(set(OperationState) - {OperationState.PENDING}))
async def test_only_what_is_pending_or_was_left_running_is_claimed(
    database: Database, state: OperationState
) -> None:
    await _add(database, state=state)
    claimed = await _claim(database, NOW)
    assert (claimed is not None) == (state is OperationState.RUNNING)


async def test_a_lease_that_ran_out_is_taken_over_and_its_old_holder_can_save_nothing(
    database: Database,
) -> None:
    await _add(database)
    old = await _claim(database, NOW)
    assert old is not None
    assert await _claim(database, NOW + LEASE) is None, "until the lease is over, and not before"
    new = await _claim(database, NOW + LEASE + SECOND)
    assert new is not None
    assert (new.id, new.step) == (old.id, old.step)
    async with database.write() as session:
        assert not await operations.save(session, old, step="wrong")
        assert await operations.save(session, new, step="right", progress=0.5)
        found = await operations.get_operation(session, old.id)
    assert found == replace(new, step="right", progress=0.5)


async def test_what_this_process_works_on_is_not_taken_from_itself(database: Database) -> None:
    """The clock jumped forward, and every lease looks as if it had run out."""
    mine = await _add(database)
    await _claim(database, NOW)
    assert await _claim(database, NOW + DAY, mine.id) is None
    taken = await _claim(database, NOW + DAY)
    assert taken is not None
    assert taken.id == mine.id


async def test_after_the_clock_was_set_back_nothing_waits_for_the_old_time(
    database: Database,
) -> None:
    """What was to run, and what was leased, a day from now by the old clock is due by the new."""
    await _add(database, "leased")
    leased = await _claim(database, NOW)
    waiting = await _add(database, "waiting", run_at=NOW + 30 * SECOND)
    yesterday = NOW - DAY
    claimed = {
        one.id for one in [await _claim(database, yesterday) for _ in range(3)] if one is not None
    }
    assert leased is not None
    assert claimed == {leased.id, waiting.id}


async def test_a_clock_that_is_a_little_slow_takes_nothing_away(database: Database) -> None:
    """Two servers' clocks differ by less than a lease: the other's leases are believed."""
    await _add(database)
    await _claim(database, NOW)
    assert await _claim(database, NOW - LEASE + SECOND) is None


async def test_a_retry_that_is_put_off_is_waited_for(database: Database) -> None:
    await _add(database, run_at=NOW + operations.LONGEST_WAIT)
    assert await _claim(database, NOW) is None
    assert await _claim(database, NOW + operations.LONGEST_WAIT) is not None


async def test_two_runners_never_claim_the_same_operation(database_url: str) -> None:
    one, other = Database(database_url), Database(database_url)
    async with one.write() as session:
        for number in range(40):
            await rows.add_operation(session, f"instance:{number}")
    claimed: list[str] = []

    async def run(database: Database) -> None:
        while (operation := await _claim(database, NOW)) is not None:
            claimed.append(operation.id)

    await asyncio.gather(run(one), run(one), run(other), run(other))
    assert len(claimed) == len(set(claimed))
    # Who finds the last row locked goes home; the next pass finds what was left.
    await run(one)
    assert len(claimed) == len(set(claimed)) == 40
    await one.close()
    await other.close()


async def _next(database: Database, *busy: str) -> datetime | None:
    async with database.read() as session:
        return await operations.next_due(session, frozenset(busy))


async def test_the_next_moment_at_which_something_is_due_is_known(database: Database) -> None:
    assert await _next(database) is None
    mine = await _add(database, "a")
    await _add(database, "b", run_at=NOW + 5 * SECOND)
    await _add(database, "c", state=OperationState.DONE, run_at=NOW - DAY)
    await _add(database, "d", state=OperationState.STUCK, run_at=NOW - DAY)
    assert await _next(database) == NOW
    assert await _next(database, mine.id) == NOW + 5 * SECOND
    await _claim(database, NOW)
    assert await _next(database) == NOW + 5 * SECOND
    await _claim(database, NOW + 6 * SECOND)
    assert await _next(database) == NOW + LEASE


async def test_work_in_other_hands_does_not_hide_what_is_due(database: Database) -> None:
    async with database.write() as session:
        for number in range(60):
            await rows.add_operation(session, f"leased:{number}", run_at=NOW - DAY)
        for _ in range(60):
            await operations.claim(session, NOW, LEASE)
        await rows.add_operation(session, "due")
    assert await _next(database) == NOW


async def test_asking_to_cancel_is_remembered(database: Database) -> None:
    added = await _add(database)
    async with database.write() as session:
        assert not await operations.cancel_requested(session, added.id)
        assert await operations.request_cancel(session, added.id)
        assert await operations.cancel_requested(session, added.id)
        assert not await operations.cancel_requested(session, "nothing")


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_what_has_ended_cannot_be_cancelled(
    database: Database, state: OperationState
) -> None:
    added = await _add(database, state=state)
    async with database.write() as session:
        assert not await operations.request_cancel(session, added.id)
        assert not await operations.cancel_requested(session, added.id)


async def test_only_a_stuck_operation_is_retried_or_given_up(database: Database) -> None:
    for state in OperationState:
        added = await _add(database, f"x:{state}", state=state, attempts=5, lease_token="t")
        is_stuck = state is OperationState.STUCK
        async with database.write() as session:
            assert await operations.retry_stuck(session, added.id, NOW + SECOND) is is_stuck
            assert not await operations.end_stuck(session, added.id, NOW)
            found = await operations.get_operation(session, added.id)
        assert found is not None
        if is_stuck:
            assert (found.state, found.attempts) == (OperationState.PENDING, 0)
            assert (found.run_at, found.lease_token) == (NOW + SECOND, None)
        else:
            assert found == added


async def test_a_stuck_operation_that_is_given_up_frees_its_target(database: Database) -> None:
    stuck = await _add(database, state=OperationState.STUCK)
    async with database.write() as session:
        assert await operations.end_stuck(session, stuck.id, NOW)
        found = await operations.get_operation(session, stuck.id)
    assert found is not None
    assert (found.state, found.finished_at) == (OperationState.CANCELLED, NOW)
    await _add(database)


async def test_old_ended_operations_are_swept_and_live_ones_kept(database: Database) -> None:
    for state in OperationState:
        await _add(database, f"old:{state}", state=state, finished_at=NOW - SECOND)
        await _add(database, f"new:{state}", state=state, finished_at=NOW)
    async with database.write() as session:
        assert await operations.delete_ended(session, NOW) == len(ENDED)
        left = await operations.list_operations(session, limit=50)
    assert len(left) == 2 * len(OperationState) - len(ENDED)
