"""Instances: one person's machines."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from hutch.api import PREFIX, operations
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Base64, Body, Count, Name, Size, Text, encoded
from hutch.api.operations import Begun, Operation, begun
from hutch.api.waiting import attended
from hutch.domain.instances import Desired, InstanceState
from hutch.domain.instances import Instance as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import InvalidInputError, UnavailableError
from hutch.services import gateway, instances
from hutch.services.instances import Wish

router = APIRouter(prefix=f"{PREFIX}/instances", tags=["instance"])
Reader = Annotated[Actor, allowed(Action.INSTANCE_READ)]
Controller = Annotated[Actor, allowed(Action.INSTANCE_CONTROL)]

_EXAMPLE: JsonDict = {
    "id": "1f2e3d4c5b6a7980",
    "name": "web",
    "owner": "alice",
    "state": "running",
    "desired": "running",
    "node": "node1",
    "image": "base",
    "cpus": 2,
    "memory": 4294967296,
    "disk": 21474836480,
    "processes": 8192,
    "ssh": {
        "host": "192.0.2.1",
        "port": 22000,
        "user": "alice",
        "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample",
    },
    "drift": None,
    "error": None,
    "share": None,
    "wake_on_ssh": True,
    "created_at": "2026-03-01T12:00:00Z",
}


class Ssh(TypedDict):
    """How to log in."""

    host: str
    port: int
    user: str
    host_key: Annotated[str, Field(description="For known_hosts: `ssh-ed25519 AAAA…`.")]


class Drift(TypedDict):
    """A difference between what should be and what is, made by hand on the node."""

    code: str
    message: str
    since: datetime


class Received(TypedDict):
    """How somebody else's instance is shared with you."""

    read_only_view: bool
    until: datetime | None


class Instance(TypedDict):
    """A machine; memory and disk in bytes."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={"example": _EXAMPLE}
    )
    id: str
    name: str
    owner: str
    state: InstanceState
    desired: Desired
    node: str
    image: str
    cpus: int
    memory: int
    disk: int
    processes: int
    ssh: Ssh
    drift: Drift | None
    error: str | None
    share: Annotated[Received | None, Field(description="None for your own.")]
    wake_on_ssh: Annotated[
        bool, Field(description="Whether coming through the gateway starts it when it is stopped.")
    ]
    created_at: datetime


class CreatedInstance(TypedDict):
    """An instance in creation, and the operation that makes it."""

    instance: Instance
    operation: Operation


class NewInstance(Body):
    """What is left out gets the lab's default."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "web", "cpus": 4, "memory": "8GiB"}]}
    )
    name: Name = Field(description="1 to 63 of a-z, 0-9 and '-', beginning with a letter.")
    image: Name = "base"
    cpus: Count | None = None
    memory: Size | None = None
    disk: Size | None = None
    node: Name | None = None


class NewLimits(Body):
    """What is left out stays; at least one is needed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"memory": "8GiB"}]})
    cpus: Count | None = None
    memory: Size | None = None
    disk: Size | None = None


class Wake(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"on_ssh": False}]})
    on_ssh: bool


class Rebuild(Body):
    image: Name | None = Field(None, description="Another image than the present one.")


class Program(Body):
    """A program to run, without a shell between."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"argv": ["uname", "-a"]}]})
    argv: list[Text] = Field(min_length=1, max_length=1024)
    stdin: Base64 = b""
    timeout: float = Field(60.0, gt=0, le=600, allow_inf_nan=False, description="Seconds.")
    root: bool = Field(False, description="As root instead of the instance's owner.")


class Ran(TypedDict):
    """How a program ended, and what it printed, in base64."""

    code: int
    stdout: str
    stderr: str
    truncated: bool


class Part(TypedDict):
    used: int
    allowed: int


class Processor(TypedDict):
    seconds: Annotated[float, Field(description="Processor time since the instance was started.")]
    allowed: Annotated[int, Field(description="Processors.")]


class Usage(TypedDict):
    """What an instance uses now beside what it may; memory and disk in bytes."""

    cpu: Processor
    memory: Part
    disk: Part
    processes: Part


def as_json(instance: Entity) -> Instance:
    limits, drift, share = instance.limits, instance.drift, instance.share
    return {
        "id": instance.id,
        "name": instance.name,
        "owner": instance.owner_name,
        "state": instance.state,
        "desired": instance.desired,
        "node": instance.node_name,
        "image": instance.image_name,
        "cpus": limits.cpus,
        "memory": limits.memory,
        "disk": limits.disk,
        "processes": limits.processes,
        "ssh": {
            "host": instance.ssh_host,
            "port": instance.ssh_port,
            "user": instance.owner_name,
            "host_key": instance.ssh_host_key,
        },
        "drift": drift and {"code": drift.code, "message": drift.message, "since": drift.since},
        "error": instance.error,
        "share": share and {"read_only_view": share.read_only_view, "until": share.until},
        "wake_on_ssh": instance.wake_on_ssh,
        "created_at": instance.created_at,
    }


