"""Leases: what a person asks of the lab's accelerators."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypedDict

from hutch.domain.groups import Group
from hutch.domain.ids import new_id
from hutch.domain.instances import Instance
from hutch.domain.leases import EndReason, Lease, LeaseState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.scheduler import may_extend
from hutch.errors import (
    ExtensionRefusedError,
    InvalidDurationError,
    InvalidInputError,
    InvalidLimitError,
    NotFoundError,
    WrongStateError,
)
from hutch.services import agents, lending, scheduling
from hutch.services.access import find_instance, require
from hutch.services.admission import (
    check_node,
    check_quota,
    duration_of,
    model_of,
    running_machine,
)
from hutch.services.announcements import withdraw
from hutch.services.context import Context
from hutch.services.operations import ANOTHER_SERVER_SECONDS
from hutch.services.sight import seen_by, sees
from hutch.services.transitions import end
from hutch.store import events, groups, leases
from hutch.store.db import Session

MOST = 1000
"""Rows of the history in one answer."""
ANSWER_SECONDS = 1.0
"""So long does a change wait for the pass that it causes, to answer with what came of it."""
_LISTED = "`hutch gpu queue` and `hutch gpu history` show what there is."


class _Whose(TypedDict, total=False):
    owner_id: str
    group_id: str
    instance_id: str


async def take(
    context: Context,
    actor: Actor,
    *,
    count: int,
    instance: str | None = None,
    model: str | None = None,
    minutes: int | None = None,
) -> Lease:
    """Ask for `count` accelerators for an instance, for the actor's only running one if none is
    named. The answer holds them already when they are free and nobody comes first.

    What can never be had is refused at once: more than the node has, more than the person or the
    group may hold.
    """
    require(actor, Action.LEASE_WRITE)
    duration = duration_of(context, minutes)
    wanted = model_of(model)
    if count < 1:
        raise InvalidLimitError("The number of accelerators", str(count), "1 or more")
    async with context.db.write() as session:
        await leases.lock_leases(session)
        machine = await running_machine(session, actor, instance)
        await check_node(session, machine, count, wanted)
        group = await groups.group_of(session, machine.owner_id)
        await check_quota(session, context, machine, count, group)
        lease = _waiting(context, machine, group, count, wanted, duration)
        await leases.add_lease(session, lease)
        await _record(
            session, context, actor, "lease.take", lease,
            count=count, model=wanted, minutes=duration // timedelta(minutes=1),
        )  # fmt: skip
    [lease] = await _settled(context, actor, lease.id)
    return lease


def _waiting(
    context: Context,
    machine: Instance,
    group: Group | None,
    count: int,
    model: str | None,
    duration: timedelta,
) -> Lease:
    return Lease(
        id=new_id(),
        instance_id=machine.id,
        instance_name=machine.name,
        owner_id=machine.owner_id,
        owner_name=machine.owner_name,
        group_id=None if group is None else group.id,
        group_name=None if group is None else group.name,
        node_id=machine.node_id,
        node_name=machine.node_name,
        count=count,
        model=model,
        duration=duration,
        state=LeaseState.QUEUED,
        end_reason=None,
        requested_at=context.now(),
        granted_at=None,
        active_at=None,
        expires_at=None,
        ended_at=None,
        accelerators=(),
        announcement=None,
        evidence=None,
        explanation=None,
        error=None,
    )


async def _settled(context: Context, actor: Actor, *lease_ids: str) -> list[Lease]:
    """The leases after the pass that a change of them causes, unless that takes long."""
    context.hints.work.set()
    await asyncio.wait({scheduling.poke(context)}, timeout=ANSWER_SECONDS)
    return await _changed(context, actor, *lease_ids)


async def _changed(context: Context, actor: Actor, *lease_ids: str) -> list[Lease]:
    context.hints.work.set()
    for lease_id in lease_ids:
        context.hints.changed(lease_id)
    return [await show(context, actor, lease_id) for lease_id in lease_ids]


async def release(
    context: Context, actor: Actor, *, lease: str | None = None, instance: str | None = None
) -> list[Lease]:
    """Give back a lease, or all of an instance's; with neither, the only instance's with any.

    One that is going back already is answered as it is.
    """
    require(actor, Action.LEASE_WRITE)
    async with context.db.write() as session:
        await leases.lock_leases(session)
        found = await _named(session, actor, lease, instance)
        for each in found:
            await end(session, context, actor, each, EndReason.RELEASED)
            if each.state is LeaseState.ACTIVE:
                await lending.have_shut(session, context, each)
    for each in found:
        agents.hint(context, each.node_id)
    if any(each.state is LeaseState.QUEUED for each in found):
        return await _settled(context, actor, *(each.id for each in found))
    # Nothing is free before it is out, and then there is a pass.
    return await _changed(context, actor, *(each.id for each in found))


async def _named(
    session: Session, actor: Actor, lease_id: str | None, ref: str | None
) -> list[Lease]:
    """The live leases that somebody means. Raises WrongStateError when there is none."""
    if lease_id is not None:
        return [_live(await _find(session, actor, Action.LEASE_WRITE, lease_id))]
    if ref is not None:
        machine = await find_instance(session, actor, Action.LEASE_WRITE, ref)
        found = await leases.list_live(session, instance_id=machine.id)
    else:
        found = await leases.list_live(session, owner_id=actor.user_id)
        names = sorted({each.instance_name for each in found})
        if len(names) > 1:
            raise InvalidInputError(
                f"Several of your machines have leases: {', '.join(names)}.",
                hint="Name one with `--on`.",
                instances=names,
            )
    if not found:
        raise WrongStateError(
            f"{ref or 'No machine of yours'} has {'no' if ref else 'a'} lease.", hint=_LISTED
        )
    return found


def _live(lease: Lease) -> Lease:
    if lease.state is LeaseState.ENDED:
        raise WrongStateError(
            f"The lease has ended: {lease.end_reason}.",
            hint="`hutch gpu take` asks for a new one.",
            state=lease.state,
            reason=lease.end_reason,
        )
    return lease


async def _find(session: Session, actor: Actor, action: Action, lease_id: str) -> Lease:
    """A lease that the actor may see; anybody else's does not exist for them."""
    lease = await leases.get_lease(session, lease_id)
    if lease is None or not sees(actor, lease):
        raise NotFoundError("lease", lease_id, hint=_LISTED)
    if action is not Action.LEASE_READ:
        require(actor, action, lease.owner_id)
    return lease


