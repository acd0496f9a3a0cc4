"""Notices: what people were told."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Name
from hutch.domain.leases import Notice as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import notices

router = APIRouter(prefix=f"{PREFIX}/notices", tags=["notice"])
Reader = Annotated[Actor, allowed(Action.NOTICE_READ)]


class Notice(TypedDict):
    """Something that a person must be told."""

    id: str
    kind: Annotated[str, Field(description="`lease.warned`, `lease.granted`, …")]
    text: str
    instance: Annotated[str | None, Field(description="The id of the instance it is about.")]
    lease: Annotated[str | None, Field(description="The id of the lease it is about.")]
    created_at: datetime
    delivered_at: Annotated[
        datetime | None, Field(description="When it was written inside the instance.")
    ]
    read_at: datetime | None


class Read(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{}]})
    notices: list[Name] | None = Field(
        None, max_length=notices.MOST, description="Ids; all of yours, if left out."
    )


class Marked(TypedDict):
    marked: Annotated[int, Field(description="How many had not been read.")]


def as_json(notice: Entity) -> Notice:
    return {
        "id": notice.id,
        "kind": notice.kind,
        "text": notice.text,
        "instance": notice.instance_id,
        "lease": notice.lease_id,
        "created_at": notice.created_at,
        "delivered_at": notice.delivered_at,
        "read_at": notice.read_at,
    }


@router.get("", response_model=list[Notice], summary="List your notices, newest first")
async def list_all(
    context: ContextDep,
    actor: Reader,
    unread: Annotated[bool, Query(description="Only those that were not read.")] = False,
    limit: Annotated[int, Query(ge=1, le=notices.MOST)] = 50,
) -> Response:
    found = await notices.list_all(context, actor, unread=unread, limit=limit)
    return reply([as_json(notice) for notice in found])


@router.post("/read", response_model=Marked, summary="Mark your notices as read")
async def mark_read(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.NOTICE_WRITE)], body: Read
) -> Response:
    answer: Marked = {"marked": await notices.mark_read(context, actor, body.notices)}
    return reply(answer)
