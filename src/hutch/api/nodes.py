"""Nodes: the servers that run instances."""

import ipaddress
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Response
from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX, idleness
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Name, Text
from hutch.api.idleness import Idle, NewIdle
from hutch.domain.nodes import Capacity, EngineKind, NodeState
from hutch.domain.nodes import Node as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import ConfigurationError, InvalidInputError
from hutch.services import nodes

router = APIRouter(prefix=f"{PREFIX}/nodes", tags=["node"])
Writer = Annotated[Actor, allowed(Action.NODE_WRITE)]

SMALLEST_SUBNET = 28
"""Prefix length: a smaller network has no address left beside the reserved ones."""


class AgentToken(TypedDict):
    token: Annotated[str, Field(description="With which the node's agent signs in.")]


class Amounts(TypedDict):
    """Memory and disk in bytes."""

    cpus: int
    memory: int
    disk: int


class Agent(TypedDict):
    """What tells of a node's accelerators, and takes them back."""

    version: str
    seen_at: datetime
    silent_since: datetime | None


class Node(TypedDict):
    """A server; memory and disk in bytes."""

    name: str
    engine: EngineKind
    address: str
    state: NodeState
    version: str
    cpus: int
    memory: int
    disk: int
    disk_used: int
    promised: Annotated[Amounts, Field(description="What its instances may use at most in all.")]
    seen_at: datetime | None
    unreachable_since: datetime | None
    idle: Annotated[Idle | None, Field(description="null: as in the lab.")]
    agent: Annotated[Agent | None, Field(description="null: none has ever signed in.")]


