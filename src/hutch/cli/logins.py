"""`hutch ssh` and `hutch exec`: into an instance.

`ssh` becomes the OpenSSH client, with the port, the user, and the one host key that the instance
has: nobody is asked whether a fingerprint looks right, and nobody in between can take its place.
"""

import base64
import os
import re
import shlex
import sys
from typing import Annotated

import typer

from hutch.cli import exits, messages
from hutch.cli.connection import connect, resolve
from hutch.cli.options import Command, InstanceName, Json
from hutch.cli.terminal import Terminal
from hutch.client.answers import Instance
from hutch.client.config import config_folder, write_private
from hutch.domain.sshkeys import parse_public_key
from hutch.errors import (
    ConfigurationError,
    ForbiddenError,
    HutchError,
    InternalError,
    UnavailableError,
    WrongStateError,
)

_ID = re.compile(r"[0-9a-zA-Z]{1,64}", re.ASCII)
_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z.:-]{0,252})", re.ASCII)
_USER = re.compile(r"[a-z]([a-z0-9-]{0,31})", re.ASCII)


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_INSTANCES
    app.command("ssh", help=messages.HELP["ssh"], rich_help_panel=panel)(ssh)
    app.command("exec", help=messages.HELP["exec"], rich_help_panel=panel)(execute)


def ssh(name: InstanceName, command: Command = None) -> None:
    with connect() as client:
        instance = client.show_instance(resolve(client, name))
    share = instance["share"]
    if share is not None and share["read_only_view"]:
        raise ForbiddenError(
            messages.SHOWN_ONLY.format(name=name),
            hint=messages.ASK_OWNER.format(owner=instance["owner"]),
        )
    if instance["state"] != "running":
        raise WrongStateError(
            messages.NOT_RUNNING.format(name=name, state=instance["state"]),
            hint=_until_running(instance["state"]).format(name=name),
        )
    argv = ssh_command(instance, command or [])
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argument vector, and no shell: so it is meant
    except OSError as error:
        hint = messages.INSTALL_SSH
        raise UnavailableError(f"{messages.NO_SSH} ({error.strerror})", hint=hint) from None


def _until_running(state: str) -> str:
    if state == "stopped":
        return messages.START_FIRST
    return messages.FAILED_SO_DELETE if state == "failed" else messages.WAIT_FOR_IT


def ssh_command(instance: Instance, command: list[str]) -> list[str]:
    """The argument vector of ssh for an instance, its host key pinned in a file of its own.

    One argument is a command line for the person's shell inside, as with ssh itself. Of several
    each arrives as it was typed: ssh alone would join them with spaces and let the shell inside
    take them apart again.
    """
    words = command if len(command) < 2 else [shlex.join(command)]
    return ["ssh", *_options(instance), "--", _destination(instance), *words]


def printable_command(instance: Instance) -> str:
    """The same to be pasted into a shell."""
    return shlex.join(["ssh", *_options(instance), _destination(instance)])


def _destination(instance: Instance) -> str:
    # ssh reads a configuration file of the person's, which may pass these on to programs: only
    # what a host and an account can be called gets there.
    host, user = instance["ssh"]["host"], instance["ssh"]["user"]
    if not _HOST.fullmatch(host):
        raise _odd(instance, "host")
    if not _USER.fullmatch(user):
        raise _odd(instance, "user")
    return f"{user}@{host}"


def _options(instance: Instance) -> list[str]:
    port = instance["ssh"]["port"]
    if not 0 < int(port) < 65536:
        raise _odd(instance, "port")
    return [
        "-p", str(int(port)),
        "-o", f"UserKnownHostsFile={_known_hosts(instance)}",
        "-o", f"HostKeyAlias={_alias(instance)}",
        "-o", "StrictHostKeyChecking=yes",
    ]  # fmt: skip


def _alias(instance: Instance) -> str:
    if not _ID.fullmatch(instance["id"]):
        raise _odd(instance, "id")
    return f"hutch-{instance['id']}"


def _known_hosts(instance: Instance) -> str:
    """A file with the instance's host key alone: two logins at once do not share one."""
    alias = _alias(instance)
    try:
        key = parse_public_key(instance["ssh"]["host_key"]).public
    except HutchError:
        raise _odd(instance, "host key") from None
    file = config_folder() / "hosts" / instance["id"]
    path = str(file)
    if any(character in path for character in '"$\\\n'):
        raise ConfigurationError(
            messages.ODD_FOLDER.format(folder=file.parent), hint=messages.OTHER_FOLDER
        )
    line = f"{alias} {key}\n"
    if not file.exists() or file.read_text(encoding="utf-8") != line:
        write_private(file, line)
    # ssh takes the value apart at spaces and replaces what follows a percent sign.
    path = path.replace("%", "%%")
    return f'"{path}"' if " " in path else path


def _odd(instance: Instance, what: str) -> InternalError:
    return InternalError(
        messages.ODD_SSH.format(name=instance["name"], what=what), hint=messages.ASK_ADMINISTRATOR
    )


def execute(
    name: InstanceName,
    command: Command = None,
    root: Annotated[bool, typer.Option("--root", help=messages.AS_ROOT)] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help=messages.TIMEOUT)
    ] = 60.0,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if not command:
        raise exits.UsageError(messages.NO_COMMAND)
    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    with connect() as client:
        ran = client.execute(
            resolve(client, name), command, stdin=stdin, timeout=timeout, root=root
        )
    if as_json:
        terminal.answer(ran)
    else:
        for stream, content in ((sys.stdout, ran["stdout"]), (sys.stderr, ran["stderr"])):
            stream.flush()
            stream.buffer.write(base64.b64decode(content))
            stream.buffer.flush()
        if ran["truncated"]:
            terminal.note(messages.TRUNCATED)
    raise typer.Exit(ran["code"] if 0 <= ran["code"] < 256 else exits.FAILED)
