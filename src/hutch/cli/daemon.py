"""`hutch server`, `up`, `down` and `config`: the commands that run hutch itself.

The only module of the command line that knows the server. It is imported for these commands
alone, and the server's modules when one of them runs.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from hutch.cli import messages
from hutch.cli.terminal import Terminal

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=messages.CONFIG_FILE)
]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help=messages.DATA)]


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_SERVER
    for name, command in (("server", server), ("up", up), ("down", down)):
        app.command(name, help=messages.HELP[name], rich_help_panel=panel)(command)
    group = typer.Typer()
    for name, command in (("show", show_config), ("check", check_config)):
        group.command(name, help=messages.HELP[f"config {name}"])(command)
    app.add_typer(group, name="config", help=messages.HELP["config"], rich_help_panel=panel)


def server(
    config: ConfigFile = None,
    data: Data = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help=messages.LISTEN_HOST)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help=messages.LISTEN_PORT)
    ] = None,
) -> None:
    from hutch.api.serve import serve
    from hutch.settings import load_settings

    serve(load_settings(config, data=_folder(data), listen_host=host, listen_port=port))


def up(data: Data = None) -> None:
    from hutch import supervisor

    supervisor.up(_folder(data), Terminal().note)


def down(data: Data = None) -> None:
    from hutch import supervisor

    supervisor.down(_folder(data), Terminal().note)


def show_config(config: ConfigFile = None, data: Data = None) -> None:
    from hutch.settings import as_toml, load_settings

    Terminal().say(as_toml(load_settings(config, data=_folder(data))))


def check_config(config: ConfigFile = None, data: Data = None) -> None:
    from hutch.settings import load_settings

    load_settings(config, data=_folder(data))
    Terminal().note(messages.CONFIG_VALID)


def _folder(given: Path | None) -> Path | None:
    """The data folder: `given`, else the person's own if hutch was set up for them alone."""
    if given is not None or "HUTCH_DATA" in os.environ or os.geteuid() == 0:
        return given
    from hutch.setup.options import default_data

    own = default_data(False, os.environ)
    return own if own.exists() else None
