"""Groups: administrators keep them, and their managers keep the people in them."""

from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from hutch.domain import names
from hutch.domain.groups import Group, IdleWish
from hutch.domain.ids import new_id
from hutch.domain.people import Actor, User
from hutch.domain.permissions import Action, can
from hutch.errors import ConflictError, ForbiddenError, InvalidLimitError, NotFoundError
from hutch.services import scheduling
from hutch.services.access import require
from hutch.services.context import Context
from hutch.store import events, groups, users
from hutch.store.db import Session, lock
from hutch.store.leases import lock_leases

MOST_ACCELERATORS = 100_000
MOST_WEIGHT = 1000.0


class Changes(TypedDict, total=False):
    """What of a group is to change; what is left out stays."""

    guarantee: int
    limit: int | None
    weight: float
    idle: IdleWish | None
    """None: the node's policy, or the lab's."""


@dataclass(frozen=True, slots=True)
class MemberStanding:
    user_name: str
    is_manager: bool
    maximum: int
    """The most accelerators that they may hold."""
    held: int
    """Accelerators that they hold or wait for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A group, who is in it, and what it has."""

    group: Group
    members: tuple[MemberStanding, ...]
    held: int
    waiting: int
    """Accelerators that its members wait for."""


async def add(
    context: Context,
    actor: Actor,
    name: str,
    *,
    guarantee: int = 0,
    limit: int | None = None,
    weight: float = 1.0,
    idle: IdleWish | None = None,
) -> Standing:
    """Add a group without members."""
    require(actor, Action.GROUP_WRITE)
    group = _checked(
        Group(
            id=new_id(),
            name=names.group_name(name),
            guarantee=guarantee,
            limit=limit,
            weight=weight,
            idle=None if idle is None else idle.on(context.settings.idle_policy),
            created_at=context.now(),
        )
    )
    async with context.db.write() as session:
        await groups.add_group(session, group)
        await _record(session, context, actor, "group.add", group, **_shown(group))
    return Standing(group, (), held=0, waiting=0)


async def configure(
    context: Context, actor: Actor, name: str, **changes: Unpack[Changes]
) -> Standing:
    """Change a group's guarantee, limit, weight or policy of idleness.

    A limit below what the group holds takes nothing away: nothing more is granted.
    """
    async with context.db.write() as session:
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_WRITE, name)
        changed = _checked(_changed(context, group, changes))
        if changed != group:
            now, before = _shown(changed), _shown(group)
            different = {key: value for key, value in now.items() if value != before[key]}
            await groups.update_group(session, group.id, **different)
            await _record(session, context, actor, "group.configure", group, changes=different)
        standing = await _standing(session, context, changed)
    scheduling.poke(context)
    return standing


def _changed(context: Context, group: Group, changes: Changes) -> Group:
    plain = {key: value for key, value in changes.items() if key != "idle"}
    changed = replace(group, **plain)
    if "idle" not in changes:
        return changed
    wish = changes["idle"]
    idle = None if wish is None else wish.on(group.idle or context.settings.idle_policy)
    return replace(changed, idle=idle)


def _checked(group: Group) -> Group:
    """The group, or InvalidLimitError."""
    if not 0 <= group.guarantee <= MOST_ACCELERATORS:
        raise InvalidLimitError("guarantee", str(group.guarantee), f"0 to {MOST_ACCELERATORS}")
    if group.limit is not None and not group.guarantee <= group.limit <= MOST_ACCELERATORS:
        raise InvalidLimitError(
            "limit",
            str(group.limit),
            f"{group.guarantee} (what is guaranteed) to {MOST_ACCELERATORS}, or none",
        )
    if not 0 < group.weight <= MOST_WEIGHT:
        allowed = f"more than 0 and at most {MOST_WEIGHT:g}"
        raise InvalidLimitError("weight", f"{group.weight:g}", allowed)
    return group


def _shown(group: Group) -> dict[str, Any]:
    """What of a group can change, as it is stored and as the audit has it."""
    return {
        "guarantee": group.guarantee,
        "limit": group.limit,
        "weight": group.weight,
        "idle": None if group.idle is None else group.idle.as_dict(),
    }


async def remove(context: Context, actor: Actor, name: str) -> None:
    """Remove a group that nobody holds or waits for anything in. Its members stay."""
    async with context.db.write() as session:
        await lock_leases(session)
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_WRITE, name)
        held, waiting = (await groups.holdings(session)).get(group.id, (0, 0))
        if held or waiting:
            raise ConflictError(
                f"The members of {name} hold {held} accelerators and wait for {waiting}.",
                hint="`hutch gpu list` shows who does. Remove the group once they are released.",
                held=held,
                waiting=waiting,
            )
        await groups.delete_group(session, group.id)
        await _record(session, context, actor, "group.remove", group)


async def list_all(context: Context, actor: Actor) -> list[Standing]:
    """Every group for an administrator; one's own for anybody else."""
    require(actor, Action.GROUP_READ)
    async with context.db.read() as session:
        if actor.is_admin:
            found = await groups.list_groups(session)
        else:
            own = await groups.group_of(session, actor.user_id)
            found = [] if own is None else [own]
        return await _standings(session, context, found)


async def show(context: Context, actor: Actor, name: str) -> Standing:
    """A group: any for an administrator, one's own for anybody else."""
    async with context.db.read() as session:
        group = await _find(session, actor, Action.GROUP_READ, name)
        return await _standing(session, context, group)


