"""Tables for spreadsheet programs."""

import csv
from collections.abc import Sequence
from io import StringIO

_COMMANDS = ("=", "+", "-", "@")
"""A text that begins so is a formula to a spreadsheet, and a formula can do harm."""


def as_csv(head: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """The table as CSV (RFC 4180), where no text is taken for a formula; None is an empty cell."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: str | float | None) -> str | float | None:
    if not isinstance(value, str):
        return value
    text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
    # OWASP's advice against CSV injection: an apostrophe makes it a text.
    return f"'{text}" if text.startswith(_COMMANDS) else text
