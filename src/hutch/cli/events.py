"""`hutch events`: the audit, for administrators."""

from typing import Annotated

import typer

from hutch.cli import messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Cell, Terminal, state
from hutch.client.answers import Event


def add_to(app: typer.Typer) -> None:
    app.command("events", help=messages.HELP["events"], rich_help_panel=messages.PANEL_LAB)(
        list_all
    )


def list_all(
    by: Annotated[str | None, typer.Option("--by", metavar="USER", help=messages.EVENTS_BY)] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="TEXT", help=messages.EVENTS_ACTION)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="ID", help=messages.EVENTS_TARGET)
    ] = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help=messages.EVENTS_BEFORE)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help=messages.AT_MOST)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_events(limit=limit, before=before, by=by, action=action, target=target)
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_EVENT)
    else:
        terminal.table(messages.OF_EVENTS, [_row(event) for event in found])


def _row(event: Event) -> list[Cell]:
    target = event["target"]
    return [
        str(event["id"]),
        wording.moment(event["at"]),
        event["by"],
        event["action"],
        target["name"] or target["id"],
        state(event["result"]),
        event["address"] or "-",
    ]