async def add_member(context: Context, actor: Actor, name: str, user_name: str) -> Standing:
    """Put a person who is in no group into this one."""
    async with context.db.write() as session:
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_MANAGE, name)
        user = await _find_user(session, context, user_name)
        await groups.add_member(session, group.id, user.id, user.name)
        await _record(
            session, context, actor, "group.add_member", group, user=user.name, owner_id=user.id
        )
        standing = await _standing(session, context, group)
    scheduling.poke(context)
    return standing


async def remove_member(context: Context, actor: Actor, name: str, user_name: str) -> None:
    """Take a person out of a group. What they hold stays counted to it until it ends.

    What a manager let them hold above the lab's default ends with the membership: it was the
    group's to give.
    """
    async with context.db.write() as session:
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_MANAGE, name)
        user = await _find_member(session, context, actor, group, user_name)
        await groups.remove_member(session, group.id, user.id)
        default = context.settings.quota_accelerators
        if not actor.is_admin and user.quota.accelerators > default:
            await users.update_user(session, user.id, quota_accelerators=None)
        await _record(
            session, context, actor, "group.remove_member", group, user=user.name, owner_id=user.id
        )
    scheduling.poke(context)


async def set_manager(
    context: Context, actor: Actor, name: str, user_name: str, is_manager: bool
) -> Standing:
    """Let a member keep the group's people, or no longer."""
    async with context.db.write() as session:
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_WRITE, name)
        user = await _find_member(session, context, actor, group, user_name)
        await groups.set_manager(session, group.id, user.id, is_manager)
        await _record(
            session, context, actor, "group.set_manager", group,
            user=user.name, is_manager=is_manager, owner_id=user.id,
        )  # fmt: skip
        return await _standing(session, context, group)


async def set_quota(
    context: Context, actor: Actor, name: str, user_name: str, accelerators: int
) -> Standing:
    """Set the most accelerators that a member may hold, up to the group's limit.

    One below what they hold takes nothing away: nothing more is granted.
    """
    async with context.db.write() as session:
        await lock(session, "groups")
        group = await _find(session, actor, Action.GROUP_MANAGE, name)
        user = await _find_member(session, context, actor, group, user_name)
        most = MOST_ACCELERATORS if group.limit is None else group.limit
        if not 0 <= accelerators <= most:
            allowed = f"0 to {most}" if group.limit is None else f"0 to {most}, the group's limit"
            raise InvalidLimitError("accelerators", str(accelerators), allowed)
        await users.update_user(session, user.id, quota_accelerators=accelerators)
        await events.record(
            session, actor, context.now(), "user.configure", ("user", user.id, user.name),
            owner_id=user.id, changes={"quota_accelerators": accelerators}, group=group.name,
        )  # fmt: skip
        standing = await _standing(session, context, group)
    scheduling.poke(context)
    return standing


async def _find(session: Session, actor: Actor, action: Action, name: str) -> Group:
    """The group of that name, if `actor` may do `action` with it.

    One that is neither the actor's own nor managed by them answers NotFoundError.
    """
    group = await groups.find_group(session, name)
    if group is not None and not actor.is_admin and actor.manages != group.id:
        own = await groups.group_of(session, actor.user_id)
        group = group if own is not None and own.id == group.id else None
    if group is None:
        raise NotFoundError("group", name)
    require(actor, action, group.id if action is Action.GROUP_MANAGE else None)
    return group


async def _find_user(session: Session, context: Context, name: str) -> User:
    user = await users.find_user(session, name, context.settings.default_quota)
    if user is None:
        raise NotFoundError("user", name, hint="Ask them which name they sign in with.")
    return user


async def _find_member(
    session: Session, context: Context, actor: Actor, group: Group, name: str
) -> User:
    """A member of the group whom the actor may change: another manager is for administrators."""
    members = (await groups.members(session, group.id)).get(group.id, [])
    member = next((each for each in members if each.user_name == name), None)
    if member is None:
        raise NotFoundError("member", name, hint=f"`hutch group show {group.name}` lists them.")
    is_other_manager = member.is_manager and member.user_id != actor.user_id
    if is_other_manager and not can(actor, Action.GROUP_WRITE):
        raise ForbiddenError(
            f"{name} manages {group.name} as well.", hint="Ask an administrator to change this."
        )
    return await _find_user(session, context, name)


async def _standing(session: Session, context: Context, group: Group) -> Standing:
    (found,) = await _standings(session, context, [group])
    return found


async def _standings(session: Session, context: Context, found: list[Group]) -> list[Standing]:
    if not found:
        return []
    members = await groups.members(session, found[0].id if len(found) == 1 else None)
    everyone = await users.list_users(session, context.settings.default_quota)
    maximum = {user.id: user.quota.accelerators for user in everyone}
    held = {user_id: of.accelerators for user_id, of in (await users.holdings(session)).items()}
    of_groups = await groups.holdings(session)
    return [
        Standing(
            group,
            tuple(
                MemberStanding(
                    member.user_name,
                    member.is_manager,
                    maximum.get(member.user_id, 0),
                    held.get(member.user_id, 0),
                )
                for member in members.get(group.id, [])
            ),
            *of_groups.get(group.id, (0, 0)),
        )
        for group in found
    ]


async def _record(
    session: Session,
    context: Context,
    actor: Actor,
    action: str,
    group: Group,
    *,
    owner_id: str | None = None,
    **detail: Any,
) -> None:
    await events.record(
        session, actor, context.now(), action, ("group", group.id, group.name),
        owner_id=owner_id, **detail,
    )  # fmt: skip
