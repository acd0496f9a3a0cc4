"""The audit: rows are added, and removed by age alone."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select

from hutch.domain.events import Event
from hutch.domain.people import Actor
from hutch.store.db import Session, columns
from hutch.store.tables import events


async def record(
    session: Session,
    actor: Actor,
    at: datetime,
    action: str,
    target: tuple[str, str, str],
    *,
    owner_id: str | None = None,
    result: str = "ok",
    **detail: Any,
) -> None:
    """Add an event. `target` is kind, id and name; `detail` must hold no secret."""
    kind, target_id, name = target
    await session.execute(
        events.insert().values(
            at=at,
            actor_id=actor.user_id or None,
            actor_name=actor.name,
            action=action,
            target_kind=kind,
            target_id=target_id,
            target_name=name,
            owner_id=owner_id,
            result=result,
            address=actor.address,
            request_id=actor.request_id,
            detail=detail,
        )
    )


async def list_events(
    session: Session,
    *,
    limit: int,
    before: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    target_id: str | None = None,
) -> list[Event]:
    """Newest first. `before` is an event's id, to page back; `action` matches as a prefix."""
    query = select(events).order_by(events.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(events.c.id < before)
    if actor is not None:
        query = query.where(events.c.actor_name == actor)
    if action is not None:
        query = query.where(events.c.action.startswith(action, autoescape=True))
    if target_id is not None:
        query = query.where(events.c.target_id == target_id)
    return [Event(**columns(row)) for row in await session.execute(query)]


async def latest(session: Session) -> int:
    """The id of the latest event; every later one has a higher id. 0 where there is none."""
    return (await session.execute(select(func.max(events.c.id)))).scalar_one() or 0


async def details_after(
    session: Session, event_id: int, action: str, target_id: str
) -> list[dict[str, Any]]:
    """The details of what was done to a target after an event."""
    query = select(events.c.detail).where(
        events.c.id > event_id, events.c.action == action, events.c.target_id == target_id
    )
    return list((await session.execute(query)).scalars())


async def delete_before(session: Session, moment: datetime) -> int:
    return (await session.execute(delete(events).where(events.c.at < moment))).rowcount
