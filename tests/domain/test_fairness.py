import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.fairness import decay, share_of, usage_of

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
HALF = timedelta(days=7)
spans = st.timedeltas(timedelta(), timedelta(days=400))


def test_after_a_half_life_usage_counts_half():
    assert decay(100.0, NOW, NOW + HALF, HALF) == pytest.approx(50.0)
    assert decay(100.0, NOW, NOW + 2 * HALF, HALF) == pytest.approx(25.0)


def test_a_clock_that_was_set_back_makes_no_usage_grow():
    assert decay(100.0, NOW, NOW - HALF, HALF) == 100.0


def test_what_was_used_this_moment_counts_in_full():
    assert usage_of(2, NOW - timedelta(seconds=1), NOW, NOW, HALF) == pytest.approx(2.0)


def test_what_has_not_been_used_yet_counts_nothing():
    later = NOW + timedelta(hours=1)
    assert usage_of(1, NOW, later, NOW, HALF) == 0.0
    assert usage_of(1, later, NOW, later, HALF) == 0.0
    assert usage_of(3, NOW - HALF, later, NOW, HALF) == usage_of(3, NOW - HALF, NOW, NOW, HALF)


def test_a_holding_without_end_comes_to_a_bound():
    ages = usage_of(1, NOW - 1000 * HALF, NOW, NOW, HALF)
    assert ages == pytest.approx(HALF.total_seconds() / math.log(2))


@given(spans, spans, st.integers(1, 8))
def test_usage_is_the_sum_of_what_each_moment_counts(length: timedelta, ago: timedelta, count: int):
    until = NOW - ago
    since, steps = until - length, 400
    each = length / steps
    naive = sum(
        decay(each.total_seconds(), since + (n + 0.5) * each, NOW, HALF) for n in range(steps)
    )
    assert usage_of(count, since, until, NOW, HALF) == pytest.approx(count * naive, rel=1e-2)


@given(spans, spans, spans)
def test_booking_in_parts_or_later_makes_no_difference(
    one: timedelta, two: timedelta, ago: timedelta
):
    since = NOW - ago - two - one
    cut, until = since + one, since + one + two
    whole = usage_of(1, since, until, NOW, HALF)
    parts = decay(usage_of(1, since, cut, cut, HALF), cut, NOW, HALF)
    parts += usage_of(1, cut, until, NOW, HALF)
    assert whole == pytest.approx(parts, rel=1e-6, abs=1e-6)


@given(spans, spans, spans)
def test_fading_in_two_steps_is_fading_in_one(one: timedelta, two: timedelta, half: timedelta):
    half += timedelta(hours=1)
    at_once = decay(1e6, NOW, NOW + one + two, half)
    assert decay(decay(1e6, NOW, NOW + one, half), NOW + one, NOW + one + two, half) == (
        pytest.approx(at_once)
    )


def test_a_larger_weight_is_a_smaller_share_of_the_same_usage():
    assert share_of(6.0, 3.0) == 2.0
    assert share_of(0.0, 0.0) == math.inf
