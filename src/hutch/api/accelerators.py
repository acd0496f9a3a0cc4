"""Accelerators: the GPUs and other devices that nodes offer."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Text
from hutch.domain.accelerators import Accelerator as Entity
from hutch.domain.accelerators import Health, Vendor
from hutch.domain.accelerators import Reading as Seen
from hutch.domain.leases import Lease, LeaseState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import NotFoundError
from hutch.services import accelerators
from hutch.services.accelerators import LONGEST_REASON
from hutch.services.context import Context
from hutch.services.sight import seen_by

router = APIRouter(prefix=f"{PREFIX}/accelerators", tags=["accelerator"])
Reader = Annotated[Actor, allowed(Action.ACCELERATOR_READ)]
Writer = Annotated[Actor, allowed(Action.ACCELERATOR_WRITE)]


class Process(TypedDict):
    """A process that has an accelerator open, in an instance that the asker may see."""

    pid: Annotated[int, Field(description="On the node.")]
    command: str
    user: str
    instance: str | None
    memory: Annotated[int, Field(description="Bytes of the accelerator's memory.")]


class Reading(TypedDict):
    """What it was last seen doing. null: it does not tell."""

    utilisation: Annotated[float | None, Field(description="0 to 1.")]
    memory_used: Annotated[int | None, Field(description="Bytes.")]
    temperature: Annotated[float | None, Field(description="Degrees Celsius.")]
    power: Annotated[float | None, Field(description="Watts.")]
    processes: list[Process]


class Holder(TypedDict):
    """Who holds it; the lease and the instance only where the asker may know them."""

    owner: str
    until: datetime | None
    state: LeaseState
    is_mine: bool
    lease: str | None
    instance: str | None


class Accelerator(TypedDict):
    id: str
    name: Annotated[str, Field(description="`node/address`: what it is called everywhere.")]
    node: str
    address: Annotated[str, Field(description="On the node's PCI bus, as a rule.")]
    uuid: str | None
    vendor: Vendor
    model: str
    memory: Annotated[int, Field(description="Bytes; 0: none of its own.")]
    health: Health
    reason: Annotated[str, Field(description="Why it is not well.")]
    withdrawn: Annotated[str | None, Field(description="Why it is out of service.")]
    sharers: Annotated[int, Field(description="How many leases may hold it at once.")]
    seen_at: datetime | None
    reading: Reading | None
    holders: list[Holder]


class Withdrawal(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "a fan is broken"}]})
    reason: Text = Field(max_length=LONGEST_REASON, description="One line, for everyone to read.")


class Sharing(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"sharers": 4}]})
    sharers: Count = Field(description="How many leases may hold it at once; 1: exclusive.")


def as_json(known: Entity, reading: Seen | None, holders: list[Lease], actor: Actor) -> Accelerator:
    found = known.found
    return {
        "id": known.id,
        "name": f"{known.node_name}/{found.address}",
        "node": known.node_name,
        "address": found.address,
        "uuid": found.uuid,
        "vendor": found.vendor,
        "model": found.model,
        "memory": found.memory,
        "health": found.health,
        "reason": found.reason,
        "withdrawn": known.withdrawn,
        "sharers": known.sharers,
        "seen_at": known.seen_at,
        "reading": None if reading is None else _reading(reading),
        "holders": [_holder(seen_by(actor, lease), actor) for lease in holders],
    }


def _reading(reading: Seen) -> Reading:
    return {
        "utilisation": reading.utilisation,
        "memory_used": reading.memory_used,
        "temperature": reading.temperature,
        "power": reading.power,
        "processes": [
            {
                "pid": each.pid,
                "command": each.command,
                "user": each.user,
                "instance": each.container,
                "memory": each.memory,
            }
            for each in reading.processes
        ],
    }


def _holder(lease: Lease, actor: Actor) -> Holder:
    is_known = bool(lease.instance_id)
    return {
        "owner": lease.owner_name,
        "until": lease.expires_at,
        "state": lease.state,
        "is_mine": lease.owner_id == actor.user_id,
        "lease": lease.id if is_known else None,
        "instance": lease.instance_name if is_known else None,
    }


@router.get("", response_model=list[Accelerator], summary="List accelerators")
async def list_all(context: ContextDep, actor: Reader) -> Response:
    """Every one, with who holds it until when, for everyone. What runs on it is shown of
    instances that one may see."""
    found = await accelerators.list_all(context, actor)
    return reply([as_json(*each, actor) for each in found])


@router.post(
    "/{accelerator:path}/withdraw",
    response_model=Accelerator,
    summary="Take an accelerator out of service",
)
async def withdraw(
    context: ContextDep, actor: Writer, accelerator: str, body: Withdrawal
) -> Response:
    """Who holds it keeps it; nobody else gets it. `accelerator` is its id or its name, here and
    below."""
    changed = await accelerators.withdraw(context, actor, accelerator, body.reason)
    return await _shown(context, actor, changed)


@router.post(
    "/{accelerator:path}/restore",
    response_model=Accelerator,
    summary="Bring an accelerator back into service",
)
async def restore(context: ContextDep, actor: Writer, accelerator: str) -> Response:
    return await _shown(context, actor, await accelerators.restore(context, actor, accelerator))


@router.post(
    "/{accelerator:path}/share",
    response_model=Accelerator,
    summary="Set how many may hold an accelerator at once",
)
async def share(context: ContextDep, actor: Writer, accelerator: str, body: Sharing) -> Response:
    """Refused while anybody holds it."""
    changed = await accelerators.share(context, actor, accelerator, body.sharers)
    return await _shown(context, actor, changed)


async def _shown(context: Context, actor: Actor, changed: Entity) -> Response:
    for known, reading, holders in await accelerators.list_all(context, actor):
        if known.id == changed.id:
            return reply(as_json(known, reading, holders, actor))
    raise NotFoundError("accelerator", changed.id)
