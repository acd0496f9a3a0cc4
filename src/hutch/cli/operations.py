"""`hutch operation`: work in progress, and what became of it."""

from typing import Annotated

import typer

from hutch.cli import messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Cell, Terminal, state
from hutch.cli.waiting import finish
from hutch.client.answers import Operation

OperationId = Annotated[
    str, typer.Argument(metavar="ID", help=messages.OPERATION_ID, show_default=False)
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("list", list_all), ("show", show), ("wait", wait), ("retry", retry)):
        group.command(name, help=messages.HELP[f"operation {name}"])(command)
    app.add_typer(
        group,
        name="operation",
        help=messages.HELP["operation"],
        rich_help_panel=messages.PANEL_INSTANCES,
    )


def list_all(
    everyone: Annotated[bool, typer.Option("--all", "-a", help=messages.EVERYONES)] = False,
    live: Annotated[bool, typer.Option("--live", help=messages.ONLY_LIVE)] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help=messages.AT_MOST)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_operations(everyone=everyone, live=live, limit=limit)
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_OPERATION)
    else:
        terminal.table(messages.OF_OPERATIONS, [_row(operation) for operation in found])


def _row(operation: Operation) -> list[Cell]:
    return [
        operation["id"],
        operation["kind"],
        state(operation["state"]),
        f"{int(operation['progress'] * 100)} %",
        operation["created_by"],
        wording.moment(operation["created_at"]),
        operation["error"]["message"] if operation["error"] else operation["message"],
    ]


def show(operation: OperationId, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.show_operation(operation)
    if as_json:
        terminal.answer(found)
        return
    pairs: list[tuple[str, Cell]] = [
        ("id", found["id"]),
        ("kind", found["kind"]),
        ("target", f"{found['target']['kind']} {found['target']['id']}"),
        ("state", state(found["state"])),
        ("step", found["step"] or "-"),
        ("done", f"{int(found['progress'] * 100)} %"),
        ("message", found["message"] or "-"),
        ("attempts", str(found["attempts"])),
        ("asked by", found["created_by"]),
        ("began", wording.moment_utc(found["created_at"])),
    ]
    if found["finished_at"]:
        pairs.append(("ended", wording.moment_utc(found["finished_at"])))
    if found["error"]:
        pairs += [("error", found["error"]["message"]), ("hint", found["error"]["hint"] or "-")]
    terminal.fields(pairs)


def wait(operation: OperationId, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.show_operation(operation)
        ended = finish(terminal, client, found, found["kind"])
    if as_json:
        terminal.answer(ended)
    else:
        terminal.say(messages.OPERATION_DONE.format(id=ended["id"]), "green")


def retry(operation: OperationId, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.retry_operation(operation)
    if as_json:
        terminal.answer(found)
    else:
        terminal.say(messages.OPERATION_RETRIED.format(id=found["id"]))
