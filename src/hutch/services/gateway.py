"""What the SSH gateway asks: whose key this is, where a name leads, and what of it still holds."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor, Role
from hutch.domain.permissions import Action, can
from hutch.errors import ForbiddenError, NotFoundError
from hutch.services.access import find_instance
from hutch.services.context import Context
from hutch.store import events, instances, keys
from hutch.store.db import Session

NOBODY = Actor("", "nobody", Role.MEMBER)
_MOST_KEYS = 5
"""Fingerprints that the record of a refusal names."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody came to the gateway with these keys, and was let in or was not."""

    actor: Actor
    """Who it is, from where; `NOBODY` with an address when none of the keys was known."""
    fingerprints: tuple[str, ...]
    at: datetime
    times: int = 1
    """How often, where several refusals from one address are told as one."""


async def whose_key(
    context: Context, fingerprint: str, name: str, *, address: str, request_id: str
) -> tuple[Actor, Instance | None] | None:
    """The person behind a key, and the instance that a name leads them to, if it leads to one.

    None when nobody has registered the key, or they are disabled. Both are looked up at once: this
    is what everybody who logs in waits for.
    """
    async with context.db.read() as session:
        found = await keys.holder(session, fingerprint)
        if found is None:
            return None
        user_id, person, role = found
        actor = Actor(user_id, person, role, address=address, request_id=request_id)
        try:
            return actor, await _reachable(session, actor, name)
        except (NotFoundError, ForbiddenError):
            return actor, None


async def reachable(context: Context, actor: Actor, name: str) -> Instance:
    """The instance that a name leads the actor to.

    `name` is what one's own is called, its id, or `name.owner`; what others share is named as
    `find_instance` says. Whatever else it is (an address, the name of a server, somebody else's
    instance) it is no instance: NotFoundError.
    """
    async with context.db.read() as session:
        return await _reachable(session, actor, name)


async def _reachable(session: Session, actor: Actor, name: str) -> Instance:
    own, dot, owner = name.lower().partition(".")
    ref = f"{owner}/{own}" if dot else own
    return await find_instance(session, actor, Action.INSTANCE_EXEC, ref)


async def still_known(context: Context, fingerprints: Collection[str]) -> dict[str, str]:
    """The user id behind each key that would still be let in."""
    async with context.db.read() as session:
        return await keys.holders(session, fingerprints)


async def still_reachable(
    context: Context, ways: Collection[tuple[Actor, str]]
) -> dict[tuple[str, str], InstanceState]:
    """Which of these ways, from an actor to an instance's id, are still open to them.

    Answers with pairs of the user's and the instance's id, and the state of the instance.
    """
    async with context.db.read() as session:
        found = await instances.owners(session, {instance_id for _, instance_id in ways})
        return {
            (actor.user_id, instance_id): found[instance_id][1]
            for actor, instance_id in ways
            if instance_id in found
            and (
                can(actor, Action.INSTANCE_EXEC, found[instance_id][0])
                or await _is_shared(session, actor, instance_id)
            )
        }


async def _is_shared(session: Session, actor: Actor, instance_id: str) -> bool:
    try:
        await find_instance(session, actor, Action.INSTANCE_EXEC, instance_id)
    except (NotFoundError, ForbiddenError):
        return False
    return True


async def set_wake(context: Context, actor: Actor, ref: str, wake: bool) -> Instance:
    """Say whether coming through the gateway starts an instance that is stopped."""
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.INSTANCE_CONFIGURE, ref)
        if instance.wake_on_ssh is not wake:
            await instances.update_instance(session, instance.id, wake_on_ssh=wake)
            await events.record(
                session, actor, context.now(), "instance.set_wake",
                ("instance", instance.id, instance.name),
                owner_id=instance.owner_id, wake=wake,
            )  # fmt: skip
    return replace(instance, wake_on_ssh=wake)


async def record(context: Context, visits: Sequence[Visit]) -> None:
    """Write visits to the audit, all of them in one transaction."""
    async with context.db.write() as session:
        for visit in visits:
            actor = visit.actor
            if actor.user_id:
                await events.record(
                    session, actor, visit.at, "gateway.login",
                    ("user", actor.user_id, actor.name),
                    owner_id=actor.user_id, fingerprint=visit.fingerprints[0],
                )  # fmt: skip
            else:
                await events.record(
                    session, actor, visit.at, "gateway.login", ("user", "", "(unknown)"),
                    result="refused", times=visit.times,
                    fingerprints=list(visit.fingerprints[:_MOST_KEYS]),
                )  # fmt: skip
