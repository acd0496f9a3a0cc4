"""`hutch server`, `gateway`, `agent`, `up`, `down`, `config`: the commands that run hutch itself.

The only module of the command line that knows the server. It is imported for these commands
alone, and the server's modules when one of them runs.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from hutch.cli import messages
from hutch.cli.terminal import Terminal
from hutch.client.config import DEFAULT_URL

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=messages.CONFIG_FILE)
]
AGENT_INTERVAL = 2.0
"""Seconds between two looks at the accelerators."""
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help=messages.DATA)]


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_SERVER
    for name, command in (
        ("server", server),
        ("gateway", gateway),
        ("agent", agent),
        ("up", up),
        ("down", down),
    ):
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


def gateway(
    config: ConfigFile = None,
    data: Data = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help=messages.GATEWAY_HOST)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help=messages.LISTEN_PORT)
    ] = None,
) -> None:
    from hutch.gateway.serve import serve
    from hutch.settings import load_settings

    serve(load_settings(config, data=_folder(data), gateway_host=host, gateway_port=port))


def agent(
    server: Annotated[
        str,
        typer.Option(
            "--server", metavar="URL", envvar="HUTCH_AGENT_SERVER", help=messages.AGENT_SERVER
        ),
    ] = DEFAULT_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            envvar="HUTCH_AGENT_TOKEN_FILE",
            help=messages.AGENT_TOKEN_FILE,
        ),
    ] = None,
    simulated_gpus: Annotated[
        int,
        typer.Option(
            "--simulated-gpus",
            metavar="N",
            envvar="HUTCH_AGENT_SIMULATED_GPUS",
            help=messages.SIMULATED_GPUS,
        ),
    ] = 0,
    simulated_model: Annotated[
        str,
        typer.Option(
            "--simulated-model",
            metavar="MODEL",
            envvar="HUTCH_AGENT_SIMULATED_MODEL",
            help=messages.SIMULATED_MODEL,
        ),
    ] = "Simulated GPU",
    simulated_memory: Annotated[
        str,
        typer.Option(
            "--simulated-memory",
            metavar="SIZE",
            envvar="HUTCH_AGENT_SIMULATED_MEMORY",
            help=messages.SIMULATED_MEMORY,
        ),
    ] = "24GiB",
    simulated_steering: Annotated[
        Path | None,
        typer.Option(
            "--simulated-steering",
            metavar="FILE",
            envvar="HUTCH_AGENT_SIMULATED_STEERING",
            help=messages.SIMULATED_STEERING,
        ),
    ] = None,
    simulated_folder: Annotated[
        Path,
        typer.Option(
            "--simulated-folder",
            metavar="DIR",
            envvar="HUTCH_AGENT_SIMULATED_FOLDER",
            help=messages.SIMULATED_FOLDER,
        ),
    ] = Path("/dev/hutch-gpu"),
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            metavar="SECONDS",
            envvar="HUTCH_AGENT_INTERVAL",
            min=0.1,
            max=5,
            help=messages.AGENT_INTERVAL,
        ),
    ] = AGENT_INTERVAL,
    data: Data = None,
) -> None:
    from hutch.agent.run import run
    from hutch.agent.simulated import simulate
    from hutch.logs import configure_logs
    from hutch.settings import load_settings

    settings = load_settings(data=_folder(data))
    configure_logs(settings.log_level, settings.log_format)
    simulated = simulate(
        simulated_gpus,
        model=simulated_model,
        memory=simulated_memory,
        steering=simulated_steering or settings.data / "simulated-gpus.json",
        folder=simulated_folder,
    )
    run(server, token_file or settings.data / "agent.token", simulated, interval=interval)


def up(data: Data = None) -> None:
    from hutch import supervisor

    supervisor.up(_folder(data), Terminal().note)


def down(data: Data = None) -> None:
    from hutch import supervisor

    supervisor.down(_folder(data), Terminal().note)


def show_config(config: ConfigFile = None, data: Data = None) -> None:
    from hutch.settings import load_settings
    from hutch.settings_text import as_toml

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
