"""`hutch share` and `hutch unshare`: let a colleague into an instance."""

from typing import Annotated

import typer

from hutch.cli import messages, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.options import InstanceName, Json
from hutch.cli.terminal import Terminal

Person = Annotated[
    str, typer.Argument(metavar="PERSON", help=messages.WITH_WHOM, show_default=False)
]


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_INSTANCES
    for name, command in (("share", share), ("unshare", unshare)):
        app.command(name, help=messages.HELP[name], rich_help_panel=panel)(command)


def share(
    name: InstanceName,
    person: Person,
    read_only_view: Annotated[
        bool, typer.Option("--read-only-view", help=messages.ONLY_LOOK)
    ] = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help=messages.SHARED_UNTIL)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        made = client.share_instance(
            resolve(client, name), person, read_only_view=read_only_view, until=until
        )
    if as_json:
        terminal.answer(made)
        return
    text = messages.SHARED_TO_LOOK if made["read_only_view"] else messages.SHARED
    terminal.say(text.format(name=name, person=person, until=wording.until(made["until"])), "green")


def unshare(name: InstanceName, person: Person, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        client.unshare_instance(resolve(client, name), person)
    terminal.note(messages.UNSHARED.format(name=name, person=person))
