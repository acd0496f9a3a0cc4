"""Accelerators, what they were seen doing, and how long those who hold them truly computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, delete, select, update

from hutch.domain.accelerators import (
    Accelerator,
    DeviceNode,
    FoundAccelerator,
    Health,
    Reading,
    Vendor,
)
from hutch.domain.ids import new_id
from hutch.store.db import Session, columns
from hutch.store.tables import (
    accelerators,
    busy_days,
    containers,
    holdings,
    leases,
    nodes,
    samples,
    users,
)

_SELECT: Select[Any] = (
    select(accelerators, nodes.c.name.label("node_name"))
    .join(nodes, nodes.c.id == accelerators.c.node_id)
    .order_by(nodes.c.name, accelerators.c.address)
)


def _accelerator(row: Any) -> Accelerator:
    found = FoundAccelerator(
        address=row.address,
        vendor=Vendor(row.vendor),
        model=row.model,
        memory=row.memory,
        uuid=row.uuid,
        nodes=tuple(DeviceNode(*each) for each in row.device_nodes["nodes"]),
        shared=tuple(DeviceNode(*each) for each in row.device_nodes["shared"]),
        health=Health(row.health),
        reason=row.reason,
    )
    return Accelerator(
        id=row.id,
        node_id=row.node_id,
        node_name=row.node_name,
        found=found,
        withdrawn=row.withdrawn,
        sharers=row.sharers,
        seen_at=row.seen_at,
        created_at=row.created_at,
    )


def _found(found: FoundAccelerator) -> dict[str, Any]:
    return {
        "address": found.address,
        "uuid": found.uuid,
        "vendor": found.vendor.value,
        "model": found.model,
        "memory": found.memory,
        "device_nodes": {
            "nodes": [[each.path, each.major, each.minor] for each in found.nodes],
            "shared": [[each.path, each.major, each.minor] for each in found.shared],
        },
        "health": found.health.value,
        "reason": found.reason,
    }


async def list_accelerators(session: Session, *, node_id: str | None = None) -> list[Accelerator]:
    query = _SELECT if node_id is None else _SELECT.where(accelerators.c.node_id == node_id)
    return [_accelerator(row) for row in await session.execute(query)]


async def get_accelerator(session: Session, accelerator_id: str) -> Accelerator | None:
    query = _SELECT.where(accelerators.c.id == accelerator_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _accelerator(row)


async def get_accelerators(session: Session, accelerator_ids: Iterable[str]) -> list[Accelerator]:
    """Those of these that there are, by node and address."""
    query = _SELECT.where(accelerators.c.id.in_(tuple(accelerator_ids)))
    return [_accelerator(row) for row in await session.execute(query)]


async def find_accelerators(session: Session, address: str) -> list[Accelerator]:
    """Those with this address, one per node at most."""
    query = _SELECT.where(accelerators.c.address == address)
    return [_accelerator(row) for row in await session.execute(query)]


async def add_accelerator(
    session: Session, node_id: str, found: FoundAccelerator, at: datetime, *, sharers: int = 1
) -> str:
    """Insert what a node has found, for so many holders at once; its id."""
    accelerator_id = new_id()
    await session.execute(
        accelerators.insert().values(
            id=accelerator_id,
            node_id=node_id,
            sharers=sharers,
            seen_at=at,
            created_at=at,
            **_found(found),
        )
    )
    return accelerator_id


async def update_found(
    session: Session, accelerator_id: str, found: FoundAccelerator, at: datetime
) -> None:
    await update_accelerator(session, accelerator_id, seen_at=at, **_found(found))


async def update_accelerator(session: Session, accelerator_id: str, **values: Any) -> None:
    await session.execute(
        update(accelerators).where(accelerators.c.id == accelerator_id).values(**values)
    )


async def free_address(session: Session, accelerator_id: str) -> None:
    """Give up an accelerator's address, which another one on its node is about to have."""
    await update_accelerator(session, accelerator_id, address=f"gone:{accelerator_id}")


