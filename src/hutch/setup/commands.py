"""Programs run by the setup: argument lists only, no shell, and an error that tells what was said.

A failed command raises `CommandError`, whose text is fit to be shown to a person as it is.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SHOWN_LINES = 15


class CommandError(Exception):
    """A program could not be started, or ended with an error."""

    def __init__(self, argv: Sequence[str], reason: str, output: str = "") -> None:
        self.argv = list(argv)
        self.reason = reason
        self.output = output
        tail = "\n".join(output.strip().splitlines()[-_SHOWN_LINES:])
        said = f"\nIt said:\n{tail}" if tail else ""
        super().__init__(f"`{shlex.join(argv)}` {reason}.{said}")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment with messages in English, because some are read by us."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def _account(user: str) -> dict[str, Any]:
    if not user:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = 120,
    cwd: Path | None = None,
    user: str = "",
) -> str:
    """Runs a program, as `user` where root names one, and returns its standard output.

    Raises:
        CommandError: not installed, over `timeout` seconds, or an exit status other than 0.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            env=_environment(env),
            timeout=timeout,
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
            **_account(user),
        )
    except FileNotFoundError as error:
        raise CommandError(argv, "could not be started: the program is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, f"took more than {timeout:.0f} seconds") from error
    if done.returncode != 0:
        raise CommandError(argv, f"ended with status {done.returncode}", done.stderr or done.stdout)
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout: float = 30) -> bool:
    """Whether the program is there and ends with status 0."""
    try:
        run(argv, timeout=timeout)
    except CommandError:
        return False
    return True


def run_showing(
    argv: Sequence[str],
    line_seen: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Runs a long program and hands every line it prints, of either stream, to `line_seen`.

    Raises:
        CommandError: not installed, or an exit status other than 0; it carries the last lines.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(env),
            cwd=cwd,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise CommandError(argv, "could not be started: the program is not installed") from error
    with process:
        assert process.stdout is not None  # noqa: S101 (it is a pipe, see above)
        for line in process.stdout:
            text = line.strip()
            if text:
                lines = [*lines[-_SHOWN_LINES:], text]
                line_seen(text)
    if process.returncode != 0:
        raise CommandError(argv, f"ended with status {process.returncode}", "\n".join(lines))
