"""What a command prints, and where: results to stdout, everything else to stderr.

Tables are drawn here, not by Rich: importing Rich takes longer than listing instances does.
Rich draws what is rare or slow anyway, the help and the progress of an operation.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from hutch.cli import exits, messages
from hutch.errors import HutchError

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
}


@dataclass(frozen=True, slots=True)
class Styled:
    """A text with the style it has on a terminal."""

    text: str
    style: str


Cell = str | Styled


class Terminal:
    """The output of one command. `as_json`: only the API's own objects, and errors as JSON."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def is_watched(self) -> bool:
        """Whether a person sees progress: stderr is a terminal, and they did not ask for JSON."""
        return not self.as_json and _is_tty(sys.stderr)

    def answer(self, content: Any) -> None:
        """Print an object of the API."""
        _write(sys.stdout, json.dumps(content, indent=2))

    def say(self, text: str, style: str = "") -> None:
        """Print a part of the result."""
        _write(sys.stdout, paint(clean(text), style, sys.stdout))

    def note(self, text: str) -> None:
        """Tell a person something beside the result. Scripts that ask for JSON do not get it."""
        if not self.as_json:
            _write(sys.stderr, clean(text))

    def fail(self, error: HutchError) -> None:
        """Print an error: what happened and what to do, or the API's error object."""
        if self.as_json:
            _write(sys.stderr, json.dumps({"error": error_object(error)}))
            return
        by_choice = isinstance(error, exits.InterruptedByPersonError)
        head = "" if by_choice else paint(messages.ERROR, "red", sys.stderr) + " "
        _write(sys.stderr, head + clean(error.message))
        if error.hint:
            _write(sys.stderr, f"  {clean(error.hint)}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Print columns as wide as their content: nothing is ever cut off."""
        lines: list[Sequence[Cell]] = [[Styled(title, "bold") for title in head], *rows]
        widths = [max(len(_text(line[at])) for line in lines) for at in range(len(head))]
        _write(sys.stdout, "\n".join(_line(line, widths) for line in lines))

    def fields(self, pairs: Sequence[tuple[str, Cell]]) -> None:
        """Print names and values below each other."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            _write(sys.stdout, _line([Styled(name, "dim"), value], [width, 0]))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is lost. Does nothing when `yes`.

        Raises DeclinedError for any other answer than yes, and ConfirmationNeededError where
        nobody can be asked.
        """
        if yes:
            return
        if self.as_json or not (_is_tty(sys.stdin) and _is_tty(sys.stderr)):
            raise exits.ConfirmationNeededError(
                messages.NOT_CONFIRMED.format(question=question), hint=messages.REPEAT_WITH_YES
            )
        sys.stderr.write(f"{clean(question)} {messages.YES_OR_NO} ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in messages.ANSWERS_OF_YES:
            raise exits.DeclinedError(messages.NOTHING_CHANGED)


def error_object(error: HutchError) -> dict[str, Any]:
    """An error as the API words it, wherever it came from."""
    content = error.as_dict()
    detail = dict(error.detail)
    request_id = detail.pop("request_id", None)
    return content | {"detail": detail, "request_id": request_id}


def state(name: str) -> Styled:
    """A state in its colour: green works, yellow moves, red needs someone."""
    return Styled(name, _STATE_STYLES.get(name, "yellow" if name.endswith("ing") else ""))


_STATE_STYLES = {
    "running": "green",
    "active": "green",
    "ready": "green",
    "done": "green",
    "stopped": "dim",
    "cancelled": "dim",
    "disabled": "dim",
    "pending": "yellow",
    "cordoned": "yellow",
    "failed": "red",
    "stuck": "red",
    "refused": "red",
    "unreachable": "red",
}


def clean(text: str) -> str:
    """The text without characters that would command the terminal it is shown on."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def paint(text: str, style: str, stream: TextIO) -> str:
    """The text in a style, where `stream` shows styles and the person wants them."""
    if not style or not has_colour(stream):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def has_colour(stream: TextIO) -> bool:
    """Whether to colour: a terminal that can, and no NO_COLOR (https://no-color.org)."""
    return (
        _is_tty(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"
    )


def _is_tty(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _text(cell: Cell) -> str:
    return clean(cell.text if isinstance(cell, Styled) else cell).replace("\n", " ")


def _line(cells: Sequence[Cell], widths: Sequence[int]) -> str:
    shown: list[str] = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = _text(cell)
        padding = "" if at == len(widths) - 1 else " " * (width - len(text))
        style = cell.style if isinstance(cell, Styled) else ""
        shown.append(paint(text, style, sys.stdout) + padding)
    return "  ".join(shown).rstrip()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(exits.PIPE_CLOSED) from None
