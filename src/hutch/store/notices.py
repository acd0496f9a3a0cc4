"""Notices: what people must be told, and whether it has reached them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from hutch.domain.leases import Notice
from hutch.store.db import Session, columns
from hutch.store.tables import notices


def _notice(row: Any) -> Notice:
    return Notice(**columns(row))


async def add_notice(session: Session, notice: Notice) -> None:
    await session.execute(
        notices.insert().values({name: getattr(notice, name) for name in Notice.__slots__})
    )


async def get_notice(session: Session, notice_id: str) -> Notice | None:
    query = select(notices).where(notices.c.id == notice_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _notice(row)


async def list_notices(
    session: Session,
    *,
    limit: int,
    user_id: str | None = None,
    instance_id: str | None = None,
    unread: bool = False,
) -> list[Notice]:
    """Newest first."""
    query = select(notices).order_by(notices.c.created_at.desc(), notices.c.id)
    if user_id is not None:
        query = query.where(notices.c.user_id == user_id)
    if instance_id is not None:
        query = query.where(notices.c.instance_id == instance_id)
    if unread:
        query = query.where(notices.c.read_at.is_(None))
    return [_notice(row) for row in await session.execute(query.limit(limit))]


async def owners(session: Session, notice_ids: Collection[str]) -> dict[str, str]:
    """Whose notices these are, by id; one that is gone is left out."""
    query = select(notices.c.id, notices.c.user_id).where(notices.c.id.in_(notice_ids))
    return {row.id: row.user_id for row in await session.execute(query)}


async def delivered(session: Session, notice_ids: Collection[str]) -> dict[str, datetime]:
    """When each of these notices was delivered; those that were not are not named."""
    if not notice_ids:
        return {}
    query = select(notices.c.id, notices.c.delivered_at).where(
        notices.c.id.in_(notice_ids), notices.c.delivered_at.is_not(None)
    )
    return {row.id: row.delivered_at for row in await session.execute(query)}


async def set_delivered(session: Session, notice_id: str, at: datetime) -> bool:
    """Note when a notice arrived; False when that was known already."""
    query = (
        update(notices)
        .where(notices.c.id == notice_id, notices.c.delivered_at.is_(None))
        .values(delivered_at=at)
    )
    return (await session.execute(query)).rowcount == 1


async def set_read(
    session: Session, user_id: str, at: datetime, notice_ids: Collection[str] | None = None
) -> int:
    """Mark a person's notices as read, all of them or those named; how many were not."""
    query = update(notices).where(notices.c.user_id == user_id, notices.c.read_at.is_(None))
    if notice_ids is not None:
        query = query.where(notices.c.id.in_(notice_ids))
    return (await session.execute(query.values(read_at=at))).rowcount


async def take_back(session: Session, notice_id: str) -> bool:
    """Remove a notice that nobody has seen yet; False when it was delivered or read."""
    query = delete(notices).where(
        notices.c.id == notice_id, notices.c.delivered_at.is_(None), notices.c.read_at.is_(None)
    )
    return (await session.execute(query)).rowcount == 1


async def delete_before(session: Session, moment: datetime) -> int:
    return (await session.execute(delete(notices).where(notices.c.created_at < moment))).rowcount
