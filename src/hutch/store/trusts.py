"""Whose apps people open at hutch's own address, having been told what that means."""

from datetime import datetime

from sqlalchemy import select

from hutch.store.db import Session
from hutch.store.tables import trusts


async def exists(session: Session, user_id: str, owner_id: str) -> bool:
    query = select(trusts.c.user_id).where(
        trusts.c.user_id == user_id, trusts.c.owner_id == owner_id
    )
    return (await session.execute(query)).one_or_none() is not None


async def add(session: Session, user_id: str, owner_id: str, at: datetime) -> None:
    """Write down that a person trusts another's apps."""
    if not await exists(session, user_id, owner_id):
        await session.execute(
            trusts.insert().values(user_id=user_id, owner_id=owner_id, created_at=at)
        )
