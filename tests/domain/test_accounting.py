from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.accounting import (
    Hours,
    by_day,
    by_month,
    held_seconds,
    month_of,
    parse_month,
    total,
)
from hutch.errors import InvalidInputError

HOUR = timedelta(hours=1)
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_an_interval_is_clipped_to_the_span():
    begin, end = NEW_YEAR, NEW_YEAR + 10 * HOUR
    assert held_seconds(begin + HOUR, begin + 3 * HOUR, begin, end) == 7200
    assert held_seconds(begin - HOUR, begin + HOUR, begin, end) == 3600
    assert held_seconds(begin - HOUR, end + HOUR, begin, end) == 36_000
    assert held_seconds(begin - 2 * HOUR, begin - HOUR, begin, end) == 0
    assert held_seconds(end + HOUR, end + 2 * HOUR, begin, end) == 0


def test_what_is_still_held_counts_to_the_end_of_the_span():
    assert held_seconds(NEW_YEAR, None, NEW_YEAR, NEW_YEAR + HOUR) == 3600


def test_a_night_is_on_two_days_and_new_years_night_in_two_months():
    since, until = NEW_YEAR - 2 * HOUR, NEW_YEAR + HOUR
    assert list(by_day(since, until)) == [(date(2025, 12, 31), 7200.0), (date(2026, 1, 1), 3600.0)]
    assert list(by_month(since, until)) == [("2025-12", 7200.0), ("2026-01", 3600.0)]


def test_days_are_those_of_utc_wherever_the_clock_stands():
    tokyo = timezone(9 * HOUR)
    since = datetime(2026, 1, 1, 8, tzinfo=tokyo)
    assert list(by_day(since, since + HOUR)) == [(date(2025, 12, 31), 3600.0)]


@given(moments, moments)
def test_days_and_months_add_up_to_the_whole(since: datetime, until: datetime):
    whole = max(0.0, (until - since).total_seconds())
    assert sum(seconds for _, seconds in by_month(since, until)) == pytest.approx(whole)
    if whole < 100 * 86_400:
        assert sum(seconds for _, seconds in by_day(since, until)) == pytest.approx(whole)
    months = [month for month, _ in by_month(since, until)]
    assert months == sorted(set(months))


@given(moments, moments, moments)
def test_spans_that_meet_share_no_second(since: datetime, until: datetime, cut: datetime):
    begin, end = datetime(2019, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    parts = held_seconds(since, until, begin, cut) + held_seconds(since, until, cut, end)
    assert parts == pytest.approx(max(0.0, (until - since).total_seconds()))


def test_a_month_begins_and_ends_at_midnight_in_utc():
    assert parse_month("2026-03") == (
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
    )
    assert parse_month("2026-12")[1] == datetime(2027, 1, 1, tzinfo=UTC)
    assert month_of(parse_month(" 2026-12\n")[0]) == "2026-12"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "26-03",
        "2026-3",
        "0000-01",
        "9999-01",
        "٢٠٢٦-03",
        "x" * 99,
    ],
)
def test_what_is_no_month_is_refused(text: str):
    with pytest.raises(InvalidInputError) as caught:
        parse_month(text)
    assert caught.value.hint


def test_rows_of_the_same_key_are_summed():
    rows = [("ada", Hours(3600, 1800)), ("bob", Hours(60, 0)), ("ada", Hours(7200, 0))]
    sums = total(rows)
    assert list(sums) == ["ada", "bob"]
    assert (sums["ada"].held_hours, sums["ada"].busy_hours) == (3.0, 0.5)
