"""Signing in and out with a name and a password."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import CallDep, ContextDep, allowed
from hutch.api.fields import Body, Text
from hutch.domain.people import Actor, Role
from hutch.domain.permissions import Action
from hutch.services import tokens

router = APIRouter(prefix=PREFIX, tags=["login"])


class Login(Body):
    """A name and its password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "alice", "password": "correct horse battery"}]}
    )
    name: Text = Field(max_length=256)
    password: Text = Field(max_length=tokens.LONGEST_PASSWORD)


class SignedInUser(TypedDict):
    name: str
    role: Role


class SignedIn(TypedDict):
    """A token, shown this once."""

    token: str
    expires_at: datetime | None
    user: SignedInUser


@router.post("/login", response_model=SignedIn, summary="Exchange a name and password for a token")
async def create(context: ContextDep, call: CallDep, body: Login) -> Response:
    """Refused for a while (429) after too many failures of a name or from an address."""
    clear, token, user = await tokens.login(
        context, body.name, body.password, address=call.address, request_id=call.request_id
    )
    call.actor = user.name
    answer: SignedIn = {
        "token": clear,
        "expires_at": token.expires_at,
        "user": {"name": user.name, "role": user.role},
    }
    return reply(answer)


@router.post("/logout", status_code=204, summary="End the token that this is asked with")
async def delete(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.TOKEN_WRITE)]
) -> Response:
    await tokens.revoke(context, actor, actor.token_id or "")
    return no_content()
