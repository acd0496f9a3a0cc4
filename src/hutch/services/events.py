"""The audit, for administrators."""

from hutch.domain.events import Event
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services.access import require
from hutch.services.context import Context
from hutch.store import events

MOST = 1000


async def list_all(
    context: Context,
    actor: Actor,
    *,
    limit: int = 100,
    before: int | None = None,
    by: str | None = None,
    action: str | None = None,
    target_id: str | None = None,
) -> list[Event]:
    """Newest first; `before` is an event's id, to page back."""
    require(actor, Action.EVENT_READ)
    async with context.db.read() as session:
        return await events.list_events(
            session,
            limit=min(limit, MOST),
            before=before,
            actor=by,
            action=action,
            target_id=target_id,
        )
