"""What somebody types after `ssh lab`: the same commands as `hutch`, where they make sense."""

import difflib
import shlex

from hutch.cli.app import LOCAL, OVER_SSH
from hutch.gateway import messages

LONGEST = 16 * 1024
"""Bytes of a command; a longer one is no command."""
_OVERVIEW = ["overview"]
_MEANS = {"config": "ssh-config"}
"""`config` is about the server, where there are files: whoever says it here means ssh's."""
_PROGRAM = "hutch"
_COPIERS = ("scp ", "rsync ", "sftp-server", "git-", "cvs ", "svnserve")


class NoCommandError(Exception):
    """What was typed is no command of the gateway. The message says what to do."""


def parse(line: str | None) -> list[str]:
    """The words of a command; of none at all, those of the overview. Raises NoCommandError.

    Quotes group words as in a shell, and that is all: nothing is expanded, and every other
    character is itself.
    """
    if line is None or not line.strip():
        return _OVERVIEW
    if line.startswith(_COPIERS):
        raise NoCommandError(messages.NO_FILES)
    if len(line.encode()) > LONGEST or "\0" in line:
        raise NoCommandError(messages.NOT_A_COMMAND)
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise NoCommandError(messages.BAD_QUOTES.format(reason=str(error).lower())) from None
    if words and words[0] == _PROGRAM:
        words = words[1:]
    if not words:
        return _OVERVIEW
    return _allowed(words)


def _allowed(words: list[str]) -> list[str]:
    if words[0] == "help":
        # ssh takes `--help` for itself, wherever it stands.
        return [*words[1:], "--help"]
    first = _MEANS.get(words[0], words[0])
    if first.startswith("-"):
        # `--help` and `--version`.
        return words
    if first in OVER_SSH:
        return [first, *words[1:]]
    if first in LOCAL:
        raise NoCommandError(messages.LOCAL_COMMAND.format(command=first))
    near = difflib.get_close_matches(first, OVER_SSH, 1)
    hint = messages.DID_YOU_MEAN.format(command=near[0]) if near else ""
    raise NoCommandError(messages.UNKNOWN_COMMAND.format(command=first[:80], hint=hint))


def wants_input(words: list[str]) -> bool:
    """Whether a command reads standard input also where that is no terminal.

    ssh passes on whatever it has itself, and a program that waits for the end of a terminal's input
    would wait for ever: it is given none.
    """
    return "--password-stdin" in words or words[:2] == ["key", "add"]
