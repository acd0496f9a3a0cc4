"""Runs the setup's steps one after the other, and tells a person what happens.

A step first looks whether its work is already done. Only where it is not does it act, so that a
second run repairs what is missing and changes nothing else. A step that fails says what failed
and what to do, and the same command continues from there later.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import httpx

from hutch.errors import HutchError
from hutch.setup.commands import CommandError
from hutch.setup.incus_api import IncusApiError
from hutch.setup.subnets import NoFreeSubnetError

#: Seconds between two lines about a long step where the output is not a terminal.
_QUIET_SECONDS = 10.0

Progress = Callable[[str], None]


class StepFailedError(Exception):
    """A step cannot be done; `advice` is what the person should do about it."""

    def __init__(self, message: str, advice: str = "") -> None:
        self.advice = advice
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is to be so at the end."""

    title: str
    is_done: Callable[[], bool]
    do: Callable[[Progress], object]
    """Makes it so. It may report progress; a text that it returns is worth telling."""
    advice: str = ""
    """What to do when it fails and the error itself does not say."""


class Reporter:
    """Prints steps: one live line on a terminal, plain lines elsewhere."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty()

    def line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def begin(self, title: str) -> _Running:
        return _Running(title, self._out, self._live)


class _Running:
    """The report of the step that runs just now."""

    def __init__(self, title: str, out: TextIO, live: bool) -> None:
        self._title = title
        self._out = out
        self._live = live
        self._began = time.monotonic()
        self._said = self._began
        self._detail = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if live:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def progress(self, detail: str) -> None:
        """What the step is busy with."""
        self._detail = detail
        now = time.monotonic()
        if self._live:
            self._draw()
        elif now - self._said >= _QUIET_SECONDS:
            self._said = now
            self._print(f"  ... {self._title}: {detail} ({now - self._began:.0f} s)")

    def _tick(self) -> None:
        """Keeps the seconds on the live line going while the step is silent."""
        while not self._ended.wait(1):
            self._draw()

    def _draw(self) -> None:
        seconds = time.monotonic() - self._began
        text = f"  ... {self._title} {seconds:.0f} s  {self._detail}"
        with self._lock:
            self._out.write(f"\r\x1b[2K{text[:100]}")
            self._out.flush()

    def end(self, mark: str, note: str) -> None:
        self._ended.set()
        if self._live:
            self._ticker.join()
            self._out.write("\r\x1b[2K")
        seconds = time.monotonic() - self._began
        self._print(f"  {mark} {self._title}: {note} ({seconds:.1f} s)")

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def run_steps(steps: Sequence[Step], reporter: Reporter) -> int:
    """Runs the steps in order; how many of them had something to do.

    Raises:
        StepFailedError: the first that failed, after it was reported.
    """
    return sum(run_step(step, reporter) for step in steps)


def run_step(step: Step, reporter: Reporter) -> bool:
    """Runs one step; whether it had something to do."""
    running = reporter.begin(step.title)
    try:
        if step.is_done():
            running.end("=", "already so")
            return False
        note = step.do(running.progress)
    except (
        StepFailedError,
        CommandError,
        IncusApiError,
        NoFreeSubnetError,
        HutchError,
        httpx.HTTPError,
        OSError,
    ) as error:
        running.end("x", "FAILED")
        raise StepFailedError(f"{step.title}: {_reason(error)}", _advice(error, step)) from error
    running.end("+", note if isinstance(note, str) else "done")
    return True


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _advice(error: Exception, step: Step) -> str:
    own = getattr(error, "advice", "") or getattr(error, "hint", "")
    return str(own or step.advice or "Mend that, then run ./quickstart again: it goes on here.")
