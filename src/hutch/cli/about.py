"""`hutch version`, and the reference of the command line itself."""

import typer

from hutch import __version__
from hutch.cli import messages
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_SERVER
    app.command("version", help=messages.HELP["version"], rich_help_panel=panel)(version)
    app.command("reference", help=messages.HELP["reference"], hidden=True)(reference)


def version(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    if as_json:
        terminal.answer({"version": __version__})
    else:
        terminal.say(f"hutch {__version__}")


def reference() -> None:
    from hutch.cli.reference import as_markdown

    typer.echo(as_markdown(), nl=False)
