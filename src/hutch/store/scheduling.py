"""Everything that a pass of the scheduler looks at, read in a handful of queries.

A lab may have thousands of live leases, and nearly all of them stay as they are in a pass. So of
each only what decides is read; of those that change, `store.leases` has the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select

from hutch.domain.accelerators import Health
from hutch.domain.fairness import decay, usage_of
from hutch.domain.instances import InstanceState
from hutch.domain.leases import Announcement, EndReason, LeaseState
from hutch.domain.scheduler import Device, GroupShare, Request
from hutch.store.db import Session
from hutch.store.groups import shares
from hutch.store.leases import (
    Held,
    group_subject,
    list_held,
    read_announcement,
    user_subject,
)
from hutch.store.notices import delivered
from hutch.store.tables import accelerators, decayed_usage, instances, leases, nodes, users


@dataclass(frozen=True, slots=True)
class Picture:
    """The lab's accelerators and everyone who has or wants one, at one moment."""

    devices: Sequence[Device]
    """Of the nodes on which a lease waits: the others are of no use to any."""
    requests: Sequence[Request]
    """Every live lease."""
    held: Sequence[Held]
    announced: Mapping[str, Announcement]
    """What the holder of a lease was told, by its id."""
    explained: Mapping[str, dict[str, Any] | None]
    """Why a waiting lease waits, as it was seen last, by its id."""
    groups: Mapping[str, GroupShare]
    maximum: Mapping[str, int]
    """By the id of everyone who has a live lease; nothing for who is shut out."""
    usage: Mapping[str, float]


# Made once: to put it together takes longer than to look up what it asks for.
_LIVE = (
    select(
        leases.c.id,
        leases.c.instance_id,
        leases.c.owner_id,
        leases.c.group_id,
        leases.c.node_id,
        leases.c.count,
        leases.c.model,
        leases.c.seconds,
        leases.c.state,
        leases.c.requested_at,
        leases.c.granted_at,
        leases.c.expires_at,
        leases.c.announcement,
        leases.c.explanation,
        instances.c.state.label("instance_state"),
        users.c.quota_accelerators,
        users.c.disabled_at,
    )
    .join(users, users.c.id == leases.c.owner_id)
    .outerjoin(instances, instances.c.id == leases.c.instance_id)
    .where(leases.c.state != LeaseState.ENDED.value)
)
_WANTED_NODES = select(leases.c.node_id).where(
    leases.c.state != LeaseState.ENDED.value, leases.c.state == LeaseState.QUEUED.value
)


async def read(
    session: Session,
    now: datetime,
    *,
    silence: timedelta,
    quota: int,
    half_life: timedelta,
) -> Picture:
    """Read it all; in a transaction that has taken its turn nothing of it changes meanwhile.

    `silence`: after so long without a word of the node's agent its accelerators are not granted.
    `quota`: the maximum of who has none of their own.
    """
    rows = (await session.execute(_LIVE)).all()
    held = await list_held(session)
    groups = await shares(session)
    announced = {
        row.id: read_announcement(row.announcement) for row in rows if row.announcement is not None
    }
    arrived = await delivered(session, [each.notice_id for each in announced.values()])
    devices: dict[str, list[str]] = {}
    for each in held:
        devices.setdefault(each.lease_id, []).append(each.accelerator_id)
    return Picture(
        devices=await _devices(session, now - silence),
        requests=[
            _request(row, tuple(devices.get(row.id, ())), groups, announced.get(row.id), arrived)
            for row in rows
        ],
        held=held,
        announced=announced,
        explained={row.id: row.explanation for row in rows if row.state == LeaseState.QUEUED.value},
        groups=groups,
        maximum={row.owner_id: _most(row, quota) for row in rows},
        usage=await _usage(session, rows, held, now, half_life),
    )


def _request(
    row: Any,
    devices: tuple[str, ...],
    groups: Mapping[str, GroupShare],
    told: Announcement | None,
    arrived: Mapping[str, datetime],
) -> Request:
    reclaim = told if told is not None and told.reason is EndReason.PREEMPTED else None
    return Request(
        id=row.id,
        instance_id=row.instance_id,
        owner_id=row.owner_id,
        # A group that is gone has no share: who was in it stands for themselves.
        group_id=row.group_id if row.group_id in groups else None,
        node_id=row.node_id,
        count=row.count,
        model=row.model,
        duration=timedelta(seconds=row.seconds),
        state=LeaseState(row.state),
        requested_at=row.requested_at,
        granted_at=row.granted_at,
        expires_at=row.expires_at,
        devices=devices,
        reclaim_due=None if reclaim is None else reclaim.due,
        reclaim_delivered=reclaim is not None and reclaim.notice_id in arrived,
        can_start=row.instance_state == InstanceState.RUNNING.value,
    )


def _most(row: Any, quota: int) -> int:
    if row.disabled_at is not None:
        return 0
    return quota if row.quota_accelerators is None else row.quota_accelerators


async def _devices(session: Session, heard_since: datetime) -> list[Device]:
    query = (
        select(
            accelerators.c.id,
            accelerators.c.node_id,
            accelerators.c.model,
            accelerators.c.sharers,
            accelerators.c.withdrawn,
            accelerators.c.health,
            or_(nodes.c.agent_seen_at < heard_since, nodes.c.agent_seen_at.is_(None)).label("mute"),
            nodes.c.unreachable_since,
        )
        .join(nodes, nodes.c.id == accelerators.c.node_id)
        .where(accelerators.c.node_id.in_(_WANTED_NODES))
        .order_by(accelerators.c.node_id, accelerators.c.address)
    )
    return [
        Device(
            id=row.id,
            node_id=row.node_id,
            model=row.model,
            sharers=row.sharers,
            is_grantable=row.withdrawn is None
            and row.health == Health.OK.value
            and not row.mute
            and row.unreachable_since is None,
        )
        for row in await session.execute(query)
    ]


async def _usage(
    session: Session,
    rows: Sequence[Any],
    held: Sequence[Held],
    now: datetime,
    half_life: timedelta,
) -> dict[str, float]:
    """What is booked, faded, and what is being used: decayed accelerator-seconds by subject."""
    found = {
        row.subject: decay(row.seconds, row.at, now, half_life)
        for row in await session.execute(select(decayed_usage))
    }
    by_id = {row.id: row for row in rows}
    for each in held:
        row = by_id.get(each.lease_id)
        if row is None:
            continue
        used = usage_of(1, each.since, now, now, half_life)
        subjects = [user_subject(row.owner_id)]
        if row.group_id is not None:
            subjects.append(group_subject(row.group_id))
        for subject in subjects:
            found[subject] = found.get(subject, 0.0) + used
    return found


async def models_of(session: Session, node_id: str) -> list[str]:
    """The model of every accelerator of a node, in service or not."""
    query = select(accelerators.c.model).where(accelerators.c.node_id == node_id)
    return list((await session.execute(query)).scalars())
