"""`hutch key`: the SSH keys that open one's instances."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hutch.cli import exits, messages, remote, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal
from hutch.client.answers import Key
from hutch.domain.sshkeys import LONGEST_LINE, parse_public_key
from hutch.errors import ConflictError, InvalidKeyError, NotFoundError

USUAL_FILES = (
    "id_ed25519.pub",
    "id_ecdsa.pub",
    "id_rsa.pub",
    "id_ed25519_sk.pub",
    "id_ecdsa_sk.pub",
)
"""In the order in which ssh-keygen's defaults are preferred."""

OfUser = Annotated[str | None, typer.Option("--user", metavar="USER", help=messages.OF_USER)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("add", add), ("list", list_all), ("remove", remove)):
        group.command(name, help=messages.HELP[f"key {name}"])(command)
    app.add_typer(
        group, name="key", help=messages.HELP["key"], rich_help_panel=messages.PANEL_ACCOUNT
    )


def add(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help=messages.KEY_FILE, show_default=False)
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help=messages.KEY_TITLE)
    ] = None,
    user: OfUser = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    line = _read(file)
    # Looked at here first: what is no public key, and may be a private one, is never sent.
    parse_public_key(line)
    with connect() as client:
        key = client.add_key(line, title=title, user=user)
    if as_json:
        terminal.answer(key)
    else:
        terminal.say(
            messages.KEY_ADDED.format(title=key["title"], fingerprint=key["fingerprint"]), "green"
        )


def _read(file: str | None) -> str:
    """The one line with a key in `file`, on standard input (`-`), or in the usual place."""
    if remote.gateway() is not None:
        if file not in {None, "-"}:
            raise exits.UsageError(messages.NO_FILES_HERE, hint=messages.KEY_ON_STDIN)
        file = "-"
    if file == "-":
        return _only_line(sys.stdin.read(LONGEST_LINE * 4), messages.STANDARD_INPUT)
    path = _usual() if file is None else Path(file).expanduser()
    try:
        with path.open(encoding="utf-8") as opened:
            return _only_line(opened.read(LONGEST_LINE * 4), str(path))
    except OSError as error:
        raise InvalidKeyError(
            messages.KEY_UNREADABLE.format(file=path, reason=error.strerror or error),
            hint=messages.KEY_FILE_HINT,
        ) from None
    except UnicodeDecodeError:
        raise InvalidKeyError(
            messages.KEY_FILE_EMPTY.format(file=path), hint=messages.KEY_FILE_HINT
        ) from None


def _usual() -> Path:
    folder = Path.home() / ".ssh"
    for name in USUAL_FILES:
        if (folder / name).is_file():
            return folder / name
    raise InvalidKeyError(messages.NO_KEY_FILE.format(folder=folder), hint=messages.MAKE_KEY)


def _only_line(text: str, source: str) -> str:
    if "PRIVATE KEY" in text:
        # Says what it is; nothing of it is repeated.
        parse_public_key("PRIVATE KEY")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InvalidKeyError(
            messages.KEY_FILE_EMPTY.format(file=source), hint=messages.KEY_FILE_HINT
        )
    if len(lines) > 1:
        raise InvalidKeyError(
            messages.KEY_FILE_SEVERAL.format(file=source), hint=messages.KEY_FILE_SEVERAL_HINT
        )
    return lines[0]


def list_all(user: OfUser = None, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_keys(user)
    if as_json:
        terminal.answer(found)
    elif not found:
        none = messages.NO_KEYS if user is None else messages.NO_KEYS_OF_USER.format(user=user)
        terminal.note(none)
    else:
        terminal.table(
            messages.OF_KEYS,
            [
                [
                    key["id"],
                    key["title"],
                    key["type"],
                    key["fingerprint"],
                    wording.moment(key["created_at"]),
                ]
                for key in found
            ],
        )


def remove(
    key: Annotated[str, typer.Argument(metavar="KEY", help=messages.WHICH_KEY, show_default=False)],
    user: OfUser = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = _find(client.list_keys(user), key)
        client.remove_key(found["id"])
    if as_json:
        terminal.answer(found)
    else:
        terminal.say(
            messages.KEY_REMOVED.format(title=found["title"], fingerprint=found["fingerprint"])
        )


def _find(keys: list[Key], name: str) -> Key:
    """The key of this id or fingerprint, else the only one of this title."""
    exact = [key for key in keys if name in {key["id"], key["fingerprint"]}]
    found = exact or [key for key in keys if key["title"] == name]
    if not found:
        raise NotFoundError("key", name)
    if len(found) > 1:
        raise ConflictError(
            messages.KEY_AMBIGUOUS.format(title=name), hint=messages.KEY_AMBIGUOUS_HINT
        )
    return found[0]
