"""Snapshots."""

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.snapshots import Snapshot, SnapshotKind, SnapshotState
from hutch.errors import NameTakenError
from hutch.store.db import Session, columns
from hutch.store.tables import snapshots


def _snapshot(row: Any) -> Snapshot:
    return Snapshot(**columns(row, kind=SnapshotKind(row.kind), state=SnapshotState(row.state)))


async def add_snapshot(session: Session, snapshot: Snapshot) -> None:
    """Insert a snapshot. Raises NameTakenError when the instance has one of that name."""
    try:
        await session.execute(
            snapshots.insert().values(
                id=snapshot.id,
                instance_id=snapshot.instance_id,
                name=snapshot.name,
                kind=snapshot.kind.value,
                state=snapshot.state.value,
                created_at=snapshot.created_at,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("a snapshot called", snapshot.name) from error


async def list_snapshots(session: Session, instance_id: str) -> list[Snapshot]:
    """Oldest first."""
    query = (
        select(snapshots)
        .where(snapshots.c.instance_id == instance_id)
        .order_by(snapshots.c.created_at)
    )
    return [_snapshot(row) for row in await session.execute(query)]


async def find_snapshot(session: Session, instance_id: str, name: str) -> Snapshot | None:
    query = select(snapshots).where(
        snapshots.c.instance_id == instance_id, snapshots.c.name == name
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _snapshot(row)


async def count_manual(session: Session, instance_id: str) -> int:
    """Snapshots that count against the cap: not those that hutch took before a restore."""
    query = (
        select(func.count())
        .select_from(snapshots)
        .where(
            snapshots.c.instance_id == instance_id, snapshots.c.kind == SnapshotKind.MANUAL.value
        )
    )
    return (await session.execute(query)).scalar_one()


async def set_state(session: Session, snapshot_id: str, state: SnapshotState) -> None:
    await session.execute(
        update(snapshots).where(snapshots.c.id == snapshot_id).values(state=state.value)
    )


async def delete_snapshot(session: Session, snapshot_id: str) -> None:
    await session.execute(delete(snapshots).where(snapshots.c.id == snapshot_id))


async def delete_all(session: Session, instance_id: str) -> None:
    await session.execute(delete(snapshots).where(snapshots.c.instance_id == instance_id))
