"""Groups: administrators keep them, and their managers keep the people in them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX, idleness
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Name
from hutch.api.idleness import Idle, NewIdle
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import groups
from hutch.services.groups import Changes, Standing

router = APIRouter(prefix=f"{PREFIX}/groups", tags=["group"])
Reader = Annotated[Actor, allowed(Action.GROUP_READ)]
Writer = Annotated[Actor, allowed(Action.GROUP_WRITE)]
Manager = Annotated[Actor, allowed(Action.GROUP_MANAGE)]
Weight = Annotated[float, Field(allow_inf_nan=False)]


class Member(TypedDict):
    user: str
    is_manager: bool
    maximum: Annotated[int, Field(description="The most accelerators that they may hold.")]
    held: Annotated[int, Field(description="Accelerators that they hold or wait for.")]


class Group(TypedDict):
    """People who share a guarantee, a limit and a weight for accelerators."""

    name: str
    guarantee: Annotated[int, Field(description="What others' borrowing never keeps from it.")]
    limit: Annotated[int | None, Field(description="The most at once; null: no limit.")]
    weight: Annotated[float, Field(description="Its share of what is contended for.")]
    idle: Annotated[Idle | None, Field(description="null: the node's policy, or the lab's.")]
    held: int
    waiting: int
    members: list[Member]
    created_at: datetime


class NewGroup(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "vision", "guarantee": 2, "limit": 6}]}
    )
    name: Name = Field(description="1 to 63 of a-z, 0-9 and '-', beginning with a letter.")
    guarantee: Count = 0
    limit: Count | None = None
    weight: Weight = 1.0
    idle: NewIdle | None = None


class NewShares(Body):
    """What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"guarantee": 4, "limit": None}]})
    guarantee: Count | None = None
    limit: Count | None = Field(None, description="null: no limit of its own.")
    weight: Weight | None = None
    idle: NewIdle | None = Field(None, description="null: the node's policy, or the lab's.")


class NewMember(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "alice"}]})
    user: Name


class MemberQuota(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"accelerators": 2}]})
    accelerators: Count = Field(description="The most that they may hold at once.")


class MemberRole(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"is_manager": True}]})
    is_manager: bool


def as_json(standing: Standing) -> Group:
    group = standing.group
    return {
        "name": group.name,
        "guarantee": group.guarantee,
        "limit": group.limit,
        "weight": group.weight,
        "idle": idleness.as_json(group.idle),
        "held": standing.held,
        "waiting": standing.waiting,
        "members": [
            {
                "user": member.user_name,
                "is_manager": member.is_manager,
                "maximum": member.maximum,
                "held": member.held,
            }
            for member in standing.members
        ],
        "created_at": group.created_at,
    }


@router.get("", response_model=list[Group], summary="List groups")
async def list_all(context: ContextDep, actor: Reader) -> Response:
    """Every group for administrators; one's own for everybody else."""
    return reply([as_json(each) for each in await groups.list_all(context, actor)])


@router.post("", response_model=Group, status_code=201, summary="Add a group")
async def create(context: ContextDep, actor: Writer, body: NewGroup) -> Response:
    made = await groups.add(
        context,
        actor,
        body.name,
        guarantee=body.guarantee,
        limit=body.limit,
        weight=body.weight,
        idle=idleness.wish(body.idle),
    )
    return reply(as_json(made), 201)


@router.get("/{group}", response_model=Group, summary="Show a group")
async def show(context: ContextDep, actor: Reader, group: str) -> Response:
    """`group` is its name, here and below. Another's group than one's own is not found."""
    return reply(as_json(await groups.show(context, actor, group)))


@router.patch("/{group}", response_model=Group, summary="Change a group's shares")
async def configure(context: ContextDep, actor: Writer, group: str, body: NewShares) -> Response:
    """A limit below what the group holds takes nothing away: nothing more is granted."""
    return reply(as_json(await groups.configure(context, actor, group, **_changes(body))))


def _changes(body: NewShares) -> Changes:
    """What was given, null among it: to leave out a limit is not to take it away."""
    changes: Changes = {}
    if body.guarantee is not None:
        changes["guarantee"] = body.guarantee
    if body.weight is not None:
        changes["weight"] = body.weight
    if "limit" in body.model_fields_set:
        changes["limit"] = body.limit
    if "idle" in body.model_fields_set:
        changes["idle"] = idleness.wish(body.idle)
    return changes


@router.delete("/{group}", status_code=204, summary="Remove a group")
async def delete(context: ContextDep, actor: Writer, group: str) -> Response:
    """Its members stay. Refused while they hold accelerators or wait for some."""
    await groups.remove(context, actor, group)
    return no_content()


@router.post("/{group}/members", response_model=Group, status_code=201, summary="Add a member")
async def add_member(context: ContextDep, actor: Manager, group: str, body: NewMember) -> Response:
    """A person who is in no group. For the group's managers as well, as below."""
    return reply(as_json(await groups.add_member(context, actor, group, body.user)), 201)


@router.patch(
    "/{group}/members/{user}", response_model=Group, summary="Set a member's most accelerators"
)
async def set_quota(
    context: ContextDep, actor: Manager, group: str, user: str, body: MemberQuota
) -> Response:
    """Up to the group's limit."""
    changed = await groups.set_quota(context, actor, group, user, body.accelerators)
    return reply(as_json(changed))


@router.delete("/{group}/members/{user}", status_code=204, summary="Remove a member")
async def remove_member(context: ContextDep, actor: Manager, group: str, user: str) -> Response:
    """What they hold goes on, and counts for the group until it ends."""
    await groups.remove_member(context, actor, group, user)
    return no_content()


@router.put(
    "/{group}/members/{user}/manager", response_model=Group, summary="Make a member a manager"
)
async def set_manager(
    context: ContextDep, actor: Writer, group: str, user: str, body: MemberRole
) -> Response:
    """Or no longer. A manager keeps the group's people and sees their leases."""
    changed = await groups.set_manager(context, actor, group, user, body.is_manager)
    return reply(as_json(changed))
