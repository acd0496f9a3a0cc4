"""`hutch notice`: what a person was told about their GPUs."""

from typing import Annotated

import typer

from hutch.cli import messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Cell, Styled, Terminal
from hutch.cli.words import gpus as words
from hutch.client.answers import Notice


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("list", list_all), ("read", mark_read)):
        group.command(name, help=words.HELP[f"notice {name}"])(command)
    app.add_typer(
        group, name="notice", help=words.HELP["notice"], rich_help_panel=messages.PANEL_INSTANCES
    )


def list_all(
    unread: Annotated[bool, typer.Option("--unread", help=words.UNREAD)] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help=messages.AT_MOST)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_notices(unread=unread, limit=limit)
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(words.NO_NOTICE)
    else:
        terminal.table(words.OF_NOTICES, [_row(notice) for notice in found])


def _row(notice: Notice) -> list[Cell]:
    is_new = notice["read_at"] is None
    return [
        wording.moment(notice["created_at"]),
        Styled(words.NEW, "yellow") if is_new else words.READ,
        notice["text"],
    ]


def mark_read(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        marked = client.read_notices()
    if as_json:
        terminal.answer(marked)
    else:
        terminal.say(words.MARKED.format(count=marked["marked"]))
