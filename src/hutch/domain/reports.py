"""Reports: what was held and what of it was truly used, over whole months in UTC."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from hutch.errors import InvalidInputError

MOST_MONTHS = 120
_MONTH = re.compile(r"([1-9][0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)


class By(StrEnum):
    """What the rows of a report stand for."""

    PERSON = "person"
    GROUP = "group"
    ACCELERATOR = "accelerator"
    MONTH = "month"


@dataclass(frozen=True, slots=True, order=True)
class Month:
    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def begin(self) -> datetime:
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def next(self) -> "Month":
        return self.plus(1)

    def plus(self, months: int) -> "Month":
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, month + 1)


def month_of(moment: datetime) -> Month:
    at = moment.astimezone(UTC)
    return Month(at.year, at.month)


def parse_month(text: str) -> Month:
    """The month in `2026-11`. Raises InvalidInputError for anything else."""
    match = _MONTH.fullmatch(text)
    # The last year of the calendar has no month after it.
    if match is None or int(match[1]) > 9000:
        raise InvalidInputError(
            f"{text[:40]!r} is no month.", hint="Give year and month, such as 2026-11."
        )
    return Month(int(match[1]), int(match[2]))


def months(first: Month, last: Month) -> Iterator[Month]:
    """Every month from `first` to `last`, both included.

    Raises InvalidInputError when there is none, or more than MOST_MONTHS.
    """
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    if not 1 <= count <= MOST_MONTHS:
        raise InvalidInputError(
            f"From {first} to {last} is no span for a report.",
            hint=f"Give 1 to {MOST_MONTHS} months, the earlier one first.",
        )
    return (first.plus(number) for number in range(count))


@dataclass(frozen=True, slots=True)
class Usage:
    """One row of a report about accelerators."""

    name: str | None
    """Of the person, the group, the accelerator (`node/address`) or the month; None: no group."""
    model: str | None
    """Of an accelerator."""
    leases: int
    held: float
    """Seconds for which accelerators were held; one that several share counts for each."""
    busy: float
    """Seconds of these in which they computed."""
