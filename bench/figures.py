"""What was measured, and the few numbers made of it. Pure: no clock, no machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones. ValueError for none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed.

    The nearest-rank definition: the answer is a value that was really seen.
    """
    if not values:
        raise ValueError("nothing was measured")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same thing done by hutch and by hand, in seconds, each sample from the same run."""

    what: str
    hutch: list[float]
    by_hand: list[float]
    most: float | None = None
    """The largest ratio that is aimed for."""
    note: str = ""

    @property
    def ratio(self) -> float:
        return median(self.hutch) / median(self.by_hand)

    @property
    def met(self) -> bool | None:
        return None if self.most is None else self.ratio <= self.most

    def as_row(self) -> list[str]:
        return [
            self.what,
            _seconds(self.hutch),
            _seconds(self.by_hand),
            f"{self.ratio:.2f}",
            "" if self.most is None else f"≤ {self.most:g}",
            verdict(self.met),
            self.note,
        ]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of hutch's own."""

    what: str
    value: float
    unit: str
    most: float | None = None
    """The largest value that is aimed for."""
    least: float | None = None
    """The smallest value that is aimed for."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least

    def as_row(self) -> list[str]:
        aim = f"≤ {self.most:g}" if self.most is not None else ""
        if self.least is not None:
            aim = f"≥ {self.least:g}"
        return [self.what, f"{shown(self.value)} {self.unit}", aim, verdict(self.met), self.note]


@dataclass
class Report:
    """Everything that one run measured."""

    title: str
    facts: dict[str, str] = field(default_factory=dict[str, str])
    comparisons: list[Comparison] = field(default_factory=list[Comparison])
    measures: list[Measure] = field(default_factory=list[Measure])
    notes: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, Any]:
        """Every sample, with what was made of them."""
        return {
            "title": self.title,
            "facts": self.facts,
            "comparisons": [
                {**asdict(each), "ratio": each.ratio, "met": each.met} for each in self.comparisons
            ],
            "measures": [{**asdict(each), "met": each.met} for each in self.measures],
            "notes": self.notes,
        }

    def as_text(self) -> str:
        """For a terminal, and as Markdown for the documentation."""
        parts = [f"## {self.title}", "\n".join(f"- {k}: {v}" for k, v in self.facts.items())]
        if self.comparisons:
            head = ["", "hutch", "by hand", "ratio", "aim", "", ""]
            parts.append(table(head, [each.as_row() for each in self.comparisons]))
        if self.measures:
            head = ["", "measured", "aim", "", ""]
            parts.append(table(head, [each.as_row() for each in self.measures]))
        parts += self.notes
        return "\n\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; columns that are empty throughout are left out."""
    kept = [i for i in range(len(head)) if head[i] or any(row[i] for row in rows)]
    lines = [[line[i] for i in kept] for line in (head, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(kept))]
    shown_lines = [_line(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([shown_lines[0], rule, *shown_lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def verdict(met: bool | None) -> str:
    return {None: "", True: "met", False: "missed"}[met]


def _seconds(values: Sequence[float]) -> str:
    """The median with the fastest and the slowest, which tell how far to trust it."""
    text = f"{shown(median(values))} s"
    if len(values) > 1:
        text += f" ({shown(min(values))} to {shown(max(values))})"
    return text


def shown(value: float) -> str:
    """Three digits that matter; more would be noise."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