@router.get("", response_model=list[Instance], summary="List instances")
async def list_all(
    context: ContextDep,
    actor: Reader,
    everyone: Annotated[
        bool, Query(alias="all", description="Everyone's; for administrators.")
    ] = False,
    owner: Annotated[
        str | None,
        Query(max_length=256, description="One person's: what they share, to who is no admin."),
    ] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="At most so many, in order of their ids.")
    ] = None,
    after: Annotated[
        str | None, Query(max_length=64, description="With `limit`: the last id that you have.")
    ] = None,
) -> Response:
    """Your own by name, and what others share with you, unless told otherwise."""
    found = await instances.list_all(
        context, actor, everyone=everyone, owner=owner, limit=limit, after=after
    )
    return reply([as_json(instance) for instance in found])


@router.post("", response_model=CreatedInstance, status_code=202, summary="Create an instance")
async def create(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_CREATE)],
    body: NewInstance,
) -> Response:
    """Everything is checked and granted at once; the operation makes the machine."""
    wish = Wish(body.name, body.image, body.cpus, body.memory, body.disk, body.node)
    instance, operation = await instances.create(context, actor, wish)
    answer: CreatedInstance = {
        "instance": as_json(instance),
        "operation": operations.as_json(operation),
    }
    return reply(answer, 202)


@router.get("/{instance}", response_model=Instance, summary="Show an instance")
async def show(context: ContextDep, actor: Reader, instance: str) -> Response:
    """`instance` is its id, or its name, here and everywhere below.

    A name means your own, or else the one that somebody shares with you.
    """
    return reply(as_json(await instances.show(context, actor, instance)))


@router.patch("/{instance}", response_model=Begun, status_code=202, summary="Change the limits")
async def configure(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_CONFIGURE)],
    instance: str,
    body: NewLimits,
) -> Response:
    """While it runs, where the engine can."""
    if body.cpus is None and body.memory is None and body.disk is None:
        raise InvalidInputError("Nothing is to be changed.", hint="Give cpus, memory or disk.")
    return begun(
        await instances.configure(
            context, actor, instance, cpus=body.cpus, memory=body.memory, disk=body.disk
        )
    )


@router.put("/{instance}/wake", response_model=Instance, summary="Say whether ssh starts it")
async def set_wake(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_CONFIGURE)],
    instance: str,
    body: Wake,
) -> Response:
    """That is, whether coming through the gateway starts it when it is stopped."""
    return reply(as_json(await gateway.set_wake(context, actor, instance, body.on_ssh)))


@router.delete("/{instance}", response_model=Begun, status_code=202, summary="Delete an instance")
async def delete(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_DELETE)],
    instance: str,
) -> Response:
    """And everything on it. One that is still being created is cancelled."""
    return begun(await instances.delete(context, actor, instance))


@router.get("/{instance}/usage", response_model=Usage, summary="Show what an instance uses")
async def usage(context: ContextDep, actor: Reader, instance: str) -> Response:
    found, used = await instances.usage(context, actor, instance)
    limits = found.limits
    answer: Usage = {
        "cpu": {"seconds": used.cpu_seconds, "allowed": limits.cpus},
        "memory": {"used": used.memory, "allowed": limits.memory},
        "disk": {"used": used.disk, "allowed": limits.disk},
        "processes": {"used": used.processes, "allowed": limits.processes},
    }
    return reply(answer)


@router.post(
    "/{instance}/start", response_model=Begun, status_code=202, summary="Start an instance"
)
async def start(context: ContextDep, actor: Controller, instance: str) -> Response:
    return begun(await instances.start(context, actor, instance))


@router.post("/{instance}/stop", response_model=Begun, status_code=202, summary="Stop an instance")
async def stop(context: ContextDep, actor: Controller, instance: str) -> Response:
    return begun(await instances.stop(context, actor, instance))


@router.post(
    "/{instance}/restart", response_model=Begun, status_code=202, summary="Restart an instance"
)
async def restart(context: ContextDep, actor: Controller, instance: str) -> Response:
    return begun(await instances.restart(context, actor, instance))


@router.post(
    "/{instance}/rebuild", response_model=Begun, status_code=202, summary="Rebuild an instance"
)
async def rebuild(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_REBUILD)],
    instance: str,
    body: Rebuild | None = None,
) -> Response:
    """A fresh disk of the image; name, port and keys stay, everything on the disk goes."""
    image = None if body is None else body.image
    return begun(await instances.rebuild(context, actor, instance, image))


@router.post("/{instance}/exec", response_model=Ran, summary="Run a program inside")
async def execute(
    request: Request,
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_EXEC)],
    instance: str,
    body: Program,
) -> Response:
    """Waits for it to end. Output beyond 1 MiB per stream is cut off."""
    result = await attended(
        request,
        instances.execute(
            context,
            actor,
            instance,
            body.argv,
            stdin=body.stdin,
            timeout=body.timeout,
            as_root=body.root,
        ),
    )
    if result is None:
        raise UnavailableError("The server is stopping.", hint="Try again in a moment.")
    answer: Ran = {
        "code": result.code,
        "stdout": encoded(result.stdout),
        "stderr": encoded(result.stderr),
        "truncated": result.truncated,
    }
    return reply(answer)
