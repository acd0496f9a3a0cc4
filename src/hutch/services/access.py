"""Authorisation as the use cases apply it, and how a person names a thing."""

from hutch.domain.instances import Instance
from hutch.domain.people import Actor
from hutch.domain.permissions import Action, can
from hutch.errors import ForbiddenError, NotFoundError
from hutch.store import instances
from hutch.store.db import Session


def require(actor: Actor, action: Action, owner_id: str | None = None) -> None:
    """Raise ForbiddenError unless `actor` may do `action`."""
    if not can(actor, action, owner_id):
        raise ForbiddenError(
            f"You may not do this: it needs the permission {action.value}.",
            hint="Ask an administrator, or use a token with full scope.",
            action=action.value,
        )


async def find_instance(session: Session, actor: Actor, action: Action, ref: str) -> Instance:
    """The instance that `ref` names, if `actor` may do `action` with it.

    `ref` is an id, or the name of one of the actor's own instances. What the actor may not even
    see answers NotFoundError, as if it did not exist.
    """
    instance = await instances.find_instance(session, actor.user_id, ref)
    if instance is None:
        instance = await instances.get_instance(session, ref)
    if instance is None or not can(actor, Action.INSTANCE_READ, instance.owner_id):
        raise NotFoundError("instance", ref)
    require(actor, action, instance.owner_id)
    return instance
