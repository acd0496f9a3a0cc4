"""What everyone may know and change of themself."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Text
from hutch.domain.limits import Holding
from hutch.domain.people import Actor, Role
from hutch.domain.permissions import Action
from hutch.services import tokens, users

router = APIRouter(prefix=f"{PREFIX}/me", tags=["profile"])


class Amounts(TypedDict):
    """What somebody holds, or may hold; memory and disk in bytes."""

    instances: int
    cpus: int
    memory: int
    disk: int
    accelerators: int


class Profile(TypedDict):
    name: str
    role: Role
    quota: Amounts
    held: Amounts


class NewPassword(Body):
    old: Text = Field(max_length=tokens.LONGEST_PASSWORD)
    new: Text = Field(max_length=tokens.LONGEST_PASSWORD)


def amounts(holding: Holding) -> Amounts:
    return {
        "instances": holding.instances,
        "cpus": holding.cpus,
        "memory": holding.memory,
        "disk": holding.disk,
        "accelerators": holding.accelerators,
    }


@router.get("", response_model=Profile, summary="Yourself, your quota and what you hold")
async def show(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.PROFILE_READ)]
) -> Response:
    user, held = await users.me(context, actor)
    answer: Profile = {
        "name": user.name,
        "role": user.role,
        "quota": amounts(user.quota),
        "held": amounts(held),
    }
    return reply(answer)


@router.put("/password", status_code=204, summary="Change your password")
async def change_password(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.PROFILE_WRITE)],
    body: NewPassword,
) -> Response:
    """Refused with `bad_login` when `old` is not your password."""
    await users.change_password(context, actor, body.old, body.new)
    return no_content()
