"""The audit: who did what to what, when, from where, with what result."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.domain.events import Event as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import events

router = APIRouter(prefix=f"{PREFIX}/events", tags=["event"])


class EventTarget(TypedDict):
    kind: str
    id: str
    name: str


class Event(TypedDict):
    id: int
    at: datetime
    by: Annotated[str, Field(description="The name of who did it.")]
    action: Annotated[str, Field(description="`noun.verb`, such as `instance.create`.")]
    target: EventTarget
    result: Annotated[str, Field(description="ok, failed, refused or requested.")]
    address: str | None
    request_id: str | None
    detail: dict[str, Any]


def as_json(event: Entity) -> Event:
    return {
        "id": event.id,
        "at": event.at,
        "by": event.actor_name,
        "action": event.action,
        "target": {"kind": event.target_kind, "id": event.target_id, "name": event.target_name},
        "result": event.result,
        "address": event.address,
        "request_id": event.request_id,
        "detail": event.detail,
    }


@router.get("", response_model=list[Event], summary="List events, newest first")
async def list_all(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.EVENT_READ)],
    limit: Annotated[int, Query(ge=1, le=events.MOST)] = 100,
    before: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="Only events with a smaller id.")
    ] = None,
    by: Annotated[str | None, Query(max_length=64, description="The name of who did it.")] = None,
    action: Annotated[
        str | None, Query(max_length=64, description="How the action begins: `instance.`.")
    ] = None,
    target: Annotated[str | None, Query(max_length=64, description="The target's id.")] = None,
) -> Response:
    found = await events.list_all(
        context, actor, limit=limit, before=before, by=by, action=action, target_id=target
    )
    return reply([as_json(event) for event in found])
