"""Leases: what a person asks of the lab's accelerators."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Name, Text
from hutch.api.operations import LONGEST_WAIT
from hutch.api.waiting import attended
from hutch.domain.accelerators import Accelerator
from hutch.domain.leases import Announcement as Announced
from hutch.domain.leases import EndReason, LeaseState
from hutch.domain.leases import Lease as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.scheduler import Waiting
from hutch.services import leases, sight
from hutch.services.context import Context
from hutch.services.sight import Named

router = APIRouter(prefix=f"{PREFIX}/leases", tags=["lease"])
Reader = Annotated[Actor, allowed(Action.LEASE_READ)]
Writer = Annotated[Actor, allowed(Action.LEASE_WRITE)]
Everyone = Annotated[
    bool,
    Query(alias="all", description="Everyone's, for administrators; a manager's group's."),
]


class Held(TypedDict):
    """An accelerator that a lease holds, or held."""

    id: str
    name: Annotated[str, Field(description="`node/address`.")]
    model: str


class Announcement(TypedDict):
    """What was announced to the holder."""

    reason: EndReason
    at: datetime
    due: Annotated[datetime, Field(description="When it ends if nothing changes.")]


class Other(TypedDict):
    """Somebody's lease, as everyone may know it."""

    id: str
    owner: str
    count: int
    state: LeaseState
    expires_at: datetime | None


class Explanation(TypedDict):
    """Why a lease waits."""

    waiting: Annotated[Waiting, Field(description="What it waits for.")]
    position: Annotated[int, Field(description="Its place in the node's line: 1 is the head.")]
    ahead: Annotated[list[Other], Field(description="Who comes before it, at most ten.")]
    free: Annotated[int, Field(description="Matching accelerators that nobody holds.")]
    held_by: Annotated[list[Other], Field(description="Whose end it waits for, at most ten.")]
    projected_start: Annotated[
        datetime | None, Field(description="If every lease runs to its end; null: nobody can tell.")
    ]
    is_guaranteed: Annotated[bool, Field(description="Within its group's guarantee.")]


class Lease(TypedDict):
    """A right to accelerators for a time, or a place in the line for one."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "id": "8d0f6a1c2b3e4f50",
                "instance": "box",
                "owner": "alice",
                "group": "vision",
                "node": "node1",
                "count": 1,
                "model": None,
                "minutes": 240.0,
                "state": "active",
                "end_reason": None,
                "requested_at": "2026-03-01T12:00:00Z",
                "granted_at": "2026-03-01T12:00:00Z",
                "active_at": "2026-03-01T12:00:01Z",
                "expires_at": "2026-03-01T16:00:00Z",
                "ended_at": None,
                "accelerators": [
                    {
                        "id": "1f2e3d4c5b6a7980",
                        "name": "node1/0000:3b:00.0",
                        "model": "NVIDIA A100-SXM4-80GB",
                    }
                ],
                "announcement": None,
                "evidence": None,
                "explanation": None,
                "error": None,
                "version": "active.1772380800....",
            }
        }
    )
    id: str
    instance: Annotated[str | None, Field(description="null: another person's, not yours to know.")]
    owner: str
    group: str | None
    node: str
    count: int
    model: Annotated[str | None, Field(description="A text that the model must contain.")]
    minutes: Annotated[float, Field(description="What was asked for, without extensions.")]
    state: LeaseState
    end_reason: EndReason | None
    requested_at: datetime
    granted_at: datetime | None
    active_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    accelerators: list[Held]
    announcement: Announcement | None
    evidence: Annotated[
        dict[str, Any] | None, Field(description="What the verdict of idleness is based on.")
    ]
    explanation: Annotated[Explanation | None, Field(description="Why it waits.")]
    error: str | None
    version: Annotated[str, Field(description="Give it as `seen` to wait for the next change.")]


class NewLease(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"count": 2, "minutes": 240}]})
    count: Count = Field(description="All of them, or none.")
    instance: Name | None = Field(
        None, description="Name or id; your only running one, if left out."
    )
    model: Text | None = Field(
        None, max_length=256, description="A text that the model must contain, in any case."
    )
    minutes: Count | None = Field(None, description="How long; the lab's default, if left out.")


class Extension(Body):
    """Of one lease, or of an instance's; with neither, of your only instance that has one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instance": "box", "minutes": 60}]})
    minutes: Count = Field(description="How much longer.")
    lease: Name | None = None
    instance: Name | None = None


def as_json(found: Named) -> Lease:
    lease = found.lease
    return {
        "id": lease.id,
        "instance": lease.instance_name or None,
        "owner": lease.owner_name,
        "group": lease.group_name,
        "node": lease.node_name,
        "count": lease.count,
        "model": lease.model,
        "minutes": lease.duration / timedelta(minutes=1),
        "state": lease.state,
        "end_reason": lease.end_reason,
        "requested_at": lease.requested_at,
        "granted_at": lease.granted_at,
        "active_at": lease.active_at,
        "expires_at": lease.expires_at,
        "ended_at": lease.ended_at,
        "accelerators": [_held(each) for each in found.accelerators],
        "announcement": _announcement(lease.announcement),
        "evidence": lease.evidence,
        "explanation": _explanation(found),
        "error": lease.error,
        "version": leases.version(lease),
    }


