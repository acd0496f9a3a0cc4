"""Containers: what an instance lives in, and those made in advance."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update

from hutch.domain.ids import new_engine_name, new_id
from hutch.domain.instances import Container, ContainerRole
from hutch.domain.nodes import Node
from hutch.domain.ports import pick_address
from hutch.store.db import Session, columns, lock
from hutch.store.tables import containers


def _container(row: Any) -> Container:
    return Container(**columns(row, role=ContainerRole(row.role)))


async def add_container(
    session: Session,
    node: Node,
    image_id: str,
    role: ContainerRole,
    at: datetime,
    instance_id: str | None = None,
) -> Container:
    """Decide a new container's name and address on a node. Raises NoAddressLeftError."""
    await lock(session, f"addresses:{node.id}")
    query = select(containers.c.address).where(containers.c.node_id == node.id)
    address = pick_address(node.subnet, set((await session.execute(query)).scalars()))
    container = Container(
        id=new_id(),
        node_id=node.id,
        engine_name=new_engine_name(),
        address=address,
        image_id=image_id,
        role=role,
        instance_id=instance_id,
        ready=False,
        created_at=at,
    )
    await session.execute(
        containers.insert().values(
            id=container.id,
            node_id=node.id,
            engine_name=container.engine_name,
            address=address,
            image_id=image_id,
            role=role.value,
            instance_id=instance_id,
            ready=False,
            created_at=at,
        )
    )
    return container


async def take_from_pool(
    session: Session, node_id: str, image_id: str, instance_id: str
) -> Container | None:
    """Give a ready container of the pool to an instance; None when there is none.

    One statement, so that two takers never get the same container.
    """
    ready = (
        select(containers.c.id)
        .where(
            containers.c.node_id == node_id,
            containers.c.image_id == image_id,
            containers.c.role == ContainerRole.POOL.value,
            containers.c.ready,
        )
        .order_by(containers.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (
        await session.execute(
            update(containers)
            .where(containers.c.id == ready.scalar_subquery())
            .values(role=ContainerRole.CURRENT.value, instance_id=instance_id)
            .returning(*containers.c)
        )
    ).one_or_none()
    return None if row is None else _container(row)


async def current(session: Session, instance_id: str) -> Container | None:
    """The container that an instance lives in."""
    return await of_role(session, instance_id, ContainerRole.CURRENT)


async def of_role(session: Session, instance_id: str, role: ContainerRole) -> Container | None:
    query = (
        select(containers)
        .where(containers.c.instance_id == instance_id, containers.c.role == role.value)
        .order_by(containers.c.created_at)
        .limit(1)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _container(row)


async def of_instance(session: Session, instance_id: str) -> list[Container]:
    """Every container of an instance, whatever its role."""
    query = (
        select(containers)
        .where(containers.c.instance_id == instance_id)
        .order_by(containers.c.created_at)
    )
    return [_container(row) for row in await session.execute(query)]


async def get_container(session: Session, container_id: str) -> Container | None:
    query = select(containers).where(containers.c.id == container_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _container(row)


async def list_containers(session: Session, *, node_id: str | None = None) -> list[Container]:
    query = select(containers).order_by(containers.c.created_at)
    if node_id is not None:
        query = query.where(containers.c.node_id == node_id)
    return [_container(row) for row in await session.execute(query)]


async def set_role(session: Session, container_id: str, role: ContainerRole) -> None:
    await session.execute(
        update(containers).where(containers.c.id == container_id).values(role=role.value)
    )


async def set_ready(session: Session, container_id: str) -> None:
    await session.execute(
        update(containers).where(containers.c.id == container_id).values(ready=True)
    )


async def count_pool(session: Session, node_id: str, image_id: str) -> int:
    """Containers of the pool, those in the making included."""
    query = (
        select(func.count())
        .select_from(containers)
        .where(
            containers.c.node_id == node_id,
            containers.c.image_id == image_id,
            containers.c.role == ContainerRole.POOL.value,
        )
    )
    return (await session.execute(query)).scalar_one()


async def delete_container(session: Session, container_id: str) -> None:
    """Forget a container that the engine no longer has; its address is free from then on."""
    await session.execute(delete(containers).where(containers.c.id == container_id))
