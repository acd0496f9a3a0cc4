"""Sharing an instance: another person sees it, and logs in with keys of their own."""

from datetime import datetime

from hutch.domain.durations import parse_moment
from hutch.domain.ids import new_id
from hutch.domain.instances import Instance
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.permissions import Action
from hutch.domain.shares import Share
from hutch.errors import InvalidInputError, NotFoundError
from hutch.services.access import find_instance
from hutch.services.context import Context
from hutch.services.keys import push_keys
from hutch.store import events, instances, keys, shares, users
from hutch.store.db import Session


async def add(
    context: Context,
    actor: Actor,
    ref: str,
    person: str,
    *,
    read_only_view: bool = False,
    until: str | None = None,
) -> Share:
    """Let a person log in to an instance, or only look at it; or change what they may.

    `until` is a span or a moment, None for no end. Their keys go in at once.
    """
    now = context.now()
    ends = None if until is None else parse_moment(until, now)
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.SHARE_WRITE, ref)
        user = await users.find_user(session, person, context.settings.default_quota)
        if user is None:
            raise NotFoundError("user", person)
        if user.id == instance.owner_id:
            raise InvalidInputError(
                f"{instance.name} is {person}'s already.", hint="Name somebody else."
            )
        known = await shares.find_share(session, instance.id, user.id)
        share = Share(
            id=new_id() if known is None else known.id,
            instance_id=instance.id,
            user_id=user.id,
            user_name=user.name,
            read_only_view=read_only_view,
            until=ends,
            created_at=now if known is None else known.created_at,
        )
        await shares.put_share(session, share)
        await _bring_keys(session, context, actor, instance.id)
        await _record(session, actor, now, instance, share)
    context.hints.work.set()
    # Whoever ends shares looks again at when the next one is due.
    context.hints.reconcile.set()
    return share


async def remove(context: Context, actor: Actor, ref: str, person: str) -> None:
    """Share an instance with a person no longer: their keys leave at once.

    It is the owner's to do, and that of whom it is shared with.
    """
    async with context.db.write() as session:
        own = person == actor.name
        action = Action.SHARE_READ if own else Action.SHARE_WRITE
        instance = await find_instance(session, actor, action, ref)
        user = await users.find_user(session, person, context.settings.default_quota)
        share = user and await shares.find_share(session, instance.id, user.id)
        if share is None:
            raise NotFoundError("share", person, hint="`hutch show` tells who shares it.")
        await _end(session, context, actor, instance, share)
    context.hints.work.set()


async def list_all(context: Context, actor: Actor, ref: str) -> list[Share]:
    """With whom an instance is shared; to one of those people, how it is shared with them."""
    async with context.db.read() as session:
        instance = await find_instance(session, actor, Action.SHARE_READ, ref)
        found = await shares.list_shares(session, instance.id)
    now = context.now()
    return [
        share
        for share in found
        if not share.has_ended(now) and (instance.share is None or share.user_id == actor.user_id)
    ]


async def end_due(context: Context) -> datetime | None:
    """End those whose time is over. Answers when the next one ends."""
    now = context.now()
    async with context.db.read() as session:
        if not await shares.ended(session, now):
            return await shares.next_end(session)
    async with context.db.write() as session:
        for share in await shares.ended(session, now):
            instance = await instances.get_instance(session, share.instance_id)
            if instance is not None:
                await _end(session, context, SYSTEM, instance, share)
        following = await shares.next_end(session)
    context.hints.work.set()
    return following


async def _end(
    session: Session, context: Context, actor: Actor, instance: Instance, share: Share
) -> None:
    if await shares.delete_share(session, share.id):
        await _bring_keys(session, context, actor, instance.id)
        await _record(session, actor, context.now(), instance, share, ends=True)


async def _bring_keys(session: Session, context: Context, actor: Actor, instance_id: str) -> None:
    await keys.bump_guests(session, instance_id)
    await push_keys(session, context, actor, instance_id=instance_id)


async def _record(
    session: Session,
    actor: Actor,
    at: datetime,
    instance: Instance,
    share: Share,
    *,
    ends: bool = False,
) -> None:
    """An event for each of the two."""
    target = ("instance", instance.id, instance.name)
    verb = "unshare" if ends else "share"
    ends_at = None if share.until is None else share.until.isoformat()
    await events.record(
        session, actor, at, f"instance.{verb}", target, owner_id=instance.owner_id,
        person=share.user_name, read_only_view=share.read_only_view, until=ends_at,
    )  # fmt: skip
    await events.record(
        session, actor, at, f"instance.{verb}d", target, owner_id=share.user_id,
        owner=instance.owner_name, read_only_view=share.read_only_view, until=ends_at,
    )  # fmt: skip
