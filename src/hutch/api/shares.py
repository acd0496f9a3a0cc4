"""With whom instances are shared."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Text
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.shares import Share as Entity
from hutch.services import shares

router = APIRouter(prefix=f"{PREFIX}/instances/{{instance}}/shares", tags=["share"])
Writer = Annotated[Actor, allowed(Action.SHARE_WRITE)]


class Share(TypedDict):
    """What somebody else than the owner may do: look, or log in as well."""

    person: str
    read_only_view: bool
    until: datetime | None
    created_at: datetime


class NewShare(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"until": "2d"}]})
    read_only_view: bool = Field(False, description="They may look, and not log in.")
    until: Text | None = Field(
        None, max_length=64, description="A span such as 8h or 2d, or a time as in RFC 3339."
    )


def as_json(share: Entity) -> Share:
    return {
        "person": share.user_name,
        "read_only_view": share.read_only_view,
        "until": share.until,
        "created_at": share.created_at,
    }


@router.get("", response_model=list[Share], summary="List with whom an instance is shared")
async def list_all(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.SHARE_READ)], instance: str
) -> Response:
    """Who is one of these people sees how it is shared with them alone."""
    return reply([as_json(each) for each in await shares.list_all(context, actor, instance)])


@router.put("/{person}", response_model=Share, summary="Share an instance with a person")
async def put(
    context: ContextDep, actor: Writer, instance: str, person: str, body: NewShare
) -> Response:
    """Their SSH keys go in at once. Asked again, it changes how it is shared."""
    share = await shares.add(
        context,
        actor,
        instance,
        person,
        read_only_view=body.read_only_view,
        until=body.until,
    )
    return reply(as_json(share))


@router.delete("/{person}", status_code=204, summary="Share an instance with a person no longer")
async def delete(context: ContextDep, actor: Writer, instance: str, person: str) -> Response:
    """Their SSH keys leave at once. A person may give up what is shared with them."""
    await shares.remove(context, actor, instance, person)
    return no_content()
