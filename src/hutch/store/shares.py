"""Which instances are shared with whom."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, or_, select

from hutch.domain.shares import Share
from hutch.store.db import Session, columns
from hutch.store.tables import shares, users

_SELECT: Select[Any] = select(shares, users.c.name.label("user_name")).join(
    users, users.c.id == shares.c.user_id
)


def lasting(now: datetime) -> Any:
    """The condition that a share has not ended."""
    return or_(shares.c.until.is_(None), shares.c.until > now)


async def put_share(session: Session, share: Share) -> None:
    """Share an instance with a person, or change how it is shared with them."""
    values = {"read_only_view": share.read_only_view, "until": share.until}
    known = shares.update().where(shares.c.id == share.id).values(**values)
    if (await session.execute(known)).rowcount == 0:
        await session.execute(
            shares.insert().values(
                id=share.id,
                instance_id=share.instance_id,
                user_id=share.user_id,
                created_at=share.created_at,
                **values,
            )
        )


async def find_share(session: Session, instance_id: str, user_id: str) -> Share | None:
    query = _SELECT.where(shares.c.instance_id == instance_id, shares.c.user_id == user_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else Share(**columns(row))


async def list_shares(session: Session, instance_id: str) -> list[Share]:
    query = _SELECT.where(shares.c.instance_id == instance_id).order_by(users.c.name)
    return [Share(**columns(row)) for row in await session.execute(query)]


async def received(session: Session, user_id: str, now: datetime) -> dict[str, Share]:
    """What others share with a person, by the instance's id."""
    query = _SELECT.where(shares.c.user_id == user_id, lasting(now))
    return {row.instance_id: Share(**columns(row)) for row in await session.execute(query)}


async def ended(session: Session, now: datetime) -> list[Share]:
    """Those whose time is over."""
    query = _SELECT.where(shares.c.until <= now).order_by(shares.c.until)
    return [Share(**columns(row)) for row in await session.execute(query)]


async def next_end(session: Session) -> datetime | None:
    """When the next one ends."""
    return (await session.execute(select(func.min(shares.c.until)))).scalar_one()


async def delete_share(session: Session, share_id: str) -> bool:
    """Remove a share; False when it was gone already."""
    return (await session.execute(delete(shares).where(shares.c.id == share_id))).rowcount == 1