def _address(text: str) -> str:
    """Ports are led on from a node's address by the kernel, which knows no names."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError("give an IPv4 address, such as 192.0.2.1") from None
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise ValueError("give the IPv4 address of one machine, such as 192.0.2.1")
    return str(address)


def _subnet(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        network = None
    if network is None or network.prefixlen > SMALLEST_SUBNET:
        raise ValueError(f"give an IPv4 network of at least a /{SMALLEST_SUBNET}: 10.180.0.0/20")
    return text


def _resource(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text, re.ASCII):
        raise ValueError("give 1 to 63 letters, digits and '._-'")
    return text


Resource = Annotated[
    str,
    AfterValidator(_resource),
    Field(json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}),
]


Address = Annotated[
    Text,
    AfterValidator(_address),
    Field(
        max_length=15,
        description="IPv4 address at which people reach it.",
        json_schema_extra={"format": "ipv4"},
    ),
]


class NodeAddress(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"address": "192.0.2.1"}]})
    address: Address


class NodeIdle(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"idle": {"window_minutes": 120}}]})
    idle: NewIdle | None = Field(description="null: as in the lab.")


class NewNode(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "node1",
                    "engine": "incus",
                    "url": "unix:///var/lib/incus/unix.socket",
                    "address": "192.0.2.1",
                    "subnet": "10.180.0.0/20",
                }
            ]
        }
    )
    name: Name
    engine: EngineKind = Field(strict=False)
    url: Text = Field(
        max_length=1024,
        description="unix:///path/to/socket or https://host:8443; simulated: file:///path.",
    )
    address: Address
    subnet: Annotated[Text, AfterValidator(_subnet)] = Field(
        max_length=43, description="IPv4 network of the instances' bridge."
    )
    project: Resource = "hutch"
    pool: Resource = "hutch"
    network: Resource = "hutchbr0"


def as_json(node: Entity, promised: Capacity) -> Node:
    return {
        "name": node.name,
        "engine": node.engine,
        "address": node.address,
        "state": node.state,
        "version": node.version,
        "cpus": node.capacity.cpus,
        "memory": node.capacity.memory,
        "disk": node.capacity.disk,
        "disk_used": node.disk_used,
        "promised": {
            "cpus": promised.cpus,
            "memory": promised.memory,
            "disk": promised.disk,
        },
        "seen_at": node.seen_at,
        "unreachable_since": node.unreachable_since,
        "idle": idleness.as_json(node.idle),
        "agent": _agent(node),
    }


def _agent(node: Entity) -> Agent | None:
    if node.agent_seen_at is None:
        return None
    return {
        "version": node.agent_version or "",
        "seen_at": node.agent_seen_at,
        "silent_since": node.agent_silent_since,
    }


def _check_url(body: NewNode, data: Path) -> None:
    """Refuse an address that the engine's kind cannot have.

    The simulated engine makes a file: an administrator of hutch need not be one of the machine,
    so it must lie in hutch's own folder.
    """
    if not _is_address(body.engine, body.url, data.resolve()):
        allowed_urls = (
            "unix:///path/to/socket or https://host:8443"
            if body.engine is EngineKind.INCUS
            else "file:// and a path in hutch's data folder"
        )
        raise InvalidInputError(
            f"url: this is no address of an engine of the kind {body.engine}.",
            hint=f"Give {allowed_urls}.",
            field="url",
        )


def _is_address(engine: EngineKind, url: str, data: Path) -> bool:
    try:
        parts = urlsplit(url)
        if engine is EngineKind.INCUS:
            local = parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")
            return local or (parts.scheme == "https" and bool(parts.hostname))
        path = Path(unquote(parts.path))
        inside = path.is_absolute() and data in path.resolve().parents
    except (ValueError, OSError, RuntimeError):
        return False
    return parts.scheme == "file" and not parts.netloc and inside


@router.get("", response_model=list[Node], summary="List nodes")
async def list_all(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.NODE_READ)]
) -> Response:
    found = await nodes.list_all(context, actor)
    return reply([as_json(node, promised) for node, promised in found])


@router.post("", response_model=Node, status_code=201, summary="Add a node")
async def create(context: ContextDep, actor: Writer, body: NewNode) -> Response:
    """Its engine must answer; the capacity is read from it."""
    _check_url(body, context.settings.data)
    try:
        node = await nodes.add(context, actor, **body.model_dump())
    except ConfigurationError as error:
        # The engine's address or its certificates: what was asked for cannot be.
        raise InvalidInputError(error.message, hint=error.hint, field="url") from error
    return reply(as_json(node, Capacity(0, 0, 0)), 201)


@router.patch("/{node}", response_model=Node, summary="Set when idle accelerators go back")
async def configure(context: ContextDep, actor: Writer, node: str, body: NodeIdle) -> Response:
    """Of those who are in no group that has a policy of its own."""
    changed = await nodes.set_idle(context, actor, node, idleness.wish(body.idle))
    return await _shown(context, actor, changed)


@router.post("/{node}/cordon", response_model=Node, summary="Give a node nothing new")
async def cordon(context: ContextDep, actor: Writer, node: str) -> Response:
    return await _set_state(context, actor, node, NodeState.CORDONED)


@router.post("/{node}/uncordon", response_model=Node, summary="Let a node take instances again")
async def uncordon(context: ContextDep, actor: Writer, node: str) -> Response:
    return await _set_state(context, actor, node, NodeState.ACTIVE)


@router.post("/{node}/address", response_model=Node, summary="Tell a node's new address")
async def set_address(context: ContextDep, actor: Writer, node: str, body: NodeAddress) -> Response:
    """The ports of the instances that run there follow; the instances go on running."""
    return await _shown(context, actor, await nodes.set_address(context, actor, node, body.address))


@router.post(
    "/{node}/agent-token", response_model=AgentToken, status_code=201,
    summary="Make a token for a node's agent",
)  # fmt: skip
async def new_agent_token(context: ContextDep, actor: Writer, node: str) -> Response:
    """Shown this once. The token that the agent had is of no use any more."""
    return reply({"token": await nodes.new_agent_token(context, actor, node)}, 201)


async def _set_state(context: ContextDep, actor: Actor, name: str, state: NodeState) -> Response:
    return await _shown(context, actor, await nodes.set_state(context, actor, name, state))


async def _shown(context: ContextDep, actor: Actor, changed: Entity) -> Response:
    found = await nodes.list_all(context, actor)
    promised = next((given for node, given in found if node.id == changed.id), Capacity(0, 0, 0))
    return reply(as_json(changed, promised))
