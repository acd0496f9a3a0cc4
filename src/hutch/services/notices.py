"""Notices: what people are told, brought to where they see it, and read."""

from collections.abc import Sequence

from hutch.domain.leases import Notice
from hutch.domain.operations import Kind
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.permissions import Action
from hutch.errors import NotFoundError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import notices, operations
from hutch.store.db import Session

MOST = 500
_LONGEST = 1000
"""Characters of a text: it must fit on a terminal that nobody reads just now."""


def target(notice_id: str) -> str:
    """A notice as the target of the operation that brings it."""
    return f"notice:{notice_id}"


async def deliver(session: Session, context: Context, notice: Notice, instance_name: str) -> bool:
    """Begin to bring a notice into its instance; False when that is under way already.

    Call `context.hints.work.set()` after the commit.
    """
    if await operations.live_operation(session, target(notice.id)) is not None:
        return False
    await enqueue(
        session,
        context,
        SYSTEM,
        Kind.NOTICE_DELIVER,
        target(notice.id),
        owner_id=notice.user_id,
        label=instance_name,
        params={"notice": notice.id, "instance": notice.instance_id},
    )
    return True


def printable(text: str) -> str:
    """What can be written on any terminal: it may quote names that somebody chose to do harm."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(shown.split())[:_LONGEST]


async def list_all(
    context: Context, actor: Actor, *, unread: bool = False, limit: int = 50
) -> list[Notice]:
    """One's own notices, newest first."""
    require(actor, Action.NOTICE_READ)
    async with context.db.read() as session:
        return await notices.list_notices(
            session, user_id=actor.user_id, unread=unread, limit=min(limit, MOST)
        )


async def mark_read(context: Context, actor: Actor, notice_ids: Sequence[str] | None = None) -> int:
    """Mark one's own notices as read, all of them or those named; how many were unread.

    Raises NotFoundError for one that is not there, or not the actor's.
    """
    require(actor, Action.NOTICE_WRITE)
    async with context.db.write() as session:
        if notice_ids is not None:
            owners = await notices.owners(session, notice_ids)
            for notice_id in notice_ids:
                if owners.get(notice_id) != actor.user_id:
                    raise NotFoundError("notice", notice_id)
        return await notices.set_read(session, actor.user_id, context.now(), notice_ids)
