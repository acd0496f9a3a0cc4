"""`hutch token`: what programs sign in with."""

from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal

USUAL_DAYS = 90


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("create", create), ("list", list_all), ("revoke", revoke)):
        group.command(name, help=messages.HELP[f"token {name}"])(command)
    app.add_typer(
        group, name="token", help=messages.HELP["token"], rich_help_panel=messages.PANEL_ACCOUNT
    )


def create(
    title: Annotated[
        str, typer.Argument(metavar="TITLE", help=messages.TOKEN_TITLE, show_default=False)
    ],
    read: Annotated[bool, typer.Option("--read", help=messages.READ_ONLY)] = False,
    days: Annotated[
        int | None,
        typer.Option("--days", metavar="N", help=messages.DAYS.format(days=USUAL_DAYS)),
    ] = None,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help=messages.WITHOUT_END)
    ] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if never_expires and days is not None:
        raise exits.UsageError(messages.DAYS_OR_NEVER)
    valid = None if never_expires else USUAL_DAYS if days is None else days
    with connect() as client:
        made = client.create_token(title, scope="read" if read else "full", days=valid)
    if as_json:
        terminal.answer(made)
        return
    until = made["expires_at"]
    ends = messages.EXPIRES.format(at=wording.moment_utc(until)) if until else None
    terminal.note(
        messages.TOKEN_CREATED.format(
            title=made["title"], scope=made["scope"], until=ends or messages.NEVER_EXPIRES
        )
    )
    # Alone on stdout, so that it can be sent to where it is kept.
    terminal.say(made["token"])


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_tokens()
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_TOKENS)
    else:
        terminal.table(
            messages.OF_TOKENS,
            [
                [
                    token["id"],
                    token["title"],
                    token["scope"],
                    wording.moment(token["created_at"]),
                    wording.moment(token["expires_at"]),
                    wording.moment(token["last_used_at"]),
                ]
                for token in found
            ],
        )


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help=messages.TOKEN_ID, show_default=False)],
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        client.revoke_token(token)
    terminal.note(messages.TOKEN_REVOKED)
