"""`hutch ssh-config`: what makes `ssh box` work, printed or put into place."""

from pathlib import Path
from typing import Annotated

import typer

from hutch.cli import exits, messages, remote, ssh_files
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal
from hutch.client.answers import SshConfig

_END = "END-OF-HUTCH"


def add_to(app: typer.Typer) -> None:
    name = "ssh-config"
    app.command(name, help=messages.HELP[name], rich_help_panel=messages.PANEL_ACCOUNT)(show)


def show(
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="NAME", help=messages.GATEWAY_ALIAS)
    ] = None,
    install: Annotated[bool, typer.Option("--install", help=messages.SSH_INSTALL)] = False,
    known_hosts: Annotated[bool, typer.Option("--known-hosts", help=messages.SSH_HOSTS)] = False,
    script: Annotated[bool, typer.Option("--script", help=messages.SSH_SCRIPT)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if install + known_hosts + script > 1:
        raise exits.UsageError(messages.ONE_WAY)
    if install and (place := remote.gateway()) is not None:
        host, _, port = place.rpartition(":")
        command = messages.SSH_SCRIPT_COMMAND.format(port=port, host=host)
        raise exits.UsageError(messages.NO_FILES_HERE, hint=command)
    with connect() as client:
        made = client.ssh_config(alias)
    if install:
        _tell(terminal, made, ssh_files.install(Path.home(), made["config"], made["known_hosts"]))
    elif as_json:
        terminal.answer(made)
    else:
        text = _script(made) if script else made["known_hosts" if known_hosts else "config"]
        terminal.say(text.rstrip("\n"))


def _tell(terminal: Terminal, made: SshConfig, done: ssh_files.Installed) -> None:
    if terminal.as_json:
        terminal.answer(
            {
                "config": str(done.config),
                "backup": None if done.backup is None else str(done.backup),
            }
        )
        return
    terminal.say(messages.SSH_INSTALLED.format(config=done.config), "green")
    if done.backup is not None:
        terminal.say(messages.SSH_BACKUP.format(backup=done.backup))
    terminal.say(messages.SSH_TRY.format(alias=made["alias"]))


def _script(made: SshConfig) -> str:
    """The same as a program for a shell, for who has nothing but ssh.

    What is in the texts are names, numbers and keys, and no shell reads them: the end of each is a
    word that none of them has.
    """
    return messages.SSH_INSTALL_SCRIPT.format(
        end=_END,
        config=made["config"],
        known_hosts=made["known_hosts"],
        include=ssh_files.INCLUDE,
        backup=ssh_files.BACKUP,
        alias=made["alias"],
    )