async def mark_unknown(session: Session, node_id: str) -> int:
    """Nobody says that they are well any more; how many of a node had been."""
    query = update(accelerators).where(
        accelerators.c.node_id == node_id, accelerators.c.health == Health.OK.value
    )
    return (await session.execute(query.values(health=Health.UNKNOWN.value))).rowcount


async def list_readings(session: Session) -> dict[str, Reading]:
    """The latest reading of each accelerator that has one."""
    query = select(accelerators.c.id, accelerators.c.reading).where(
        accelerators.c.reading.is_not(None)
    )
    return {
        accelerator_id: Reading.parse(reading)
        for accelerator_id, reading in await session.execute(query)
    }


async def set_readings(session: Session, readings: Mapping[str, Reading], at: datetime) -> None:
    """The latest readings, by the accelerator's id."""
    if readings:
        await session.execute(
            update(accelerators)
            .where(accelerators.c.id == bindparam("of"))
            .values(reading=bindparam("new_reading"), seen_at=at),
            [{"of": key, "new_reading": each.as_dict()} for key, each in readings.items()],
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """A lease that holds an accelerator now."""

    holding_id: str
    accelerator_id: str
    owner_name: str
    container: str | None
    """The engine's name of the container that its instance lives in."""


async def list_holders(session: Session, node_id: str) -> list[Holder]:
    """Who holds the accelerators of a node now."""
    query = (
        select(
            holdings.c.id,
            holdings.c.accelerator_id,
            users.c.name,
            containers.c.engine_name,
        )
        .join(accelerators, accelerators.c.id == holdings.c.accelerator_id)
        .join(leases, leases.c.id == holdings.c.lease_id)
        .join(users, users.c.id == leases.c.owner_id)
        .outerjoin(
            containers,
            (containers.c.instance_id == leases.c.instance_id) & (containers.c.role == "current"),
        )
        .where(accelerators.c.node_id == node_id, holdings.c.until.is_(None))
    )
    return [Holder(*row) for row in await session.execute(query)]


async def add_busy(session: Session, seconds: Mapping[str, float], day: str) -> None:
    """Add seconds of computing to holdings, by their id, on a day in UTC such as 2026-03-01."""
    for holding_id, more in seconds.items():
        changed = await session.execute(
            update(busy_days)
            .where(busy_days.c.holding_id == holding_id, busy_days.c.day == day)
            .values(seconds=busy_days.c.seconds + more)
        )
        if not changed.rowcount:
            await session.execute(
                busy_days.insert().values(holding_id=holding_id, day=day, seconds=more)
            )


@dataclass(frozen=True, slots=True)
class Sample:
    """What an accelerator did in one span of time."""

    accelerator_id: str
    at: datetime
    """The end of the span."""
    seconds: float
    utilisation: float | None
    """Mean over the span, 0 to 1; None when it does not tell."""
    peak: float | None
    memory_used: int | None
    """Bytes, the most that was seen."""
    temperature: float | None
    power: float | None
    processes: list[dict[str, Any]]
    """`Process` as dicts, as they were at the end of the span."""


async def add_samples(session: Session, rows: Sequence[Sample]) -> None:
    for row in rows:
        # A clock that was set back may come by the same microsecond again.
        await session.execute(
            delete(samples).where(
                samples.c.accelerator_id == row.accelerator_id, samples.c.at == row.at
            )
        )
        await session.execute(
            samples.insert().values(
                accelerator_id=row.accelerator_id,
                at=row.at,
                seconds=row.seconds,
                utilisation=row.utilisation,
                peak=row.peak,
                memory_used=row.memory_used,
                temperature=row.temperature,
                power=row.power,
                processes=row.processes,
            )
        )


async def list_samples(
    session: Session, accelerator_ids: Iterable[str], since: datetime
) -> list[Sample]:
    """Spans that ended after a moment, the oldest first."""
    query = (
        select(samples)
        .where(samples.c.accelerator_id.in_(tuple(accelerator_ids)), samples.c.at > since)
        .order_by(samples.c.at)
    )
    return [Sample(**columns(row)) for row in await session.execute(query)]


async def delete_samples(session: Session, before: datetime) -> int:
    return (await session.execute(delete(samples).where(samples.c.at < before))).rowcount
