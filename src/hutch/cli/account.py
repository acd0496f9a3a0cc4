"""`hutch login`, `logout`, `whoami` and `password`: oneself."""

import sys
from getpass import getpass
from typing import Annotated
from urllib.parse import urlsplit

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json, PasswordStdin
from hutch.cli.terminal import Terminal
from hutch.client.client import Client
from hutch.client.config import config_path, forget_login, load_login, save_login
from hutch.errors import InvalidInputError, NotAuthenticatedError, UnavailableError

_LONGEST_PASSWORD = 4096


def add_to(app: typer.Typer) -> None:
    for name, command in (
        ("login", login),
        ("logout", logout),
        ("whoami", whoami),
        ("password", password),
    ):
        app.command(name, help=messages.HELP[name], rich_help_panel=messages.PANEL_ACCOUNT)(command)


def login(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=messages.YOUR_NAME, show_default=False)
    ] = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help=messages.URL)] = None,
    password_stdin: PasswordStdin = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    path = config_path()
    url = (url or load_login(path).url).rstrip("/")
    with Client(url) as client:
        if _is_open_to_listeners(url):
            terminal.note(messages.NOT_ENCRYPTED.format(url=url))
        if name is None:
            name = _ask_name()
        secret = read_password(
            messages.ASK_PASSWORD.format(name=name, url=url), "hutch login NAME", password_stdin
        )
        signed_in = client.login(name, secret)
    save_login(path, url, signed_in["token"])
    if as_json:
        # The token stays in the file: what is printed ends up in logs.
        shown = {key: value for key, value in signed_in.items() if key != "token"}
        terminal.answer({"url": url, **shown})
        return
    until = signed_in["expires_at"]
    terminal.say(
        messages.SIGNED_IN.format(
            url=url,
            name=signed_in["user"]["name"],
            role=signed_in["user"]["role"],
            until=wording.moment_utc(until) if until else messages.FOR_EVER,
        )
    )
    if load_login(path).token != signed_in["token"]:
        terminal.note(messages.TOKEN_FROM_ENVIRONMENT)


def _is_open_to_listeners(url: str) -> bool:
    """Whether a password would travel unencrypted over a network."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_here = host in {"localhost", "::1"} or host.startswith("127.")
    return parts.scheme == "http" and not is_here


def _ask_name() -> str:
    if not sys.stdin.isatty():
        raise exits.UsageError(
            messages.NO_TERMINAL_FOR_NAME, hint=messages.USAGE_HINT.format(command="hutch login")
        )
    sys.stderr.write(messages.ASK_NAME)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def read_password(question: str, command: str, from_stdin: bool) -> str:
    """A password from standard input, or asked for without showing it.

    It is never an argument: those are in the shell's history and in every process list. Raises
    UsageError when there is nobody to ask, InvalidInputError for an empty one.
    """
    if from_stdin:
        secret = sys.stdin.readline(_LONGEST_PASSWORD).rstrip("\r\n")
        if not secret:
            raise InvalidInputError(messages.NO_PASSWORD)
        return secret
    if not sys.stdin.isatty():
        raise exits.UsageError(
            messages.NO_TERMINAL_FOR_PASSWORD,
            hint=messages.USE_PASSWORD_STDIN.format(command=command),
        )
    return getpass(question)


def logout(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    path = config_path()
    signed_in = load_login(path)
    if signed_in.token is None:
        terminal.note(messages.NOT_SIGNED_IN)
        return
    try:
        with Client(signed_in.url, signed_in.token) as client:
            client.logout()
    except NotAuthenticatedError:
        # It had expired or was revoked: nothing is left to end.
        pass
    except UnavailableError as error:
        # Forgotten here all the same; the server ends it when it expires.
        terminal.note(error.message)
        terminal.note(messages.TOKEN_STILL_VALID)
    forget_login(path, signed_in.url)
    terminal.note(messages.SIGNED_OUT.format(url=signed_in.url))


def whoami(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        me = client.me()
        url = client.url
    if as_json:
        terminal.answer(me)
        return
    terminal.fields([("name", me["name"]), ("role", me["role"]), ("server", url)])
    terminal.say("")
    terminal.table(messages.OF_QUOTA, wording.quota_rows(me["held"], me["quota"]))


def password(
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help=messages.TWO_PASSWORDS_STDIN)
    ] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    command = "hutch password"
    with connect() as client:
        old = read_password(messages.ASK_OLD_PASSWORD, command, password_stdin)
        new = read_password(messages.ASK_NEW_PASSWORD, command, password_stdin)
        if not password_stdin:
            again = read_password(messages.ASK_AGAIN, command, from_stdin=False)
            if again != new:
                raise InvalidInputError(messages.PASSWORDS_DIFFER, hint=messages.NOTHING_CHANGED)
        client.change_password(old, new)
    terminal.note(messages.PASSWORD_CHANGED)
