"""Leases, and what they hold.

Who changes a lease takes its turn with `lock_leases` first, and changes it only out of the state
that it has read (`move`). That nothing is held twice is said by a unique index in any case.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, case, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.fairness import decay, usage_of
from hutch.domain.ids import new_id
from hutch.domain.leases import (
    LIVE,
    Announcement,
    EndReason,
    Lease,
    LeaseState,
)
from hutch.errors import ConflictError
from hutch.store.db import Session, lock
from hutch.store.tables import Instant, decayed_usage, holdings, leases, nodes, users

_SEPARATOR = ","

# Made once: to put it together takes longer than to look up what it asks for.
_held = (
    select(func.aggregate_strings(holdings.c.accelerator_id, _SEPARATOR))
    .where(holdings.c.lease_id == leases.c.id)
    .scalar_subquery()
)
_SELECT: Select[Any] = (
    select(
        leases,
        users.c.name.label("owner_name"),
        nodes.c.name.label("node_name"),
        _held.label("held"),
    )
    .join(users, users.c.id == leases.c.owner_id)
    .join(nodes, nodes.c.id == leases.c.node_id)
)
_IS_LIVE = leases.c.state != LeaseState.ENDED.value
"""As the partial index says it, so that it is used."""


def _lease(row: Any) -> Lease:
    return Lease(
        id=row.id,
        instance_id=row.instance_id,
        instance_name=row.instance_name,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        group_id=row.group_id,
        group_name=row.group_name,
        node_id=row.node_id,
        node_name=row.node_name,
        count=row.count,
        model=row.model,
        duration=timedelta(seconds=row.seconds),
        state=LeaseState(row.state),
        end_reason=None if row.end_reason is None else EndReason(row.end_reason),
        requested_at=row.requested_at,
        granted_at=row.granted_at,
        active_at=row.active_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        accelerators=tuple(sorted((row.held or "").split(_SEPARATOR))) if row.held else (),
        announcement=None if row.announcement is None else read_announcement(row.announcement),
        evidence=row.evidence,
        explanation=row.explanation,
        error=row.error,
    )


def read_announcement(value: dict[str, str]) -> Announcement:
    """From what `set_announcement` wrote."""
    return Announcement(
        EndReason(value["reason"]),
        datetime.fromisoformat(value["at"]),
        datetime.fromisoformat(value["due"]),
        value["notice"],
    )


async def lock_leases(session: Session) -> None:
    """Take a turn at changing leases: before anything else is read or locked."""
    await lock(session, "scheduling")


async def add_lease(session: Session, lease: Lease) -> None:
    """Insert a waiting lease."""
    await session.execute(
        leases.insert().values(
            id=lease.id,
            instance_id=lease.instance_id,
            instance_name=lease.instance_name,
            owner_id=lease.owner_id,
            group_id=lease.group_id,
            group_name=lease.group_name,
            node_id=lease.node_id,
            count=lease.count,
            model=lease.model,
            seconds=int(lease.duration.total_seconds()),
            state=LeaseState.QUEUED.value,
            requested_at=lease.requested_at,
        )
    )


async def get_lease(session: Session, lease_id: str) -> Lease | None:
    row = (await session.execute(_SELECT.where(leases.c.id == lease_id))).one_or_none()
    return None if row is None else _lease(row)


async def get_leases(session: Session, lease_ids: Collection[str]) -> list[Lease]:
    """Those of these leases that there are, in no order."""
    if not lease_ids:
        return []
    query = _SELECT.where(leases.c.id.in_(lease_ids))
    return [_lease(row) for row in await session.execute(query)]


async def list_live(
    session: Session,
    *,
    owner_id: str | None = None,
    group_id: str | None = None,
    instance_id: str | None = None,
    states: Collection[LeaseState] = LIVE,
) -> list[Lease]:
    """Leases that have not ended, in the order in which they were asked for."""
    query = _SELECT.where(_IS_LIVE).order_by(leases.c.requested_at, leases.c.id)
    if owner_id is not None:
        query = query.where(leases.c.owner_id == owner_id)
    if group_id is not None:
        query = query.where(leases.c.group_id == group_id)
    if instance_id is not None:
        query = query.where(leases.c.instance_id == instance_id)
    if states != LIVE:
        query = query.where(leases.c.state.in_([state.value for state in states]))
    return [_lease(row) for row in await session.execute(query)]


async def list_leases(
    session: Session,
    *,
    limit: int,
    owner_id: str | None = None,
    group_id: str | None = None,
    instance_id: str | None = None,
    ended: bool = False,
    before: str | None = None,
) -> list[Lease]:
    """Newest first, by when they were asked for; `before` is a lease's id, to page back."""
    query = _SELECT.order_by(leases.c.requested_at.desc(), leases.c.id.desc()).limit(limit)
    if owner_id is not None:
        query = query.where(leases.c.owner_id == owner_id)
    if group_id is not None:
        query = query.where(leases.c.group_id == group_id)
    if instance_id is not None:
        query = query.where(leases.c.instance_id == instance_id)
    if ended:
        query = query.where(leases.c.state == LeaseState.ENDED.value)
    if before is not None:
        last = select(leases.c.requested_at).where(leases.c.id == before).scalar_subquery()
        query = query.where(
            or_(
                leases.c.requested_at < last,
                and_(leases.c.requested_at == last, leases.c.id < before),
            )
        )
    return [_lease(row) for row in await session.execute(query)]


