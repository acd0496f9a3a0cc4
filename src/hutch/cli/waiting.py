"""Watching an operation until it ends: a spinner for a person, lines for a log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from hutch.cli import exits, messages
from hutch.cli.terminal import Terminal, clean
from hutch.client.answers import Operation
from hutch.client.client import Client
from hutch.client.failures import rebuild
from hutch.errors import HutchError, UnavailableError

POLL_SECONDS = 10
"""How long one request waits for a change; within a step, progress is seen this often."""
PATIENCE_SECONDS = 60.0
"""How long a server may be away, as while it restarts: the operation itself survives that."""
PAUSE_SECONDS = 1.0

Show = Callable[[str], None]
"""Shows how far it is."""
T = TypeVar("T")


def finish(
    terminal: Terminal,
    client: Client,
    operation: Operation,
    title: str,
    *,
    may_cancel: bool = False,
) -> Operation:
    """Watch `operation` to its end.

    Raises FailedOperationError with the reason when it fails or is stuck, and when it is cancelled
    unless `may_cancel`. An interrupt stops the watching alone: InterruptedByPersonError says so.
    """
    try:
        ended = _watch(terminal, client, operation, title)
    except KeyboardInterrupt:
        raise exits.InterruptedByPersonError(
            messages.GOES_ON, hint=messages.WATCH.format(id=operation["id"])
        ) from None
    if ended["state"] == "done" or (may_cancel and ended["state"] == "cancelled"):
        return ended
    if terminal.as_json:
        terminal.answer({"operation": ended})
    raise exits.FailedOperationError(_reason(ended, title))


def _watch(terminal: Terminal, client: Client, operation: Operation, title: str) -> Operation:
    if not _is_moving(operation):
        return operation
    with live(terminal) as show:
        while _is_moving(operation):
            show(_said(operation, title))
            operation = _next(client, operation, show)
    return operation


def _said(operation: Operation, title: str) -> str:
    message = operation["message"]
    if operation["undoing"]:
        message = messages.UNDOING.format(message=message)
    percent = int(operation["progress"] * 100)
    return messages.PROGRESS.format(title=title, message=message, percent=percent)


def _is_moving(operation: Operation) -> bool:
    return operation["state"] in {"pending", "running"}


def _next(client: Client, operation: Operation, show: Show) -> Operation:
    """The operation after its next change."""
    return through_restarts(
        lambda: client.show_operation(
            operation["id"], wait=POLL_SECONDS, seen=operation["version"]
        ),
        show,
        hint=messages.WATCH.format(id=operation["id"]),
    )


def through_restarts(ask: Callable[[], T], show: Show, *, hint: str) -> T:
    """What `ask` gives, through a restart of the server if need be.

    `hint` says what to do when it stays away.
    """
    give_up_at: float | None = None
    while True:
        try:
            return ask()
        except UnavailableError as error:
            now = time.monotonic()
            give_up_at = give_up_at or now + PATIENCE_SECONDS
            if now >= give_up_at:
                error.hint = hint
                raise
            show(messages.RECONNECTING)
            time.sleep(PAUSE_SECONDS)


def _reason(operation: Operation, title: str) -> HutchError:
    given = operation["error"]
    message = given["message"] if given else messages.OPERATION_FAILED_UNKNOWN
    hint = given["hint"] if given else ""
    if operation["state"] == "cancelled":
        message, hint = messages.OPERATION_CANCELLED.format(title=title), ""
    elif operation["state"] == "stuck":
        message = messages.OPERATION_STUCK.format(title=title, message=message)
        hint = messages.STUCK_HINT.format(id=operation["id"])
    else:
        message = messages.OPERATION_FAILED.format(title=title, message=message)
    code = given["code"] if given else "operation_failed"
    detail = dict(given["detail"]) if given else {}
    return rebuild(code, message, hint, detail | {"operation": operation["id"]})


@contextmanager
def live(terminal: Terminal) -> Generator[Show]:
    """A line that changes on a terminal; a line for each thing that changed in a log."""
    if not terminal.is_watched:
        yield _lines(terminal)
        return
    # Rich is imported while the server already works.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    progress = Progress(
        SpinnerColumn(),
        # Wrapped where the terminal is narrow: what is said at the end matters as well.
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=None)

        def show(text: str) -> None:
            progress.update(task, description=clean(text))

        yield show


def _lines(terminal: Terminal) -> Show:
    last = ""

    def show(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            terminal.note(text)

    return show
