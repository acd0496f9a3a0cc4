"""Ports that people lead to their instances."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from hutch.api import PREFIX, operations
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Name, Text
from hutch.api.operations import Begun, Operation, begun
from hutch.domain.instances import Instance
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.ports import LOOPBACK, OpenTo, PortState, Protocol, Reach
from hutch.domain.ports import Port as Entity
from hutch.errors import InvalidInputError
from hutch.services import apps, ports
from hutch.services.context import Context
from hutch.services.ports import Wish

router = APIRouter(prefix=PREFIX, tags=["port"])
Reader = Annotated[Actor, allowed(Action.PORT_READ)]
Writer = Annotated[Actor, allowed(Action.PORT_WRITE)]
_OF_INSTANCE = "/instances/{instance}/ports"
# `53/udp` is a way to name one.
_OF_PORT = _OF_INSTANCE + "/{port:path}"

_REACH = (
    "`network`: everyone who reaches the node does. `node`: programs of the node itself do. "
    "`web`: nothing does but hutch, which lets people in by their sign-in."
)
_EXAMPLE: JsonDict = {
    "id": "1f2e3d4c5b6a7980",
    "instance": "box",
    "owner": "alice",
    "name": "jupyter",
    "protocol": "tcp",
    "port": 8888,
    "host": "192.0.2.1",
    "host_port": 30000,
    "reach": "network",
    "state": "open",
    "open_to": "people",
    "people": ["bob"],
    "keep_path": False,
    "url": "/apps/box/8888/",
    "until": "2026-03-01T20:00:00Z",
    "created_at": "2026-03-01T12:00:00Z",
}


class Port(TypedDict):
    """What leads to a port of an instance."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={"example": _EXAMPLE}
    )
    id: str
    instance: str
    owner: str
    name: str
    protocol: Protocol
    port: Annotated[int, Field(description="The instance's.")]
    reach: Annotated[Reach, Field(description=_REACH)]
    host: Annotated[str | None, Field(description="Where the node listens; None for `web`.")]
    host_port: int | None
    state: PortState
    open_to: Annotated[OpenTo, Field(description="In a browser, besides owner and guests.")]
    people: list[str]
    keep_path: Annotated[bool, Field(description="What listens there is told the whole path.")]
    url: Annotated[str | None, Field(description="As an app in a browser; None for UDP.")]
    until: datetime | None
    created_at: datetime | None


class AddedPort(TypedDict):
    """A port that is being opened, and the operation that does it."""

    port: Port
    operation: Operation


class NewPort(Body):
    """What is left out is given by hutch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"port": 8888, "name": "jupyter"}]})
    port: Count = Field(description="The instance's port.")
    host_port: Count | None = Field(None, description="From `port_first` to `port_last`.")
    protocol: Name = Field("tcp", description="tcp or udp.")
    name: Name | None = None
    span: Text | None = Field(None, max_length=64, description="How long it is open, such as 8h.")
    reach: Reach = Field(Reach.NETWORK, strict=False, description=_REACH)
    open_to: list[Name] = Field(
        default_factory=lambda: ["me"],
        min_length=1,
        max_length=100,
        description="Who may open it in a browser: `me`, `everyone`, or people's names.",
    )
    keep_path: bool = Field(False, description="What listens there is told the whole path.")


class ChangedPort(Body):
    """What is left out stays; at least one is needed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"open_to": ["bob"]}]})
    span: Text | None = Field(None, max_length=64, description="How long from now, such as 8h.")
    open_to: list[Name] | None = Field(None, min_length=1, max_length=100)
    keep_path: bool | None = None


def as_json(context: Context, actor: Actor, instance: Instance, port: Entity) -> Port:
    is_app = port.protocol is Protocol.TCP
    return {
        "id": port.id,
        "instance": instance.name,
        "owner": instance.owner_name,
        "name": port.name,
        "protocol": port.protocol,
        "port": port.target_port,
        "reach": port.reach,
        "host": None if port.reach is Reach.WEB else _host(instance, port),
        "host_port": port.host_port,
        "state": port.state,
        "open_to": port.open_to,
        "people": list(port.people),
        "keep_path": port.keeps_path,
        "url": apps.url_of(context.settings, actor, instance, port) if is_app else None,
        "until": port.until,
        "created_at": port.created_at,
    }


def _host(instance: Instance, port: Entity) -> str:
    return LOOPBACK if port.reach is Reach.NODE else instance.ssh_host


@router.get("/ports", response_model=list[Port], summary="List the ports of all your instances")
async def list_own(
    context: ContextDep,
    actor: Reader,
    everyone: Annotated[
        bool, Query(alias="all", description="Everyone's; for administrators.")
    ] = False,
) -> Response:
    """And of those that others share with you. Those of SSH are told with the instance."""
    found = await ports.list_own(context, actor, everyone=everyone)
    return reply([as_json(context, actor, instance, port) for instance, port in found])


@router.get(_OF_INSTANCE, response_model=list[Port], summary="List an instance's ports")
async def list_all(context: ContextDep, actor: Reader, instance: str) -> Response:
    """But for that of SSH."""
    of, found = await ports.list_all(context, actor, instance)
    return reply([as_json(context, actor, of, port) for port in found])


@router.post(
    _OF_INSTANCE, response_model=AddedPort, status_code=202, summary="Lead a port to an instance"
)
async def create(context: ContextDep, actor: Writer, instance: str, body: NewPort) -> Response:
    """The host port is granted at once, and kept over everything until it is removed."""
    if body.protocol not in {each.value for each in Protocol}:
        raise InvalidInputError(f"There is no protocol {body.protocol[:20]!r}.", hint="tcp or udp.")
    wish = Wish(
        target_port=body.port,
        host_port=body.host_port,
        protocol=Protocol(body.protocol),
        name=body.name,
        span=body.span,
        reach=body.reach,
        open_to=body.open_to,
        keeps_path=body.keep_path,
    )
    of, port, operation = await ports.add(context, actor, instance, wish)
    answer: AddedPort = {
        "port": as_json(context, actor, of, port),
        "operation": operations.as_json(operation),
    }
    return reply(answer, 202)


@router.patch(_OF_PORT, response_model=Port, summary="Change a port")
async def configure(
    context: ContextDep, actor: Writer, instance: str, port: str, body: ChangedPort
) -> Response:
    """Who may open it in a browser, and until when. `port` is its name, or the instance's port."""
    if body.span is None and body.open_to is None and body.keep_path is None:
        raise InvalidInputError(
            "Nothing is to be changed.", hint="Give span, open_to or keep_path."
        )
    of, changed = await ports.configure(
        context,
        actor,
        instance,
        port,
        open_to=body.open_to,
        keeps_path=body.keep_path,
        span=body.span,
    )
    return reply(as_json(context, actor, of, changed))


@router.delete(_OF_PORT, response_model=Begun, status_code=202, summary="Remove a port")
async def delete(context: ContextDep, actor: Writer, instance: str, port: str) -> Response:
    """`port` is its name, or the instance's port: `8888`, `jupyter`."""
    return begun(await ports.remove(context, actor, instance, port))
