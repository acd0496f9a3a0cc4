"""Arguments and options that several commands have, so that they look alike everywhere."""

from typing import Annotated

import typer

from hutch.cli import exits
from hutch.cli.words import groups as words
from hutch.client.lab import NewIdle
from hutch.domain.durations import parse_duration

Json = Annotated[
    bool, typer.Option("--json", help="Print the API's own objects, and errors as JSON.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
InstanceName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The instance: its name or id. Another person's is owner/name.",
        show_default=False,
    ),
]
Cpus = Annotated[
    int | None, typer.Option("--cpus", metavar="N", help="Processors.", show_default=False)
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Memory, such as 4GiB.", show_default=False),
]
Disk = Annotated[
    str | None,
    typer.Option("--disk", metavar="SIZE", help="Disk, such as 20GiB.", show_default=False),
]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[-- COMMAND...]", help="What to run inside, after `--`.", show_default=False
    ),
]
Idle = Annotated[
    str | None,
    typer.Option("--idle", metavar="2h|never|lab", help=words.IDLE_WINDOW, show_default=False),
]
IdleBelow = Annotated[
    float | None,
    typer.Option("--idle-below", metavar="PERCENT", help=words.IDLE_BELOW, show_default=False),
]
IdleWarning = Annotated[
    str | None,
    typer.Option("--idle-warning", metavar="15m", help=words.IDLE_WARNING, show_default=False),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


def idle_wish(window: str | None, below: float | None, warning: str | None) -> NewIdle | None:
    """What the three options of a policy of idleness say together; None: no policy of one's own.

    Raises InvalidDurationError for what is no time.
    """
    if window == "lab":
        if below is not None or warning is not None:
            raise exits.UsageError(words.IDLE_ALONE)
        return None
    wish: NewIdle = {}
    if window is not None:
        wish["window_minutes"] = 0.0 if window == "never" else minutes(window)
    if below is not None:
        wish["threshold_percent"] = below
    if warning is not None:
        wish["warning_minutes"] = minutes(warning)
    return wish


def minutes(text: str) -> float:
    """The minutes of a time such as `4h`. Raises InvalidDurationError."""
    return parse_duration(text).total_seconds() / 60
