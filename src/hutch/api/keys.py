"""SSH keys."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Name, Text
from hutch.domain.people import Actor, SshKey
from hutch.domain.permissions import Action
from hutch.services import keys

router = APIRouter(prefix=f"{PREFIX}/keys", tags=["key"])
Writer = Annotated[Actor, allowed(Action.KEY_WRITE)]


class Key(TypedDict):
    id: str
    title: str
    type: str
    public: Annotated[str, Field(description="As in an authorized_keys file, without comment.")]
    fingerprint: Annotated[str, Field(description="SHA256, as `ssh-keygen -l` prints it.")]
    created_at: datetime


class NewKey(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"public": "ssh-ed25519 AAAAC3Nz… alice@laptop", "title": "laptop"}]
        }
    )
    public: Text = Field(max_length=16384, description="One line of a .pub file.")
    title: Name | None = Field(None, description="Its comment, unless given.")
    user: Name | None = Field(None, description="Whose it is; for administrators.")


def as_json(key: SshKey) -> Key:
    return {
        "id": key.id,
        "title": key.title,
        "type": key.type,
        "public": key.public,
        "fingerprint": key.fingerprint,
        "created_at": key.created_at,
    }


@router.get("", response_model=list[Key], summary="List SSH keys")
async def list_all(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.KEY_READ)],
    user: Annotated[
        str | None, Query(max_length=256, description="Whose; for administrators.")
    ] = None,
) -> Response:
    return reply([as_json(key) for key in await keys.list_all(context, actor, user)])


@router.post("", response_model=Key, status_code=201, summary="Add an SSH key")
async def create(context: ContextDep, actor: Writer, body: NewKey) -> Response:
    """Running instances have it within seconds, others when they start."""
    return reply(as_json(await keys.add(context, actor, body.public, body.title, body.user)), 201)


# A fingerprint may be given too, and contains slashes.
@router.delete("/{key:path}", status_code=204, summary="Remove an SSH key")
async def delete(context: ContextDep, actor: Writer, key: str) -> Response:
    """`key` is its id, or the fingerprint of one of your own."""
    await keys.remove(context, actor, key)
    return no_content()
