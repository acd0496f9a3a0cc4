"""`hutch overview`: what `ssh lab` answers to somebody who says nothing more."""

import typer

from hutch.cli import messages, remote, wording
from hutch.cli.connection import connect
from hutch.cli.gpus import lab_line, lease_line
from hutch.cli.instances import tell_all
from hutch.cli.options import Json
from hutch.cli.terminal import Cell, Terminal


def add_to(app: typer.Typer) -> None:
    name = "overview"
    app.command(name, help=messages.HELP[name], rich_help_panel=messages.PANEL_ACCOUNT)(show)


def show(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        me = client.me()
        machines = client.list_instances()
        leases = client.list_leases()
        cards = client.list_accelerators()
        waiting = client.list_queue() if cards else []
    if as_json:
        terminal.answer(
            {
                "me": me,
                "instances": machines,
                "leases": leases,
                "accelerators": cards,
                "queue": waiting,
            }
        )
        return
    terminal.say(messages.YOU_ARE.format(name=me["name"], role=me["role"]), "bold")
    held, quota = me["held"], me["quota"]
    terminal.say(
        messages.YOU_HOLD.format(
            instances=held["instances"],
            most=quota["instances"],
            cpus=wording.used_of(held["cpus"], quota["cpus"], is_size=False),
            memory=wording.used_of(held["memory"], quota["memory"], is_size=True),
            gpus=wording.used_of(held["accelerators"], quota["accelerators"], is_size=False),
        )
    )
    terminal.say("")
    if machines:
        tell_all(terminal, machines, with_owner=False)
    else:
        terminal.say(messages.NO_INSTANCE)
    if cards or leases:
        terminal.say("")
    if cards:
        terminal.say(lab_line(cards, waiting))
    for lease in reversed(leases):
        terminal.say(lease_line(lease))
    _tell_next(terminal)


def _tell_next(terminal: Terminal) -> None:
    head = "hutch" if remote.gateway() is None else "ssh lab"
    rows: list[tuple[str, Cell]] = [
        (f"  {head} {command}", what) for command, what in messages.NEXT
    ]
    terminal.say("")
    terminal.say(messages.WHAT_NEXT)
    terminal.fields(rows)
