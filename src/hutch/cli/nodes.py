"""`hutch node`: the servers that run instances."""

from enum import StrEnum
from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Idle, IdleBelow, IdleWarning, Json, idle_wish
from hutch.cli.terminal import Cell, Styled, Terminal, state
from hutch.client.answers import Agent, Node

NodeName = Annotated[
    str, typer.Argument(metavar="NODE", help=messages.NODE_NAME, show_default=False)
]


class EngineName(StrEnum):
    INCUS = "incus"
    SIMULATED = "simulated"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("list", list_all),
        ("add", add),
        ("set", configure),
        ("cordon", cordon),
        ("uncordon", uncordon),
        ("token", new_agent_token),
    ):
        group.command(name, help=messages.HELP[f"node {name}"])(command)
    app.add_typer(
        group, name="node", help=messages.HELP["node"], rich_help_panel=messages.PANEL_LAB
    )


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_nodes()
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_NODE)
    else:
        terminal.table(messages.OF_NODES, [_row(node) for node in found])


def _row(node: Node) -> list[Cell]:
    promised = node["promised"]
    return [
        node["name"],
        state(messages.UNREACHABLE if node["unreachable_since"] else node["state"]),
        node["engine"],
        node["address"],
        messages.PROMISED_OF.format(given=promised["cpus"], has=node["cpus"]),
        messages.PROMISED_OF.format(
            given=wording.size(promised["memory"]), has=wording.size(node["memory"])
        ),
        messages.PROMISED_OF.format(
            given=wording.size(promised["disk"]), has=wording.size(node["disk"])
        ),
        wording.size(node["disk_used"]),
        node["version"],
        _agent(node["agent"]),
    ]


def _agent(agent: Agent | None) -> Cell:
    if agent is None:
        return Styled(messages.NO_AGENT, "dim")
    if agent["silent_since"] is None:
        return messages.AGENT_ANSWERS
    at = wording.moment(agent["silent_since"])
    return Styled(messages.AGENT_SILENT.format(at=at), "red")


def add(
    name: NodeName,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help=messages.NODE_URL, show_default=False)
    ],
    address: Annotated[
        str,
        typer.Option("--address", metavar="IP", help=messages.NODE_ADDRESS, show_default=False),
    ],
    subnet: Annotated[
        str,
        typer.Option("--subnet", metavar="CIDR", help=messages.NODE_SUBNET, show_default=False),
    ],
    engine: Annotated[
        EngineName, typer.Option("--engine", metavar="incus|simulated", help=messages.NODE_ENGINE)
    ] = (EngineName.INCUS),
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help=messages.NODE_PROJECT)
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help=messages.NODE_POOL)
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="NAME", help=messages.NODE_NETWORK)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        node = client.add_node(
            name,
            engine=engine.value,
            url=url,
            address=address,
            subnet=subnet,
            project=project,
            pool=pool,
            network=network,
        )
    _tell(terminal, node, messages.NODE_ADDED)


def configure(
    name: NodeName,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="IP", help=messages.NODE_ADDRESS, show_default=False),
    ] = None,
    idle: Idle = None,
    idle_below: IdleBelow = None,
    idle_warning: IdleWarning = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    has_policy = any(value is not None for value in (idle, idle_below, idle_warning))
    if address is None and not has_policy:
        options = "--address, --idle, --idle-below, --idle-warning"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    wish = idle_wish(idle, idle_below, idle_warning)
    with connect() as client:
        node = None if address is None else client.set_node_address(name, address)
        if has_policy:
            node = client.set_node_idle(name, wish)
    if node is not None:
        _tell(terminal, node, messages.NODE_CHANGED if has_policy else messages.NODE_MOVED)


def cordon(name: NodeName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        _tell(terminal, client.cordon_node(name), messages.NODE_CORDONED)


def uncordon(name: NodeName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        _tell(terminal, client.uncordon_node(name), messages.NODE_UNCORDONED)


def new_agent_token(name: NodeName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        made = client.new_agent_token(name)
    if as_json:
        terminal.answer(made)
        return
    terminal.note(messages.AGENT_TOKEN_CREATED.format(name=name))
    # Alone on stdout, so that it can be sent to where it is kept.
    terminal.say(made["token"])


def _tell(terminal: Terminal, node: Node, text: str) -> None:
    if terminal.as_json:
        terminal.answer(node)
    else:
        terminal.say(text.format(name=node["name"], address=node["address"]))
