"""`hutch port`: ports of the node that lead to an instance."""

from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.apps import whole_url
from hutch.cli.connection import connect, resolve
from hutch.cli.instances import complete
from hutch.cli.options import InstanceName, Json, NoWait
from hutch.cli.terminal import Cell, Terminal, state
from hutch.cli.waiting import finish
from hutch.client.answers import Port

Number = Annotated[
    int, typer.Argument(metavar="PORT", help=messages.PORT_NUMBER, show_default=False)
]
Which = Annotated[str, typer.Argument(metavar="PORT", help=messages.WHICH_PORT, show_default=False)]
Span = Annotated[str | None, typer.Option("--for", metavar="SPAN", help=messages.PORT_SPAN)]
OpenTo = Annotated[str | None, typer.Option("--open-to", metavar="WHOM", help=messages.OPEN_TO)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("add", add),
        ("list", list_all),
        ("set", configure),
        ("remove", remove),
    ):
        group.command(name, help=messages.HELP[f"port {name}"])(command)
    app.add_typer(
        group, name="port", help=messages.HELP["port"], rich_help_panel=messages.PANEL_INSTANCES
    )


def add(
    name: InstanceName,
    port: Number,
    host_port: Annotated[
        int | None, typer.Option("--host-port", metavar="N", help=messages.HOST_PORT)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="tcp|udp", help=messages.PROTOCOL)
    ] = None,
    called: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help=messages.PORT_NAME)
    ] = None,
    span: Span = None,
    local: Annotated[bool, typer.Option("--local", help=messages.LOCAL_PORT)] = False,
    web_only: Annotated[bool, typer.Option("--web-only", help=messages.WEB_ONLY_PORT)] = False,
    open_to: OpenTo = None,
    keep_path: Annotated[bool, typer.Option("--keep-path", help=messages.KEEP_PATH)] = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if local and web_only:
        raise exits.UsageError(messages.ONE_REACH)
    with connect() as client:
        begun = client.add_port(
            resolve(client, name),
            port,
            host_port=host_port,
            protocol=protocol,
            name=called,
            span=span,
            reach="node" if local else "web" if web_only else None,
            open_to=_people(open_to),
            keep_path=keep_path,
        )
        address = client.url
        if no_wait and as_json:
            terminal.answer(begun)
        elif not no_wait:
            title = messages.ADDING_PORT.format(name=name, port=port)
            begun["operation"] = finish(terminal, client, begun["operation"], title)
            begun["port"]["state"] = "open"
            if as_json:
                terminal.answer(begun)
    if not as_json:
        _tell(terminal, name, begun["port"], address)


def _people(open_to: str | None) -> list[str] | None:
    return None if open_to is None else [each for each in open_to.split(",") if each]


def _tell(terminal: Terminal, name: str, port: Port, address: str) -> None:
    text = messages.PORT_ADDED[port["reach"]]
    until = wording.until(port["until"])
    shown = text.format(name=name, place=_place(port), port=port["port"], until=until)
    terminal.say(shown, "green")
    if port["url"] is not None:
        terminal.say(messages.IN_BROWSER.format(url=whole_url(address, port["url"])))


def _place(port: Port) -> str:
    return "-" if port["host_port"] is None else f"{port['host']}:{port['host_port']}"


def list_all(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help=messages.PORTS_OF, show_default=False),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", "-a", help=messages.EVERYONES)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        if name is None:
            found = client.list_all_ports(everyone=everyone)
        else:
            found = client.list_ports(resolve(client, name))
        owners = {port["owner"] for port in found}
        me = client.me()["name"] if owners and not as_json else ""
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_PORT)
    else:
        terminal.table(messages.OF_PORTS, [_row(port, me) for port in found])


def _row(port: Port, me: str) -> list[Cell]:
    whose = "" if port["owner"] == me else f"{port['owner']}/"
    return [
        f"{whose}{port['instance']}",
        port["name"],
        f"{port['port']}/{port['protocol']}",
        _place(port),
        state(port["state"]),
        open_to(port),
        wording.moment(port["until"]),
    ]


def open_to(port: Port) -> str:
    """Who may open it in a browser, besides owner and guests."""
    return messages.OPEN_TO_WHOM[port["open_to"]].format(people=", ".join(port["people"]))


def configure(
    name: InstanceName,
    port: Which,
    span: Span = None,
    open_to: OpenTo = None,
    keep_path: Annotated[
        bool | None, typer.Option("--keep-path/--cut-path", help=messages.KEEP_PATH)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if span is None and open_to is None and keep_path is None:
        options = "--for, --open-to, --keep-path, --cut-path"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    with connect() as client:
        changed = client.configure_port(
            resolve(client, name), port, span=span, open_to=_people(open_to), keep_path=keep_path
        )
    if as_json:
        terminal.answer(changed)
    else:
        terminal.say(messages.PORT_CHANGED.format(name=name, port=changed["port"]), "green")


def remove(name: InstanceName, port: Which, no_wait: NoWait = False, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        begun = client.remove_port(resolve(client, name), port)
        doing = messages.REMOVING_PORT.format(name=name, port=port)
        done = messages.PORT_REMOVED.format(name=name, port=port)
        complete(terminal, client, begun, doing, done, no_wait)