async def extend(
    context: Context,
    actor: Actor,
    *,
    minutes: int,
    lease: str | None = None,
    instance: str | None = None,
) -> Lease:
    """Let a lease run `minutes` longer, and withdraw what was announced about its end.

    Raises ExtensionRefusedError while somebody entitled to the accelerators waits for them.
    """
    require(actor, Action.LEASE_WRITE)
    async with context.db.write() as session:
        await leases.lock_leases(session)
        found = await _one_active(session, actor, lease, instance)
        now = context.now()
        expires_at = max(found.expires_at or now, now) + _more(context, found, minutes)
        await _check_extension(session, context, found)
        if found.announcement and found.announcement.reason is not EndReason.PREEMPTED:
            await withdraw(session, context, actor, found, "extended")
        # Who extends has somebody at work: what was before does not count as idle any more.
        evidence = {**(found.evidence or {}), "extended_at": now.isoformat()}
        await leases.update_lease(session, found.id, expires_at=expires_at, evidence=evidence)
        await _record(
            session, context, actor, "lease.extend", found,
            minutes=minutes, until=expires_at.isoformat(),
        )  # fmt: skip
    [found] = await _settled(context, actor, found.id)
    return found


async def _one_active(
    session: Session, actor: Actor, lease_id: str | None, ref: str | None
) -> Lease:
    found = await _named(session, actor, lease_id, ref)
    if lease_id is None:
        found = [each for each in found if each.state is LeaseState.ACTIVE] or found
    if len(found) > 1:
        raise InvalidInputError(
            f"There are {len(found)} leases of {found[0].instance_name}.",
            hint=f"Name one: {', '.join(each.id for each in found)}.",
            leases=[each.id for each in found],
        )
    [lease] = found
    if lease.state not in {LeaseState.ATTACHING, LeaseState.ACTIVE}:
        raise WrongStateError(
            f"The lease is {lease.state}; only one that holds accelerators can be extended.",
            hint="`hutch gpu why` tells what it waits for."
            if lease.state is LeaseState.QUEUED
            else "`hutch gpu take` asks for a new one.",
            state=lease.state,
        )
    return lease


def _more(context: Context, lease: Lease, minutes: int) -> timedelta:
    """The time to add. Raises InvalidDurationError when the lease would end too far from now."""
    longest = context.settings.lease_longest_minutes
    now = context.now()
    left = now + timedelta(minutes=longest) - max(lease.expires_at or now, now)
    most = left // timedelta(minutes=1)
    if not 1 <= minutes <= most:
        raise InvalidDurationError(
            f"{minutes} minutes more",
            f"1 to {most} minutes: a lease ends {longest} minutes from now at the latest"
            if most >= 1
            else f"nothing yet: it ends {longest} minutes from now as it is, which is the latest",
        )
    return timedelta(minutes=minutes)