def _held(accelerator: Accelerator) -> Held:
    return {
        "id": accelerator.id,
        "name": f"{accelerator.node_name}/{accelerator.found.address}",
        "model": accelerator.found.model,
    }


def _announcement(announced: Announced | None) -> Announcement | None:
    if announced is None:
        return None
    return {"reason": announced.reason, "at": announced.at, "due": announced.due}


def _explanation(found: Named) -> Explanation | None:
    said = found.lease.explanation
    if said is None:
        return None
    start = said["projected_start"]
    return {
        "waiting": Waiting(said["waiting"]),
        "position": said["position"],
        "ahead": [_other(each) for each in found.ahead],
        "free": said["free"],
        "held_by": [_other(each) for each in found.held_by],
        "projected_start": start and datetime.fromisoformat(start),
        "is_guaranteed": said["is_guaranteed"],
    }


def _other(lease: Entity) -> Other:
    return {
        "id": lease.id,
        "owner": lease.owner_name,
        "count": lease.count,
        "state": lease.state,
        "expires_at": lease.expires_at,
    }


async def _shown(context: Context, actor: Actor, lease: Entity) -> Lease:
    (found,) = await sight.named(context, actor, [lease])
    return as_json(found)


async def _listed(context: Context, actor: Actor, found: list[Entity]) -> Response:
    return reply([as_json(each) for each in await sight.named(context, actor, found)])


@router.get("", response_model=list[Lease], summary="List leases, newest first")
async def list_all(
    context: ContextDep,
    actor: Reader,
    everyone: Everyone = False,
    live: Annotated[bool, Query(description="Without those that have ended.")] = True,
    instance: Annotated[str | None, Query(max_length=255, description="Only this one's.")] = None,
) -> Response:
    found = await leases.list_all(context, actor, everyone=everyone, live=live, instance=instance)
    return await _listed(context, actor, found)


@router.post("", response_model=Lease, status_code=201, summary="Take accelerators")
async def create(context: ContextDep, actor: Writer, body: NewLease) -> Response:
    """What can never be had is refused at once. Otherwise the answer says whether it was granted,
    or why it waits: `GET /leases/{lease}?wait=20` tells when that changes."""
    lease = await leases.take(
        context,
        actor,
        count=body.count,
        instance=body.instance,
        model=body.model,
        minutes=body.minutes,
    )
    return reply(await _shown(context, actor, lease), 201)


@router.delete("", response_model=list[Lease], summary="Give accelerators back")
async def release(
    context: ContextDep,
    actor: Writer,
    lease: Annotated[str | None, Query(max_length=255, description="This one.")] = None,
    instance: Annotated[str | None, Query(max_length=255, description="All of this one's.")] = None,
) -> Response:
    """Or leave the line; with neither, for your only instance that has any. What still has them
    open is asked to end, and then ended."""
    found = await leases.release(context, actor, lease=lease, instance=instance)
    return await _listed(context, actor, found)


@router.patch("", response_model=Lease, summary="Keep accelerators longer")
async def extend(context: ContextDep, actor: Writer, body: Extension) -> Response:
    """Refused while somebody waits who is entitled to them."""
    lease = await leases.extend(
        context, actor, minutes=body.minutes, lease=body.lease, instance=body.instance
    )
    return reply(await _shown(context, actor, lease))


@router.get("/queue", response_model=list[Lease], summary="List who waits, in line")
async def queue(context: ContextDep, actor: Reader) -> Response:
    """Everyone's, node by node. Of another person's: who waits for how many."""
    return await _listed(context, actor, await leases.queue(context, actor))


@router.get("/history", response_model=list[Lease], summary="List leases that have ended")
async def history(
    context: ContextDep,
    actor: Reader,
    everyone: Everyone = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[
        str | None, Query(max_length=64, description="A lease's id, to page back.")
    ] = None,
) -> Response:
    """The latest asked for first."""
    found = await leases.history(context, actor, everyone=everyone, limit=limit, before=before)
    return await _listed(context, actor, found)


@router.get("/{lease}", response_model=Lease, summary="Show or wait for a lease")
async def show(
    request: Request,
    context: ContextDep,
    actor: Reader,
    lease: str,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for a change.")
    ] = 0,
    seen: Annotated[str, Query(max_length=256, description="The version that you know.")] = "",
) -> Response:
    """With `wait`, answers once it no longer has the version `seen`, or without `seen` once it is
    active or has ended."""
    found = None
    if wait:
        found = await attended(request, leases.wait(context, actor, lease, timeout=wait, seen=seen))
    return reply(await _shown(context, actor, found or await leases.show(context, actor, lease)))
