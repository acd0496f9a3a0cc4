"""Accelerator-hours: what was held, and what of it was used, to the second."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from hutch.domain.ids import new_id
from hutch.domain.leases import LeaseState
from hutch.domain.people import Actor
from hutch.domain.reports import By, Month, Usage, parse_month
from hutch.errors import HutchError
from hutch.services import reports
from hutch.services.context import Context
from hutch.store import tables
from tests.lab import Clock, Lab
from tests.leases import MODEL, add_accelerators, add_group

HOUR = 3600.0
NOVEMBER, DECEMBER = Month(2026, 11), Month(2026, 12)
Held = Callable[..., Awaitable[None]]


def at(day: int, hour: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


@pytest.fixture
async def gpus(context: Context, lab: Lab, clock: Clock) -> list[str]:
    clock.stop(at(20, 12))
    async with context.db.write() as session:
        return await add_accelerators(session, lab.node, 2, context.now())


@pytest.fixture
def held(context: Context, lab: Lab, gpus: list[str]) -> Held:
    """Writes down that somebody held accelerators, and how long these computed on which day."""

    async def _held(
        owner: Actor,
        since: datetime,
        until: datetime | None,
        *accelerators: int,
        group: tuple[str, str] | None = None,
        busy: dict[str, float] | None = None,
    ) -> None:
        lease_id = new_id()
        async with context.db.write() as session:
            await session.execute(
                tables.leases.insert().values(
                    id=lease_id, instance_id=new_id(), instance_name="box",
                    owner_id=owner.user_id, group_id=group and group[0],
                    group_name=group and group[1], node_id=lab.node.id,
                    count=len(accelerators), seconds=60, requested_at=since,
                    state=(LeaseState.ACTIVE if until is None else LeaseState.ENDED).value,
                )
            )  # fmt: skip
            for each in accelerators:
                holding = new_id()
                await session.execute(
                    tables.holdings.insert().values(
                        id=holding, lease_id=lease_id, accelerator_id=gpus[each], slot=0,
                        since=since, until=until,
                    )
                )  # fmt: skip
                for day, seconds in (busy or {}).items():
                    await session.execute(
                        tables.busy_days.insert().values(
                            holding_id=holding, day=day, seconds=seconds
                        )
                    )

    return _held


async def _rows(context: Context, actor: Actor, by: By = By.PERSON, **span: object) -> list[Usage]:
    _, _, rows = await reports.gpu_hours(context, actor, by=by, **span)  # type: ignore[arg-type]
    return rows


async def test_every_accelerator_of_a_lease_counts_from_its_grant_to_its_end(
    context: Context, alice: Actor, held: Held
) -> None:
    await held(alice, at(2, 10), at(2, 12), 0, 1, busy={"2026-11-02": HOUR})
    await held(alice, at(3), at(4), 0)
    assert await _rows(context, alice) == [Usage("alice", None, 2, 28 * HOUR, 2 * HOUR)]


async def test_what_is_held_now_counts_until_now(
    context: Context, alice: Actor, held: Held
) -> None:
    await held(alice, at(20, 9), None, 0)
    assert await _rows(context, alice) == [Usage("alice", None, 1, 3 * HOUR, 0.0)]


async def test_only_what_lies_in_the_month_counts(
    context: Context, alice: Actor, held: Held, clock: Clock
) -> None:
    clock.stop(at(20, month=12))
    days = {"2026-11-30": 600.0, "2026-12-01": 60.0}
    await held(alice, at(30, 22), at(1, 1, month=12), 0, busy=days)
    (november,) = await _rows(context, alice, first=NOVEMBER, last=NOVEMBER)
    (december,) = await _rows(context, alice, first=DECEMBER, last=DECEMBER)
    assert (november.held, november.busy) == (2 * HOUR, 600.0)
    assert (december.held, december.busy) == (1 * HOUR, 60.0)
    (both,) = await _rows(context, alice, first=NOVEMBER, last=DECEMBER)
    assert (both.held, both.busy) == (3 * HOUR, 660.0)
    by_month = await _rows(context, alice, By.MONTH, first=NOVEMBER, last=DECEMBER)
    assert [(row.name, row.held) for row in by_month] == [
        ("2026-11", 2 * HOUR),
        ("2026-12", 1 * HOUR),
    ]
    assert await _rows(context, alice, first=Month(2026, 10), last=Month(2026, 10)) == []


async def test_a_month_that_begins_in_the_middle_of_a_holding_ends_at_its_end(
    context: Context, alice: Actor, held: Held, clock: Clock
) -> None:
    clock.stop(at(20, month=12))
    await held(alice, at(31, month=10), at(2, month=12), 0)
    (row,) = await _rows(context, alice, first=NOVEMBER, last=NOVEMBER)
    assert row.held == 30 * 24 * HOUR


async def test_a_clock_that_was_set_back_makes_nothing_negative(
    context: Context, alice: Actor, held: Held
) -> None:
    await held(alice, at(20, 15), None, 0)
    assert await _rows(context, alice) == [Usage("alice", None, 1, 0.0, 0.0)]


async def test_rows_stand_for_people_groups_accelerators_and_months(
    context: Context, lab: Lab, alice: Actor, bob: Actor, ada: Actor, held: Held
) -> None:
    async with context.db.write() as session:
        vision = await add_group(session, "vision", alice)
    group = (vision.id, "vision")
    await held(alice, at(2), at(2, 4), 0, 1, group=group, busy={"2026-11-02": HOUR})
    await held(bob, at(3), at(3, 2), 1)
    assert await _rows(context, ada, By.PERSON) == [
        Usage("alice", None, 1, 8 * HOUR, 2 * HOUR),
        Usage("bob", None, 1, 2 * HOUR, 0.0),
    ]
    assert await _rows(context, ada, By.GROUP) == [
        Usage("vision", None, 1, 8 * HOUR, 2 * HOUR),
        Usage(None, None, 1, 2 * HOUR, 0.0),
    ]
    names = [f"node1/simulated:{MODEL}:{number}" for number in range(2)]
    assert await _rows(context, ada, By.ACCELERATOR) == [
        Usage(names[1], MODEL, 2, 6 * HOUR, HOUR),
        Usage(names[0], MODEL, 1, 4 * HOUR, HOUR),
    ]
    assert await _rows(context, ada, By.MONTH) == [Usage("2026-11", None, 2, 10 * HOUR, 2 * HOUR)]


async def test_one_sees_ones_own_a_manager_the_groups_an_administrator_all(
    context: Context, alice: Actor, bob: Actor, ada: Actor, held: Held
) -> None:
    async with context.db.write() as session:
        vision = await add_group(session, "vision", alice, bob)
    await held(alice, at(2), at(2, 1), 0, group=(vision.id, "vision"))
    await held(bob, at(3), at(3, 2), 0, group=(vision.id, "vision"))
    await held(bob, at(4), at(4, 3), 0)
    await held(ada, at(5), at(5, 4), 0)
    manager = Actor(alice.user_id, "alice", alice.role, manages=vision.id)

    async def seen(actor: Actor, **options: bool) -> dict[str | None, float]:
        rows = await _rows(context, actor, **options)
        return {row.name: row.held / HOUR for row in rows}

    assert await seen(alice) == {"alice": 1.0}
    assert await seen(bob) == {"bob": 5.0}
    assert await seen(manager) == {"alice": 1.0, "bob": 2.0}
    assert await seen(manager, mine=True) == {"alice": 1.0}
    assert await seen(ada) == {"alice": 1.0, "bob": 5.0, "ada": 4.0}
    assert await seen(ada, mine=True) == {"ada": 4.0}


async def test_nobody_has_held_anything_yet(context: Context, ada: Actor, gpus: list[str]) -> None:
    for by in By:
        assert await _rows(context, ada, by) == []


async def test_a_report_by_month_goes_back_a_year(
    context: Context, alice: Actor, held: Held
) -> None:
    await held(alice, at(30, month=6), at(1, month=7), 0)
    first, last, rows = await reports.gpu_hours(context, alice, by=By.MONTH)
    assert (str(first), str(last)) == ("2025-12", "2026-11")
    assert [row.name for row in rows] == ["2026-06"]


@pytest.mark.parametrize(
    ("first", "last"),
    [(Month(2026, 12), None), (DECEMBER, NOVEMBER), (Month(1990, 1), NOVEMBER)],
    ids=str,
)
async def test_a_span_that_cannot_be_is_refused(
    context: Context, ada: Actor, gpus: list[str], first: Month, last: Month | None
) -> None:
    with pytest.raises(HutchError) as caught:
        await _rows(context, ada, first=first, last=last)
    assert caught.value.code == "invalid_input"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-1", "2026-11-01", "x", "9999-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(HutchError) as caught:
        parse_month(text)
    assert "2026-11" in caught.value.hint


def test_months_know_the_turn_of_the_year() -> None:
    assert parse_month("2026-12").next == Month(2027, 1)
    assert Month(2027, 1).plus(-1) == DECEMBER
    assert Month(2026, 3).begin - Month(2026, 2).begin == timedelta(days=28)