async def _check_extension(session: Session, context: Context, lease: Lease) -> None:
    now = context.now()
    picture = await scheduling.read(session, context, now)
    blocking = may_extend(scheduling.situation(context, picture, now), lease.id)
    if blocking is None:
        return
    waiting = await leases.get_lease(session, blocking)
    assert waiting is not None  # noqa: S101 - it was read in this transaction
    raise ExtensionRefusedError(
        f"{waiting.owner_name} waits for {waiting.count} accelerators of {lease.node_name} "
        "and comes first.",
        hint="The lease runs until its end. Save your work by then, and take a new one.",
        lease=lease.id,
        waiting=blocking,
    )


async def show(context: Context, actor: Actor, lease_id: str) -> Lease:
    async with context.db.read() as session:
        return await _find(session, actor, Action.LEASE_READ, lease_id)


async def list_all(
    context: Context,
    actor: Actor,
    *,
    everyone: bool = False,
    live: bool = True,
    instance: str | None = None,
) -> list[Lease]:
    """One's own leases, newest first, or everyone's (see `_whose`); or an instance's.

    `live`: without those that have ended, of which there are at most `MOST`.
    """
    require(actor, Action.LEASE_READ)
    async with context.db.read() as session:
        of: _Whose = _whose(actor, everyone)
        if instance is not None:
            machine = await find_instance(session, actor, Action.LEASE_READ, instance)
            of = {"instance_id": machine.id, "owner_id": machine.owner_id}
        if live:
            return (await leases.list_live(session, **of))[::-1]
        return await leases.list_leases(session, limit=MOST, **of)


async def history(
    context: Context,
    actor: Actor,
    *,
    everyone: bool = False,
    limit: int = 50,
    before: str | None = None,
) -> list[Lease]:
    """Leases that have ended, latest asked for first; `before` is a lease's id, to page back."""
    require(actor, Action.LEASE_READ)
    async with context.db.read() as session:
        return await leases.list_leases(
            session,
            limit=min(limit, MOST),
            ended=True,
            before=before,
            **_whose(actor, everyone),
        )


def _whose(actor: Actor, everyone: bool) -> _Whose:
    """What narrows a list down: to the actor's own, and with `everyone` to their group's if they
    manage one, to nothing for administrators. Raises ForbiddenError for anybody else."""
    if not everyone:
        return {"owner_id": actor.user_id}
    if not actor.is_admin and actor.manages is not None:
        return {"group_id": actor.manages}
    require(actor, Action.USER_READ)
    return {}


async def queue(context: Context, actor: Actor) -> list[Lease]:
    """Everyone's waiting leases, node by node, in the order in which it is their turn.

    Of another person's it says who waits for how many of what; not for which machine.
    """
    require(actor, Action.LEASE_READ)
    async with context.db.read() as session:
        waiting = await leases.list_live(session, states={LeaseState.QUEUED})
    return [seen_by(actor, lease) for lease in in_line(waiting)]


def in_line(waiting: Sequence[Lease]) -> list[Lease]:
    """Waiting leases by node and position; one that no pass has seen yet stands at the end."""

    def place(lease: Lease) -> tuple[Any, ...]:
        position = (lease.explanation or {}).get("position")
        return (lease.node_name, position is None, position or 0, lease.requested_at, lease.id)

    return sorted(waiting, key=place)


async def wait(
    context: Context, actor: Actor, lease_id: str, *, timeout: float, seen: str = ""
) -> Lease:
    """The lease once it no longer reads as `seen`, or after `timeout` seconds.

    Without `seen`, which is what `version` gave for the state that the caller knows: once it
    neither waits nor is on its way in or out. One that has ended is answered at once. Raises
    TooManyRequestsError when the actor waits for too many already.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    with context.waits.take(actor.user_id), context.hints.watching(lease_id) as changed:
        while True:
            changed.clear()
            lease = await show(context, actor, lease_id)
            left = deadline - loop.time()
            if _is_answer(lease, seen) or left <= 0:
                return lease
            # Not wait_for: Python 3.11 can lose a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, ANOTHER_SERVER_SECONDS)):
                    await changed.wait()


def _is_answer(lease: Lease, seen: str) -> bool:
    if lease.state is LeaseState.ENDED:
        return True
    return version(lease) != seen if seen else lease.state is LeaseState.ACTIVE


def version(lease: Lease) -> str:
    """A short text that changes whenever something about the lease that people see does."""
    why = lease.explanation or {}
    parts = (
        lease.state,
        lease.expires_at and int(lease.expires_at.timestamp()),
        lease.announcement and lease.announcement.notice_id,
        why.get("waiting"),
        why.get("position"),
        why.get("projected_start"),
    )
    return ".".join("" if part is None else str(part) for part in parts)


async def _record(
    session: Session, context: Context, actor: Actor, action: str, lease: Lease, **detail: Any
) -> None:
    await events.record(
        session,
        actor,
        context.now(),
        action,
        ("lease", lease.id, lease.instance_name),
        owner_id=lease.owner_id,
        node=lease.node_name,
        **detail,
    )
