"""How leases go from one state to the next: each change with its operation and its event.

    queued -> attaching -> active -> detaching -> ended

All of these work in an open transaction. Those that give or take (`grant`, `begin_detach`,
`end_waiting`, `end`) belong to one that has called `store.leases.lock_leases` before anything
else. Those that an operation ends with (`activate`, `fail`, `finish`) need no turn. After the
commit call `context.hints.work.set()` and `scheduling.poke`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hutch.domain.leases import EndReason, Lease, LeaseState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import SYSTEM, Actor
from hutch.services.announcements import tell_end, tell_grant
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import events, leases, operations
from hutch.store.db import Session

WAITED = timedelta(seconds=10)
"""Who has waited longer than this may look elsewhere, and is told when the accelerators come."""

_IN = frozenset({LeaseState.ATTACHING, LeaseState.ACTIVE})
_ENDED_BY = {
    EndReason.EXPIRED: "lease.expire",
    EndReason.IDLE: "lease.reclaim",
    EndReason.PREEMPTED: "lease.preempt",
}
"""The event where it is not `lease.release`."""


def target(lease_id: str) -> str:
    """A lease as the target of an operation."""
    return f"lease:{lease_id}"


async def grant(
    session: Session, context: Context, lease: Lease, slots: Mapping[str, int], at: datetime
) -> bool:
    """Give a waiting lease these accelerators (a free slot by id), and have them attached.

    False when it no longer waits. Raises ConflictError when one of them is held after all.
    """
    granted = await leases.move(
        session,
        lease.id,
        {LeaseState.QUEUED},
        LeaseState.ATTACHING,
        granted_at=at,
        expires_at=at + lease.duration,
        explanation=None,
    )
    if not granted:
        return False
    await leases.hold(session, lease.id, slots, at)
    await _enqueue(session, context, SYSTEM, Kind.LEASE_ATTACH, lease)
    await _record(session, context, SYSTEM, "lease.grant", lease, accelerators=sorted(slots))
    return True


async def activate(session: Session, context: Context, lease_id: str) -> bool:
    """Its accelerators are in the instance; False when it is being taken back already."""
    if not await leases.activate(session, lease_id, context.now()):
        return False
    lease = await leases.get_lease(session, lease_id)
    if lease and lease.granted_at and lease.granted_at - lease.requested_at > WAITED:
        await tell_grant(session, context, lease)
    return True


async def fail(session: Session, context: Context, lease_id: str, error: str) -> bool:
    """Its accelerators could not be brought in, and are out again: end it, and say why.

    False when it has ended before.
    """
    lease = await leases.get_lease(session, lease_id)
    if lease is None or not await _finish(session, context, lease_id, EndReason.FAILED, error):
        return False
    await tell_end(session, context, lease, EndReason.FAILED, error)
    return True


async def finish(
    session: Session, context: Context, lease_id: str, reason: EndReason | None = None
) -> bool:
    """Nobody has its accelerators open any more: they are free. False when it has ended before.

    `reason` None: the one for which it was being taken back.
    """
    return await _finish(session, context, lease_id, reason)


async def _finish(
    session: Session,
    context: Context,
    lease_id: str,
    reason: EndReason | None,
    error: str | None = None,
) -> bool:
    half_life = timedelta(hours=context.settings.usage_half_life_hours)
    return await leases.finish(
        session, lease_id, reason, context.now(), half_life=half_life, error=error
    )


async def begin_detach(
    session: Session, context: Context, actor: Actor, lease: Lease, reason: EndReason
) -> bool:
    """Take a lease's accelerators out of its instance; False when it has none there to take."""
    moved = await leases.move(
        session, lease.id, _IN, LeaseState.DETACHING, end_reason=reason.value, announcement=None
    )
    if not moved:
        return False
    action = _ENDED_BY.get(reason, "lease.release")
    await _record(session, context, actor, action, lease, reason=reason.value)
    await ensure_detaching(session, context, actor, lease)
    await tell_end(session, context, lease, reason)
    return True


async def ensure_detaching(session: Session, context: Context, actor: Actor, lease: Lease) -> bool:
    """Have a detaching lease's accelerators brought out; True when that was enqueued now.

    One that is still being attached is cancelled first; that operation's last transaction calls
    this again, and so does the reconciler.
    """
    live = await operations.live_operation(session, target(lease.id))
    if live is not None and live.kind == Kind.LEASE_ATTACH:
        if live.state is not OperationState.STUCK:
            await operations.request_cancel(session, live.id)
            return False
        await operations.end_stuck(session, live.id, context.now())
    elif live is not None:
        return False
    await _enqueue(session, context, actor, Kind.LEASE_DETACH, lease)
    return True


async def reattach(session: Session, context: Context, actor: Actor, lease: Lease) -> bool:
    """Have a lease's devices brought into its instance's present container again; True when that
    was enqueued now. Not while something is done to the lease already."""
    if lease.state not in _IN:
        return False
    if await operations.live_operation(session, target(lease.id)) is not None:
        return False
    await _enqueue(session, context, actor, Kind.LEASE_ATTACH, lease, again=True)
    return True


async def end_waiting(
    session: Session, context: Context, actor: Actor, lease: Lease, reason: EndReason
) -> bool:
    """Take a lease out of the queue; False when it does not wait there any more."""
    moved = await leases.move(
        session,
        lease.id,
        {LeaseState.QUEUED},
        LeaseState.ENDED,
        end_reason=reason.value,
        ended_at=context.now(),
        explanation=None,
    )
    if moved:
        await _record(session, context, actor, "lease.cancel", lease, reason=reason.value)
    return moved


async def end(
    session: Session, context: Context, actor: Actor, lease: Lease, reason: EndReason
) -> bool:
    """Begin the end of a lease, whatever it is doing; False when that has begun already."""
    if lease.state is not LeaseState.QUEUED:
        return await begin_detach(session, context, actor, lease, reason)
    waiting = EndReason.CANCELLED if reason is EndReason.RELEASED else reason
    return await end_waiting(session, context, actor, lease, waiting)


async def end_all(
    session: Session,
    context: Context,
    actor: Actor,
    reason: EndReason,
    *,
    instance_id: str | None = None,
    owner_id: str | None = None,
) -> list[Lease]:
    """Begin the end of every lease of an instance or of a person; those that it began for."""
    live = await leases.list_live(session, instance_id=instance_id, owner_id=owner_id)
    return [lease for lease in live if await end(session, context, actor, lease, reason)]


async def _enqueue(
    session: Session, context: Context, actor: Actor, kind: Kind, lease: Lease, **params: bool
) -> None:
    await enqueue(
        session,
        context,
        actor,
        kind,
        target(lease.id),
        owner_id=lease.owner_id,
        label=lease.instance_name,
        params={"lease": lease.id, "instance": lease.instance_id, **params},
    )


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
        count=lease.count,
        node=lease.node_name,
        **detail,
    )
