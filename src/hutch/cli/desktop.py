"""`hutch desktop`: the desktop of an instance, in a browser.

Its image shows it at a port of the instance's own loopback: as an app it is behind hutch's sign-in.
"""

import base64
from typing import Annotated

import typer

from hutch.cli import messages
from hutch.cli.apps import whole_url
from hutch.cli.connection import connect, resolve
from hutch.cli.options import InstanceName, Json
from hutch.cli.terminal import Terminal
from hutch.cli.waiting import finish
from hutch.client.answers import Port
from hutch.client.client import Client
from hutch.errors import NotFoundError, WrongStateError

PORT, VNC = 6080, 5900
VNC_LASTS = "8h"
"""How long the port for a viewer is kept."""
_SOCKET = "hutch-desktop.socket"


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_INSTANCES
    app.command("desktop", help=messages.HELP["desktop"], rich_help_panel=panel)(show)


def show(
    name: InstanceName,
    vnc: Annotated[bool, typer.Option("--vnc", help=messages.VNC)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        _check(client, ref, name)
        if vnc:
            _show_vnc(terminal, client, ref, name)
            return
        port = _port(terminal, client, ref, name, PORT)
        address = client.url
    url = whole_url(address, port["url"] or "")
    if as_json:
        terminal.answer({"url": url, "port": port})
    else:
        terminal.say(messages.DESKTOP_AT.format(url=url))


def _show_vnc(terminal: Terminal, client: Client, ref: str, name: str) -> None:
    port = _port(terminal, client, ref, name, VNC)
    ran = client.execute(ref, ["sh", "/usr/lib/hutch/desktop-vnc", "new"], root=True)
    if ran["code"] != 0:
        raise WrongStateError(messages.NO_VNC.format(name=name), hint=messages.NO_VNC_HINT)
    password = base64.b64decode(ran["stdout"]).decode().strip()
    place = f"{port['host']}:{port['host_port']}"
    if terminal.as_json:
        terminal.answer({"vnc": place, "password": password, "port": port})
    else:
        terminal.say(messages.VNC_AT.format(place=place, password=password))


def _check(client: Client, ref: str, name: str) -> None:
    state = client.show_instance(ref)["state"]
    if state != "running":
        raise WrongStateError(
            messages.NOT_RUNNING.format(name=name, state=state),
            hint=messages.START_FIRST.format(name=name),
        )
    if client.execute(ref, ["systemctl", "--quiet", "is-active", _SOCKET])["code"] != 0:
        raise NotFoundError("desktop", name, hint=messages.NO_DESKTOP.format(name=name))


def _port(terminal: Terminal, client: Client, ref: str, name: str, number: int) -> Port:
    """The port at which it is shown, added when this is asked for the first time."""
    for port in client.list_ports(ref):
        if (port["port"], port["protocol"]) == (number, "tcp"):
            return port
    if number == VNC:
        begun = client.add_port(ref, VNC, name="vnc", span=VNC_LASTS)
    else:
        begun = client.add_port(ref, PORT, name="desktop", reach="web")
    finish(terminal, client, begun["operation"], messages.ADDING_DESKTOP.format(name=name))
    return {**begun["port"], "state": "open"}
