from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.durations import LONGEST, format_duration, parse_duration, parse_moment
from hutch.errors import InvalidDurationError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
longest_minutes = LONGEST // MINUTE


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("4h", 4 * HOUR),
        ("90m", 90 * MINUTE),
        ("2d", 2 * DAY),
        ("1d12h", 36 * HOUR),
        ("1d 12h 5m", 36 * HOUR + 5 * MINUTE),
        ("1D12H", 36 * HOUR),
        ("  4h\n", 4 * HOUR),
        ("4 h", 4 * HOUR),
        ("0d1m", MINUTE),
        ("1h90m", 150 * MINUTE),
        ("3650d", LONGEST),
    ],
)
def test_what_people_write_is_understood(text: str, span: timedelta):
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "0", "0m", "0d0h0m", "-1", "-4h", "+4h", "4", "45", "1.5h", "1,5h", "4s", "4w",
        "4hours", "h", "h4", "12h1d", "1h1h", "1m2m", "4h,", "4h; rm", "4h\0", "1e3m", "0x4h",
        "1_000m", "inf", "nan", "٤h", "４h", "4ｈ", "3651d", "3650d1m", "9" * 9 + "d",
        "9" * 10 + "m", "9" * 10_000 + "h", "PT4H", "4:00",
    ],
    ids=lambda text: ascii(text[:12]),
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str):
    with pytest.raises(InvalidDurationError) as caught:
        parse_duration(text)
    assert caught.value.hint
    assert len(caught.value.message) < 120


def test_of_a_number_alone_it_is_said_what_to_write():
    with pytest.raises(InvalidDurationError) as caught:
        parse_duration("45")
    assert "45m for minutes, 45h for hours" in caught.value.hint


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str):
    try:
        span = parse_duration(text)
    except InvalidDurationError:
        return
    assert timedelta() < span <= LONGEST


@given(st.text(alphabet="0123456789dhm "))
def test_what_looks_like_one_is_a_duration_or_refused(text: str):
    try:
        span = parse_duration(text)
    except InvalidDurationError:
        return
    assert timedelta() < span <= LONGEST


@given(st.integers(1, longest_minutes))
def test_what_is_printed_is_understood_again(minutes: int):
    span = minutes * MINUTE
    assert parse_duration(format_duration(span)) == span


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_parts_add_up(days: int, hours: int, minutes: int):
    span = timedelta(days=days, hours=hours, minutes=minutes)
    text = f"{days}d{hours}h{minutes}m"
    if timedelta() < span <= LONGEST:
        assert parse_duration(text) == span
    else:
        with pytest.raises(InvalidDurationError):
            parse_duration(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "0m"),
        (timedelta(seconds=59), "0m"),
        (timedelta(seconds=61), "1m"),
        (36 * HOUR, "1d12h"),
        (DAY + MINUTE, "1d1m"),
        (-90 * MINUTE, "-1h30m"),
    ],
)
def test_spans_are_printed_to_the_minute(span: timedelta, text: str):
    assert format_duration(span) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        ("2026-05-01T18:00", datetime(2026, 5, 1, 18, tzinfo=UTC)),
        ("2026-05-01T18:00:00+02:00", datetime(2026, 5, 1, 16, tzinfo=UTC)),
        ("2026-05-01T18:00:00Z", datetime(2026, 5, 1, 18, tzinfo=UTC)),
    ],
)
def test_a_moment_without_a_zone_is_in_utc(text: str, moment: datetime):
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["8h", "1d12h"])
def test_a_span_is_counted_from_now(text: str):
    assert parse_moment(text, NOW) == NOW + parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["tomorrow", "", "2026-03-01T12:00", "2020-01-01", "9999-12-31", "0001-01-01T00:00+23:59"],
)
def test_a_moment_that_has_passed_or_is_too_far_away_is_refused(text: str):
    with pytest.raises(InvalidDurationError):
        parse_moment(text, NOW)


@given(st.text())
def test_whatever_is_typed_is_a_moment_to_come_or_refused(text: str):
    try:
        moment = parse_moment(text, NOW)
    except InvalidDurationError:
        return
    assert NOW < moment <= NOW + LONGEST
