"""`hutch app`: what one may open in a browser."""

import typer

from hutch.cli import messages
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    # With a callback a group of one command stays a group.
    group.callback()(_no_options)
    group.command("list", help=messages.HELP["app list"])(list_all)
    app.add_typer(
        group, name="app", help=messages.HELP["app"], rich_help_panel=messages.PANEL_INSTANCES
    )


def _no_options() -> None:
    return None


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_apps()
        address = client.url
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_APP)
    else:
        terminal.table(
            messages.OF_APPS,
            [
                [
                    f"{each['owner']}/{each['instance']}",
                    each["name"],
                    whole_url(address, each["url"]),
                ]
                for each in found
            ],
        )


def whole_url(address: str, url: str) -> str:
    """Where an app is, as one can paste it into a browser."""
    return f"{address}{url}" if url.startswith("/") else url
