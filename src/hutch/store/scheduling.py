"""Everything that a pass of the scheduler looks at, read in a handful of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select

from hutch.domain.accelerators import Health
from hutch.domain.fairness import decay, usage_of
from hutch.domain.instances import InstanceState
from hutch.domain.leases import Lease, LeaseState
from hutch.domain.scheduler import Device, GroupShare
from hutch.store.db import Session
from hutch.store.groups import shares
from hutch.store.leases import Held, group_subject, list_held, list_live, user_subject
from hutch.store.notices import delivered
from hutch.store.tables import (
    accelerators,
    decayed_usage,
    instances,
    leases,
    nodes,
    users,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """The lab's accelerators and everyone who has or wants one, at one moment."""

    devices: Sequence[Device]
    """Of the nodes on which there is a live lease."""
    leases: Sequence[Lease]
    """Every live one, in the order in which they were asked for."""
    held: Sequence[Held]
    running: frozenset[str]
    """Ids of the instances with a live lease that run."""
    groups: Mapping[str, GroupShare]
    maximum: Mapping[str, int]
    """By the id of everyone who has a live lease; nothing for who is shut out."""
    usage: Mapping[str, float]
    delivered: Mapping[str, datetime]
    """When a notice that announces something was delivered, by its id."""


_with_leases = select(leases.c.node_id).where(leases.c.state != LeaseState.ENDED.value)
_owners = select(leases.c.owner_id).where(leases.c.state != LeaseState.ENDED.value)
_instances = select(leases.c.instance_id).where(leases.c.state != LeaseState.ENDED.value)


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
    live = await list_live(session)
    held = await list_held(session)
    announced = [lease.announcement.notice_id for lease in live if lease.announcement is not None]
    return Picture(
        devices=await _devices(session, now - silence),
        leases=live,
        held=held,
        running=await _running(session),
        groups=await shares(session),
        maximum=await _maximum(session, quota),
        usage=await _usage(session, live, held, now, half_life),
        delivered=await delivered(session, announced),
    )


async def _devices(session: Session, heard_since: datetime) -> list[Device]:
    query = (
        select(
            accelerators,
            or_(nodes.c.agent_seen_at < heard_since, nodes.c.agent_seen_at.is_(None)).label("mute"),
            nodes.c.unreachable_since,
        )
        .join(nodes, nodes.c.id == accelerators.c.node_id)
        .where(accelerators.c.node_id.in_(_with_leases))
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


async def _running(session: Session) -> frozenset[str]:
    query = select(instances.c.id).where(
        instances.c.id.in_(_instances), instances.c.state == InstanceState.RUNNING.value
    )
    return frozenset((await session.execute(query)).scalars())


async def _maximum(session: Session, quota: int) -> dict[str, int]:
    query = select(users.c.id, users.c.quota_accelerators, users.c.disabled_at).where(
        users.c.id.in_(_owners)
    )
    return {row.id: _most(row.quota_accelerators, row.disabled_at, quota)
            for row in await session.execute(query)}  # fmt: skip


def _most(own: int | None, disabled_at: datetime | None, quota: int) -> int:
    if disabled_at is not None:
        return 0
    return quota if own is None else own


async def _usage(
    session: Session,
    live: Sequence[Lease],
    held: Sequence[Held],
    now: datetime,
    half_life: timedelta,
) -> dict[str, float]:
    """What is booked, faded, and what is being used: decayed accelerator-seconds by subject."""
    found = {
        row.subject: decay(row.seconds, row.at, now, half_life)
        for row in await session.execute(select(decayed_usage))
    }
    by_id = {lease.id: lease for lease in live}
    for each in held:
        lease = by_id.get(each.lease_id)
        if lease is None:
            continue
        used = usage_of(1, each.since, now, now, half_life)
        subjects = [user_subject(lease.owner_id)]
        if lease.group_id is not None:
            subjects.append(group_subject(lease.group_id))
        for subject in subjects:
            found[subject] = found.get(subject, 0.0) + used
    return found


async def models_of(session: Session, node_id: str) -> list[str]:
    """The model of every accelerator of a node, in service or not."""
    query = select(accelerators.c.model).where(accelerators.c.node_id == node_id)
    return list((await session.execute(query)).scalars())
