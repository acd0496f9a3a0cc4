"""API tokens."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Name
from hutch.domain.people import Actor, Scope
from hutch.domain.people import Token as Entity
from hutch.domain.permissions import Action
from hutch.services import tokens

router = APIRouter(prefix=f"{PREFIX}/tokens", tags=["token"])
Writer = Annotated[Actor, allowed(Action.TOKEN_WRITE)]


class Token(TypedDict):
    id: str
    title: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class CreatedToken(Token):
    """A token with its text, shown this once."""

    token: str


class NewToken(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "backup script", "scope": "read", "days": 90}]}
    )
    title: Name
    scope: Scope = Field(Scope.FULL, strict=False)
    days: int | None = Field(
        None, ge=1, le=3650, description="How long it is valid; without it, until it is revoked."
    )


def as_json(token: Entity) -> Token:
    return {
        "id": token.id,
        "title": token.title,
        "scope": token.scope,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
    }


@router.get("", response_model=list[Token], summary="List your tokens")
async def list_all(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.TOKEN_READ)]
) -> Response:
    return reply([as_json(token) for token in await tokens.list_all(context, actor)])


@router.post("", response_model=CreatedToken, status_code=201, summary="Make a token")
async def create(context: ContextDep, actor: Writer, body: NewToken) -> Response:
    clear, token = await tokens.create(context, actor, body.title, body.scope, body.days)
    answer: CreatedToken = {**as_json(token), "token": clear}
    return reply(answer, 201)


@router.delete("/{token}", status_code=204, summary="Revoke a token")
async def delete(context: ContextDep, actor: Writer, token: str) -> Response:
    """`token` is its id."""
    await tokens.revoke(context, actor, token)
    return no_content()
