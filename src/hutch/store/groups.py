"""Groups, and who is in them."""

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.groups import Group, IdlePolicy, Member
from hutch.domain.leases import HOLDING, LeaseState
from hutch.domain.scheduler import GroupShare
from hutch.errors import ConflictError, NameTakenError
from hutch.store.db import Session, columns
from hutch.store.tables import groups, leases, memberships, users


def _group(row: Any) -> Group:
    return Group(**columns(row, idle=IdlePolicy.parse(row.idle)))


async def add_group(session: Session, group: Group) -> None:
    """Insert a group without members. Raises NameTakenError."""
    try:
        await session.execute(
            groups.insert().values(
                id=group.id,
                name=group.name,
                guarantee=group.guarantee,
                limit=group.limit,
                weight=group.weight,
                idle=None if group.idle is None else group.idle.as_dict(),
                created_at=group.created_at,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("a group called", group.name) from error


async def update_group(session: Session, group_id: str, **values: Any) -> None:
    """Change columns of one group."""
    await session.execute(update(groups).where(groups.c.id == group_id).values(**values))


async def delete_group(session: Session, group_id: str) -> None:
    """Remove a group; its members stay, and are in none."""
    await session.execute(delete(memberships).where(memberships.c.group_id == group_id))
    await session.execute(delete(groups).where(groups.c.id == group_id))


async def find_group(session: Session, name: str) -> Group | None:
    row = (await session.execute(select(groups).where(groups.c.name == name))).one_or_none()
    return None if row is None else _group(row)


async def get_group(session: Session, group_id: str) -> Group | None:
    row = (await session.execute(select(groups).where(groups.c.id == group_id))).one_or_none()
    return None if row is None else _group(row)


async def list_groups(session: Session) -> list[Group]:
    return [_group(row) for row in await session.execute(select(groups).order_by(groups.c.name))]


async def group_of(session: Session, user_id: str) -> Group | None:
    """The one group that a person is in."""
    query = (
        select(groups)
        .join(memberships, memberships.c.group_id == groups.c.id)
        .where(memberships.c.user_id == user_id)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _group(row)


async def shares(session: Session) -> dict[str, GroupShare]:
    """What every group is entitled to, by its id."""
    query = select(groups.c.id, groups.c.guarantee, groups.c.limit, groups.c.weight)
    return {
        group_id: GroupShare(guarantee, limit, weight)
        for group_id, guarantee, limit, weight in await session.execute(query)
    }


async def holdings(session: Session) -> dict[str, tuple[int, int]]:
    """Accelerators held by each group and waited for, by its id; without either it is not named."""
    query = (
        select(leases.c.group_id, leases.c.state, func.sum(leases.c.count))
        .where(leases.c.group_id.is_not(None), leases.c.state != LeaseState.ENDED.value)
        .group_by(leases.c.group_id, leases.c.state)
    )
    found: dict[str, tuple[int, int]] = {}
    for group_id, state, count in await session.execute(query):
        held, waiting = found.get(group_id, (0, 0))
        if LeaseState(state) in HOLDING:
            held += int(count)
        else:
            waiting += int(count)
        found[group_id] = held, waiting
    return found


async def add_member(session: Session, group_id: str, user_id: str, user_name: str) -> None:
    """Put a person into a group. Raises ConflictError when they are in one."""
    try:
        await session.execute(
            memberships.insert().values(user_id=user_id, group_id=group_id, is_manager=False)
        )
    except IntegrityError as error:
        raise ConflictError(
            f"{user_name} is in a group already, and nobody is in two.",
            hint="An administrator can take them out of it: `hutch group remove-member`.",
        ) from error


async def remove_member(session: Session, group_id: str, user_id: str) -> bool:
    """Take a person out of a group; whether they were in it."""
    gone = await session.execute(
        delete(memberships).where(
            memberships.c.group_id == group_id, memberships.c.user_id == user_id
        )
    )
    return gone.rowcount > 0


async def set_manager(session: Session, group_id: str, user_id: str, is_manager: bool) -> bool:
    """Make a member a manager or not; whether they are a member."""
    changed = await session.execute(
        update(memberships)
        .where(memberships.c.group_id == group_id, memberships.c.user_id == user_id)
        .values(is_manager=is_manager)
    )
    return changed.rowcount > 0


async def members(session: Session, group_id: str | None = None) -> dict[str, list[Member]]:
    """Members by the group's id, each group's by name: of one group, or of all."""
    query = (
        select(memberships.c.group_id, users.c.id, users.c.name, memberships.c.is_manager)
        .join(users, users.c.id == memberships.c.user_id)
        .order_by(users.c.name)
    )
    if group_id is not None:
        query = query.where(memberships.c.group_id == group_id)
    found: dict[str, list[Member]] = {}
    for of, user_id, name, is_manager in await session.execute(query):
        found.setdefault(of, []).append(Member(user_id, name, is_manager))
    return found
