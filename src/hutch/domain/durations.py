"""Spans of time: timedelta inside, `4h` outside."""

import re
from datetime import UTC, datetime, timedelta

from hutch.errors import InvalidDurationError

LONGEST = timedelta(days=3650)
"""Nothing that hutch grants lasts longer: a typing mistake, not a wish."""
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_DURATION = re.compile(
    r"(?:([0-9]{1,9})\s*d)?\s*(?:([0-9]{1,9})\s*h)?\s*(?:([0-9]{1,9})\s*m)?",
    re.ASCII | re.IGNORECASE,
)


def parse_duration(text: str) -> timedelta:
    """The span in a text such as `4h`, `90m`, `2d` or `1d12h`.

    Days, hours and minutes, in that order. Raises InvalidDurationError for anything else, for a
    number alone, which could mean any of them, for nothing at all, and above LONGEST.
    """
    plain = text.strip()
    match = _DURATION.fullmatch(plain)
    if not plain or match is None:
        raise InvalidDurationError(text, _meant(plain))
    span = sum(
        (int(number) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True)
         if number),
        timedelta(),
    )  # fmt: skip
    if not timedelta() < span <= LONGEST:
        raise InvalidDurationError(text, f"more than 0m and at most {format_duration(LONGEST)}")
    return span


def _meant(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII):
        return f"a unit as well: {text}m for minutes, {text}h for hours or {text}d for days"
    return "days, hours and minutes, such as 4h, 90m or 1d12h"


def format_duration(span: timedelta) -> str:
    """A span as people write it, to the minute, `1d12h`; what is left of a minute is not shown."""
    minutes = int(span.total_seconds() // 60)
    if minutes < 0:
        return "-" + format_duration(-span)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m")]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0m"


def parse_moment(text: str, now: datetime) -> datetime:
    """The moment that a text names: a span from now on, or a date and time as in RFC 3339.

    A time without a zone is in UTC. Raises InvalidDurationError for anything else, for what has
    passed, and for what is further away than LONGEST.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return now + parse_duration(text)
    if not now < moment <= now + LONGEST:
        raise InvalidDurationError(text, f"a moment to come, at most {LONGEST.days} days away")
    return moment
