"""Authorisation as the use cases apply it, and how a person names a thing."""

from dataclasses import replace
from typing import Any

from hutch.domain.instances import Instance
from hutch.domain.people import Actor
from hutch.domain.permissions import Action, can
from hutch.domain.shares import Share
from hutch.errors import ConflictError, ForbiddenError, NotFoundError
from hutch.services.context import utc_now
from hutch.store import instances, shares, users
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

    `ref` is an id, a name, or `owner/name`. A name means one's own instance; only where one has
    none of that name does it mean the one that somebody shares. What the actor may not even see
    answers NotFoundError, as if it did not exist.
    """
    instance = await named(session, actor, ref)
    if instance is None:
        raise NotFoundError("instance", ref)
    share = await share_of(session, actor, instance)
    if not can(actor, Action.INSTANCE_READ, instance.owner_id, share):
        raise NotFoundError("instance", ref)
    if share is None:
        require(actor, action, instance.owner_id)
    elif not can(actor, action, instance.owner_id, share):
        raise ForbiddenError(
            f"{instance.owner_name} shares {instance.name} with you, but not for this.",
            hint=f"It needs the permission {action.value}: ask {instance.owner_name}.",
            action=action.value,
        )
    return replace(instance, share=share)


async def visible_instances(
    session: Session,
    actor: Actor,
    *,
    everyone: bool,
    owner: str | None,
    limit: int | None = None,
    after: str | None = None,
) -> list[Instance]:
    """Instances that the actor may see, as `services.instances.list_all` tells."""
    require(actor, Action.INSTANCE_READ)
    received = await shares.received(session, actor.user_id, utc_now())
    wanted: dict[str, Any] = {"owner_id": actor.user_id}
    if owner is not None and owner != actor.name:
        wanted = {"owner_name": owner}
        if not can(actor, Action.USER_READ):
            wanted["ids"] = received.keys()
        elif not await users.exists(session, owner):
            raise NotFoundError("user", owner)
    elif everyone and owner is None:
        require(actor, Action.USER_READ)
        wanted = {}
    elif owner is None:
        wanted["also"] = received.keys()
    found = await instances.list_instances(session, **wanted, limit=limit, after=after)
    if "ids" in wanted and not found and after is None:
        # Whether there is such a person, and whether they have any, is not told.
        require(actor, Action.USER_READ)
    return [replace(each, share=received.get(each.id)) for each in found] if received else found


async def named(session: Session, actor: Actor, ref: str) -> Instance | None:
    """The instance that `ref` means to the actor, whatever they may do with it."""
    own = await instances.find_instance(session, actor.user_id, ref)
    if own is not None:
        return own
    owner, slash, name = ref.partition("/")
    if slash:
        return await instances.find_owned(session, owner, name)
    return await instances.get_instance(session, ref) or await _shared(session, actor, ref)


async def _shared(session: Session, actor: Actor, name: str) -> Instance | None:
    """The one instance of a name that others share with the actor."""
    received = await shares.received(session, actor.user_id, utc_now())
    found = await instances.list_instances(session, ids=received, name=name) if received else []
    if len(found) > 1:
        whose = ", ".join(f"{each.owner_name}/{each.name}" for each in found)
        raise ConflictError(
            f"Several people share an instance {name!r} with you.", hint=f"Say which: {whose}."
        )
    return found[0] if found else None


async def share_of(session: Session, actor: Actor, instance: Instance) -> Share | None:
    """What the owner lets the actor do. Its end counts at once, whoever tidies it away later."""
    if instance.owner_id == actor.user_id:
        return None
    share = await shares.find_share(session, instance.id, actor.user_id)
    return None if share is None or share.has_ended(utc_now()) else share
