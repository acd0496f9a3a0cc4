from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.limits import (
    MOST_CPUS,
    MOST_PROCESSES,
    NOTHING,
    SMALLEST_DISK,
    SMALLEST_MEMORY,
    Holding,
    Limits,
    check_quota,
    holding_of,
)
from hutch.domain.sizes import GiB, MiB, TiB
from hutch.errors import InvalidLimitError, QuotaExceededError

SANE = Limits(cpus=2, memory=4 * GiB, disk=20 * GiB, processes=4096)
amounts = st.integers(0, 50)
holdings = st.builds(Holding, amounts, amounts, amounts, amounts)


def test_sane_limits_are_returned_as_they_are():
    assert SANE.check() is SANE


@pytest.mark.parametrize(
    "limits",
    [
        replace(SANE, cpus=1),
        replace(SANE, cpus=MOST_CPUS),
        replace(SANE, memory=SMALLEST_MEMORY),
        replace(SANE, memory=64 * TiB),
        replace(SANE, disk=SMALLEST_DISK),
        replace(SANE, processes=64),
        replace(SANE, processes=MOST_PROCESSES),
    ],
)
def test_the_edges_are_allowed(limits: Limits):
    assert limits.check() == limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpus", 0),
        ("cpus", -1),
        ("cpus", MOST_CPUS + 1),
        ("cpus", 10**99),
        ("memory", 0),
        ("memory", -4 * GiB),
        ("memory", SMALLEST_MEMORY - 1),
        ("disk", 0),
        ("disk", SMALLEST_DISK - 1),
        ("processes", 0),
        ("processes", 63),
        ("processes", MOST_PROCESSES + 1),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: int):
    with pytest.raises(InvalidLimitError, match=f"^{name} cannot be ") as caught:
        replace(SANE, **{name: value}).check()
    assert caught.value.detail["limit"] == name
    assert "at least" in caught.value.hint


def test_an_instance_counts_for_itself_and_its_limits():
    assert holding_of(SANE) == Holding(1, SANE.cpus, SANE.memory, SANE.disk)


@given(holdings, holdings, holdings)
def test_adding_holdings_is_adding(one: Holding, two: Holding, three: Holding):
    assert one.plus(two) == two.plus(one)
    assert one.plus(two).plus(three) == one.plus(two.plus(three))
    assert one.plus(NOTHING) == one


@given(holdings, holdings, holdings)
def test_a_quota_refuses_exactly_what_would_exceed_it(quota: Holding, held: Holding, more: Holding):
    exceeded = [
        field.name
        for field in fields(Holding)
        if getattr(more, field.name) > 0
        and getattr(held, field.name) + getattr(more, field.name) > getattr(quota, field.name)
    ]
    if not exceeded:
        check_quota(quota, held, more)
        return
    with pytest.raises(QuotaExceededError) as caught:
        check_quota(quota, held, more)
    assert caught.value.detail["resource"] == exceeded[0]


@given(holdings, st.lists(holdings, max_size=20))
def test_granting_one_by_one_never_exceeds_a_quota(quota: Holding, asks: list[Holding]):
    held = NOTHING
    for more in asks:
        try:
            check_quota(quota, held, more)
        except QuotaExceededError:
            continue
        held = held.plus(more)
    assert all(getattr(held, f.name) <= getattr(quota, f.name) for f in fields(Holding))


@given(holdings, holdings)
def test_a_lowered_quota_still_allows_shrinking(quota: Holding, held: Holding):
    check_quota(quota, held, NOTHING)
    check_quota(quota, held, Holding(0, -1, -1, -1))


def test_the_refusal_says_what_is_allowed_held_and_asked():
    quota, held = Holding(5, 8, 8 * GiB, 100 * GiB), Holding(1, 2, 6 * GiB, 20 * GiB)
    with pytest.raises(QuotaExceededError) as caught:
        check_quota(quota, held, holding_of(replace(SANE, memory=2560 * MiB)))
    assert "8GiB allowed, 6GiB held, 2.5GiB more" in caught.value.message
