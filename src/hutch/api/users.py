"""People, as administrators keep them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Name, QuotaSize, Text
from hutch.api.profile import Amounts, amounts
from hutch.domain.limits import NOTHING, Holding
from hutch.domain.people import Actor, Role
from hutch.domain.people import User as Entity
from hutch.domain.permissions import Action
from hutch.services import tokens, users

router = APIRouter(prefix=f"{PREFIX}/users", tags=["user"])
Reader = Annotated[Actor, allowed(Action.USER_READ)]
Writer = Annotated[Actor, allowed(Action.USER_WRITE)]


class User(TypedDict):
    id: str
    name: str
    role: Role
    disabled_at: datetime | None
    created_at: datetime
    quota: Amounts
    held: Amounts


class CreatedUser(TypedDict):
    """A person with their password, shown this once."""

    user: User
    password: str


class GeneratedPassword(TypedDict):
    password: str


class NewUser(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "alice"}]})
    name: Name = Field(description="1 to 32 of a-z, 0-9 and '-': their account's name inside.")
    role: Role = Field(Role.MEMBER, strict=False)
    password: Text | None = Field(
        None, max_length=tokens.LONGEST_PASSWORD, description="Generated, unless given."
    )


class NewQuota(Body):
    """What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cpus": 32, "memory": "128GiB"}]})
    role: Role | None = Field(None, strict=False)
    instances: Count | None = None
    cpus: Count | None = None
    memory: QuotaSize | None = None
    disk: QuotaSize | None = None
    accelerators: Count | None = Field(None, description="The most that they may hold at once.")


def as_json(user: Entity, held: Holding) -> User:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "disabled_at": user.disabled_at,
        "created_at": user.created_at,
        "quota": amounts(user.quota),
        "held": amounts(held),
    }


@router.get("", response_model=list[User], summary="List people")
async def list_all(context: ContextDep, actor: Reader) -> Response:
    return reply([as_json(user, held) for user, held in await users.list_all(context, actor)])


@router.post("", response_model=CreatedUser, status_code=201, summary="Add a person")
async def create(context: ContextDep, actor: Writer, body: NewUser) -> Response:
    user, password = await users.add(context, actor, body.name, body.role, body.password)
    answer: CreatedUser = {"user": as_json(user, NOTHING), "password": password}
    return reply(answer, 201)


@router.get("/{user}", response_model=User, summary="Show a person")
async def show(context: ContextDep, actor: Reader, user: str) -> Response:
    """`user` is their name, here and below."""
    return reply(as_json(*await users.show(context, actor, user)))


@router.patch("/{user}", response_model=User, summary="Change a person's role or quota")
async def configure(context: ContextDep, actor: Writer, user: str, body: NewQuota) -> Response:
    """A quota below what they hold takes nothing away: nothing more is granted."""
    await users.configure(
        context,
        actor,
        user,
        role=body.role,
        instances=body.instances,
        cpus=body.cpus,
        memory=body.memory,
        disk=body.disk,
        accelerators=body.accelerators,
    )
    return reply(as_json(*await users.show(context, actor, user)))


@router.post("/{user}/disable", response_model=User, summary="Shut a person out")
async def disable(context: ContextDep, actor: Writer, user: str) -> Response:
    """Their tokens end; their instances and everything on them stay."""
    await users.disable(context, actor, user)
    return reply(as_json(*await users.show(context, actor, user)))


@router.post("/{user}/enable", response_model=User, summary="Let a person in again")
async def enable(context: ContextDep, actor: Writer, user: str) -> Response:
    await users.enable(context, actor, user)
    return reply(as_json(*await users.show(context, actor, user)))


@router.post("/{user}/reset-password", response_model=GeneratedPassword, summary="Reset a password")
async def reset_password(context: ContextDep, actor: Writer, user: str) -> Response:
    """A generated one, shown this once; every token of the person ends."""
    answer: GeneratedPassword = {"password": await users.reset_password(context, actor, user)}
    return reply(answer)
