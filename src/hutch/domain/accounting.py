"""What was held, and when, as it is reported: clipped to spans, split by days and months in UTC.

All in accelerator-seconds, for one accelerator each; an hour of GPU is 3600 of them.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from hutch.errors import InvalidInputError

_Key = TypeVar("_Key", bound=Hashable)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Hours:
    """What was held, and how much of that something was computed, in seconds."""

    held: float = 0.0
    busy: float = 0.0

    def plus(self, other: "Hours") -> "Hours":
        return Hours(self.held + other.held, self.busy + other.busy)

    @property
    def held_hours(self) -> float:
        return self.held / 3600

    @property
    def busy_hours(self) -> float:
        return self.busy / 3600


def held_seconds(since: datetime, until: datetime | None, begin: datetime, end: datetime) -> float:
    """Seconds of an interval that fall into [begin, end). `until` is None while it goes on: then
    it counts to the end of the span, which for what is still held must not lie in the future."""
    last = end if until is None else min(until, end)
    return max(0.0, (last - max(since, begin)).total_seconds())


def by_day(since: datetime, until: datetime) -> Iterator[tuple[date, float]]:
    """The seconds of an interval on each day in UTC that it touches."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    while since < until:
        midnight = since.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        yield since.date(), (min(midnight, until) - since).total_seconds()
        since = midnight


def by_month(since: datetime, until: datetime) -> Iterator[tuple[str, float]]:
    """The seconds of an interval in each month in UTC that it touches, as `2026-03`."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    while since < until:
        end = _next_month(since)
        yield month_of(since), (min(end, until) - since).total_seconds()
        since = end


def month_of(moment: date) -> str:
    """The month of a day, or of a moment in UTC, as `2026-03`."""
    return f"{moment.year:04}-{moment.month:02}"


def _next_month(moment: datetime) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def parse_month(text: str) -> tuple[datetime, datetime]:
    """The begin of a month such as `2026-03`, and of the next one. InvalidInputError otherwise."""
    match = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text.strip(), re.ASCII)
    if match is None or not 1970 <= int(match.group(1)) <= 9998:
        raise InvalidInputError(
            f"{text[:40]!r} is not a month.", hint="Give a year and a month, such as 2026-03."
        )
    begin = datetime(int(match.group(1)), int(match.group(2)), 1, tzinfo=UTC)
    return begin, _next_month(begin)


def total(rows: Iterable[tuple[_Key, Hours]]) -> dict[_Key, Hours]:
    """The sums of the rows that have the same key, in the order in which the keys first come."""
    sums: dict[_Key, Hours] = {}
    for key, hours in rows:
        sums[key] = sums.get(key, Hours()).plus(hours)
    return sums
