"""What the agents of nodes are asked to do about processes that have an accelerator open."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from hutch.domain.accelerators import OpenedDevice, Verb
from hutch.domain.ids import new_id
from hutch.store.db import Session
from hutch.store.tables import revocations


@dataclass(frozen=True, slots=True)
class Revocation:
    id: str
    node_id: str
    lease_id: str
    verb: Verb
    container: str
    """The engine's name of the container whose processes are meant."""
    devices: tuple[OpenedDevice, ...]
    result: dict[str, Any] | None
    created_at: datetime
    done_at: datetime | None


def _revocation(row: Any) -> Revocation:
    return Revocation(
        id=row.id,
        node_id=row.node_id,
        lease_id=row.lease_id,
        verb=Verb(row.verb),
        container=row.params["container"],
        devices=tuple(OpenedDevice(**each) for each in row.params["devices"]),
        result=row.result,
        created_at=row.created_at,
        done_at=row.done_at,
    )


async def add_revocation(
    session: Session,
    *,
    node_id: str,
    lease_id: str,
    verb: Verb,
    container: str,
    devices: Sequence[OpenedDevice],
    at: datetime,
) -> str:
    """Insert an order; its id. What was ordered before for the same lease is withdrawn."""
    await session.execute(
        update(revocations)
        .where(revocations.c.lease_id == lease_id, revocations.c.done_at.is_(None))
        .values(done_at=at)
    )
    revocation_id = new_id()
    await session.execute(
        revocations.insert().values(
            id=revocation_id,
            node_id=node_id,
            lease_id=lease_id,
            verb=verb.value,
            params={"container": container, "devices": [asdict(each) for each in devices]},
            created_at=at,
        )
    )
    return revocation_id


async def get_revocation(session: Session, revocation_id: str) -> Revocation | None:
    query = select(revocations).where(revocations.c.id == revocation_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _revocation(row)


async def latest(session: Session, lease_id: str) -> Revocation | None:
    """What was ordered last for a lease."""
    query = (
        select(revocations)
        .where(revocations.c.lease_id == lease_id)
        .order_by(revocations.c.created_at.desc(), revocations.c.id.desc())
        .limit(1)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _revocation(row)


async def list_open(session: Session, node_id: str) -> list[Revocation]:
    """What a node's agent has not answered yet, the oldest first."""
    query = (
        select(revocations)
        .where(revocations.c.node_id == node_id, revocations.c.done_at.is_(None))
        .order_by(revocations.c.created_at, revocations.c.id)
    )
    return [_revocation(row) for row in await session.execute(query)]


async def finish(
    session: Session, revocation_id: str, node_id: str, result: dict[str, Any] | None, at: datetime
) -> bool:
    """Keep an agent's answer, None when nobody waits for it any more; False when it is too late."""
    query = update(revocations).where(
        revocations.c.id == revocation_id,
        revocations.c.node_id == node_id,
        revocations.c.done_at.is_(None),
    )
    return (await session.execute(query.values(result=result, done_at=at))).rowcount == 1


async def delete_done(session: Session, before: datetime) -> int:
    return (
        await session.execute(delete(revocations).where(revocations.c.done_at < before))
    ).rowcount