async def update_lease(session: Session, lease_id: str, **values: Any) -> None:
    """Change columns of one lease, other than its state."""
    await session.execute(update(leases).where(leases.c.id == lease_id).values(**values))


async def move(
    session: Session,
    lease_id: str,
    expected: Collection[LeaseState],
    state: LeaseState,
    **values: Any,
) -> bool:
    """Bring a lease from one of the `expected` states into another; False when it is in none."""
    query = update(leases).where(
        leases.c.id == lease_id, leases.c.state.in_([each.value for each in expected])
    )
    return (await session.execute(query.values(state=state.value, **values))).rowcount == 1


async def set_announcement(
    session: Session, lease_id: str, announcement: Announcement | None
) -> None:
    value = announcement and {
        "reason": announcement.reason.value,
        "at": announcement.at.isoformat(),
        "due": announcement.due.isoformat(),
        "notice": announcement.notice_id,
    }
    await update_lease(session, lease_id, announcement=value)


@dataclass(frozen=True, slots=True)
class Held:
    """An accelerator that a lease holds now."""

    lease_id: str
    accelerator_id: str
    slot: int
    since: datetime


async def list_held(session: Session) -> list[Held]:
    """Everything that is held now."""
    query = select(
        holdings.c.lease_id, holdings.c.accelerator_id, holdings.c.slot, holdings.c.since
    ).where(holdings.c.until.is_(None))
    return [Held(*row) for row in await session.execute(query)]


async def hold(session: Session, lease_id: str, slots: Mapping[str, int], at: datetime) -> None:
    """Give a lease its accelerators: a free slot by each one's id.

    Raises ConflictError when somebody holds one of them, which the index says: then the
    transaction must end.
    """
    rows = [
        {
            "id": new_id(),
            "lease_id": lease_id,
            "accelerator_id": accelerator_id,
            "slot": slot,
            "since": at,
        }
        for accelerator_id, slot in sorted(slots.items())
    ]
    try:
        await session.execute(holdings.insert(), rows)
    except IntegrityError as error:
        raise ConflictError(
            "One of these accelerators is held by another lease.",
            hint="Nothing was granted. The next look at the queue sees who holds it.",
            lease=lease_id,
        ) from error


async def activate(session: Session, lease_id: str, at: datetime) -> bool:
    """Its accelerators are in the instance; False when it was taken back meanwhile."""
    return await move(
        session, lease_id, {LeaseState.ATTACHING}, LeaseState.ACTIVE, active_at=at, error=None
    )


async def finish(
    session: Session,
    lease_id: str,
    reason: EndReason | None,
    at: datetime,
    *,
    half_life: timedelta,
    error: str | None = None,
) -> bool:
    """End a lease: what it held is free from now on, and what it used is booked.

    `reason` None: the one for which it was being taken back. False when it had ended before.
    """
    lease = await get_lease(session, lease_id)
    if lease is None:
        return False
    moved = await move(
        session,
        lease_id,
        LIVE,
        LeaseState.ENDED,
        end_reason=(reason or lease.end_reason or EndReason.RELEASED).value,
        ended_at=at,
        announcement=None,
        explanation=None,
        error=error,
    )
    if not moved:
        return False
    let_go = await session.execute(
        update(holdings)
        .where(holdings.c.lease_id == lease_id, holdings.c.until.is_(None))
        # A clock that was set back must not make it end before it began.
        .values(until=case((holdings.c.since > at, holdings.c.since), else_=literal(at, Instant())))
        .returning(holdings.c.since)
    )
    used = sum(usage_of(1, row.since, at, at, half_life) for row in let_go)
    if used:
        await _book(session, lease, used, at, half_life)
    return True


async def _book(
    session: Session, lease: Lease, seconds: float, at: datetime, half_life: timedelta
) -> None:
    """Add what a lease used to its owner's and its group's account."""
    subjects = [user_subject(lease.owner_id)]
    if lease.group_id is not None:
        subjects.append(group_subject(lease.group_id))
    # Two leases of one group that end at once must not both add to what was there before. The
    # last lock that a transaction takes, so nobody can wait for it and be waited for.
    await lock(session, "usage")
    query = select(decayed_usage).where(decayed_usage.c.subject.in_(subjects))
    known = {row.subject: row for row in await session.execute(query)}
    for subject in subjects:
        row = known.get(subject)
        if row is None:
            await session.execute(
                decayed_usage.insert().values(subject=subject, seconds=seconds, at=at)
            )
            continue
        # Never back: what is booked at a later moment must not fade a second time.
        moment = max(at, row.at)
        total = decay(row.seconds, row.at, moment, half_life) + seconds
        await session.execute(
            update(decayed_usage)
            .where(decayed_usage.c.subject == subject)
            .values(seconds=total, at=moment)
        )


def user_subject(user_id: str) -> str:
    """A person as the bearer of usage."""
    return f"user:{user_id}"


def group_subject(group_id: str) -> str:
    return f"group:{group_id}"
