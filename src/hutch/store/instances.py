"""Instances, with the names that people know their owner, node and image by."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.instances import Desired, Drift, Instance, InstanceState
from hutch.domain.limits import Limits
from hutch.errors import NameTakenError
from hutch.store.db import Session
from hutch.store.tables import images, instances, nodes, ports, shares, users

SSH = "ssh"
"""The name of the forward that every instance has."""


# Made once: to put it together takes longer than to look up what it asks for.
_SELECT: Select[Any] = (
    select(
        instances,
        users.c.name.label("owner_name"),
        nodes.c.name.label("node_name"),
        nodes.c.address.label("ssh_host"),
        images.c.name.label("image_name"),
        ports.c.host_port.label("ssh_port"),
    )
    .join(users, users.c.id == instances.c.owner_id)
    .join(nodes, nodes.c.id == instances.c.node_id)
    .join(images, images.c.id == instances.c.image_id)
    .join(ports, (ports.c.instance_id == instances.c.id) & (ports.c.name == SSH))
)


def _instance(row: Any) -> Instance:
    return Instance(
        id=row.id,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        name=row.name,
        node_id=row.node_id,
        node_name=row.node_name,
        image_id=row.image_id,
        image_name=row.image_name,
        state=InstanceState(row.state),
        desired=Desired(row.desired),
        limits=Limits(row.cpus, row.memory, row.disk, row.processes),
        ssh_host=row.ssh_host,
        ssh_port=row.ssh_port,
        ssh_host_key=row.ssh_host_key,
        keys_version=row.keys_version,
        guests_version=row.guests_version,
        drift=None if row.drift is None else _drift(row.drift),
        error=row.error,
        created_at=row.created_at,
        wake_on_ssh=row.wake_on_ssh,
    )


def _drift(value: dict[str, str]) -> Drift:
    return Drift(value["code"], value["message"], datetime.fromisoformat(value["since"]))


async def add_instance(
    session: Session,
    *,
    instance_id: str,
    owner_id: str,
    name: str,
    node_id: str,
    image_id: str,
    limits: Limits,
    host_key: str,
    host_secret: bytes,
    at: datetime,
) -> None:
    """Insert an instance in creation. Raises NameTakenError when its owner has that name."""
    try:
        await session.execute(
            instances.insert().values(
                id=instance_id,
                owner_id=owner_id,
                name=name,
                node_id=node_id,
                image_id=image_id,
                state=InstanceState.CREATING.value,
                desired=Desired.RUNNING.value,
                cpus=limits.cpus,
                memory=limits.memory,
                disk=limits.disk,
                processes=limits.processes,
                ssh_host_key=host_key,
                ssh_host_secret=host_secret,
                created_at=at,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("an instance of yours called", name) from error


async def list_instances(
    session: Session,
    *,
    owner_id: str | None = None,
    also: Collection[str] = (),
    ids: Collection[str] | None = None,
    name: str | None = None,
    owner_name: str | None = None,
    node_id: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[Instance]:
    """Instances by owner and name; `after` is an instance's id, to page on in order of ids.

    `also` are the ids of others to add to an owner's.
    """
    query = _SELECT
    if owner_id is not None and also:
        query = query.where((instances.c.owner_id == owner_id) | instances.c.id.in_(also))
    elif owner_id is not None:
        query = query.where(instances.c.owner_id == owner_id)
    if ids is not None:
        query = query.where(instances.c.id.in_(ids))
    if name is not None:
        query = query.where(instances.c.name == name)
    if owner_name is not None:
        query = query.where(users.c.name == owner_name)
    if node_id is not None:
        query = query.where(instances.c.node_id == node_id)
    if limit is not None:
        query = query.order_by(instances.c.id).limit(limit)
        if after is not None:
            query = query.where(instances.c.id > after)
    else:
        query = query.order_by(users.c.name, instances.c.name)
    return [_instance(row) for row in (await session.execute(query)).all()]


async def get_instance(session: Session, instance_id: str) -> Instance | None:
    row = (await session.execute(_SELECT.where(instances.c.id == instance_id))).one_or_none()
    return None if row is None else _instance(row)


async def find_instance(session: Session, owner_id: str, name: str) -> Instance | None:
    query = _SELECT.where(instances.c.owner_id == owner_id, instances.c.name == name)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _instance(row)


async def find_owned(session: Session, owner_name: str, name: str) -> Instance | None:
    """The instance that is called `owner/name`."""
    query = _SELECT.where(users.c.name == owner_name, instances.c.name == name)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _instance(row)


async def host_secret(session: Session, instance_id: str) -> bytes | None:
    """The sealed private SSH host key."""
    query = select(instances.c.ssh_host_secret).where(instances.c.id == instance_id)
    return (await session.execute(query)).scalar_one_or_none()


async def update_instance(session: Session, instance_id: str, **values: Any) -> None:
    """Change columns of one instance."""
    await session.execute(update(instances).where(instances.c.id == instance_id).values(**values))


async def set_state(session: Session, instance_id: str, state: InstanceState) -> None:
    await update_instance(session, instance_id, state=state.value)


async def set_limits(session: Session, instance_id: str, limits: Limits) -> None:
    await update_instance(
        session,
        instance_id,
        cpus=limits.cpus,
        memory=limits.memory,
        disk=limits.disk,
        processes=limits.processes,
    )


async def set_drift(session: Session, instance_id: str, drift: Drift | None) -> None:
    value = drift and {
        "code": drift.code,
        "message": drift.message,
        "since": drift.since.isoformat(),
    }
    await update_instance(session, instance_id, drift=value)


async def delete_instance(session: Session, instance_id: str) -> None:
    """Remove an instance, its ports and its snapshots' rows; its name is free from then on."""
    await session.execute(delete(instances).where(instances.c.id == instance_id))


async def behind_on_keys(
    session: Session, opened_by: str | None = None, instance_id: str | None = None
) -> list[tuple[str, str, str]]:
    """Running instances (id, owner's id, name) that lack the latest SSH keys that open them.

    `opened_by` leaves only those that a person owns or may log in to.
    """
    query = (
        select(instances.c.id, instances.c.owner_id, instances.c.name)
        .join(users, users.c.id == instances.c.owner_id)
        .where(
            instances.c.state == InstanceState.RUNNING.value,
            instances.c.keys_version < users.c.keys_version + instances.c.guests_version,
        )
    )
    if opened_by is not None:
        shared = select(shares.c.instance_id).where(shares.c.user_id == opened_by)
        query = query.where((instances.c.owner_id == opened_by) | instances.c.id.in_(shared))
    if instance_id is not None:
        query = query.where(instances.c.id == instance_id)
    return [(row.id, row.owner_id, row.name) for row in await session.execute(query)]


async def owners(
    session: Session, instance_ids: Collection[str]
) -> dict[str, tuple[str, InstanceState]]:
    """The owner's id of each of these instances that there still is, and its state."""
    columns = (instances.c.id, instances.c.owner_id, instances.c.state)
    query = select(*columns).where(instances.c.id.in_(instance_ids))
    rows = await session.execute(query)
    return {row.id: (row.owner_id, InstanceState(row.state)) for row in rows}


async def count_by_state(session: Session) -> dict[str, int]:
    query = select(instances.c.state, func.count()).group_by(instances.c.state)
    return {str(state): int(count) for state, count in await session.execute(query)}
