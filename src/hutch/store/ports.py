"""Ports that lead to instances."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.ids import new_id
from hutch.domain.ports import OpenTo, Port, PortState, Protocol, Reach, pick_port
from hutch.errors import PortTakenError
from hutch.store.db import Session, columns, lock, violated
from hutch.store.instances import SSH
from hutch.store.tables import instances, port_people, ports, users

# Databases differ in where they put what has no number.
_SELECT: Select[Any] = select(ports).order_by(
    ports.c.host_port.is_(None), ports.c.host_port, ports.c.protocol, ports.c.target_port
)


def _port(row: Any, people: tuple[str, ...] = ()) -> Port:
    return Port(
        **columns(
            row,
            protocol=Protocol(row.protocol),
            state=PortState(row.state),
            reach=Reach(row.reach),
            open_to=OpenTo(row.open_to),
        ),
        people=people,
    )


async def allocate_port(
    session: Session,
    instance_id: str,
    name: str,
    target_port: int,
    *,
    first: int,
    last: int,
    avoid: frozenset[int] = frozenset(),
) -> int:
    """Give an instance a free TCP host port that is not in `avoid`. Raises NoPortLeftError."""
    taken = await taken_ports(session, Protocol.TCP)
    port = pick_port(first, last, taken | avoid)
    await session.execute(
        ports.insert().values(
            id=new_id(),
            instance_id=instance_id,
            name=name,
            protocol="tcp",
            host_port=port,
            target_port=target_port,
        )
    )
    return port


async def taken_ports(session: Session, protocol: Protocol) -> set[int]:
    """Every host port that leads somewhere. Nobody else takes one until this transaction ends."""
    await lock(session, "ports")
    query = select(ports.c.host_port).where(
        ports.c.protocol == protocol.value, ports.c.host_port.is_not(None)
    )
    return set((await session.execute(query)).scalars())


async def add_port(session: Session, port: Port) -> None:
    """Insert a port that is being opened. Raises PortTakenError when the host port is taken."""
    try:
        async with session.begin_nested():
            await session.execute(
                ports.insert().values(
                    id=port.id,
                    instance_id=port.instance_id,
                    name=port.name,
                    protocol=port.protocol.value,
                    host_port=port.host_port,
                    target_port=port.target_port,
                    state=port.state.value,
                    reach=port.reach.value,
                    keeps_path=port.keeps_path,
                    open_to=port.open_to.value,
                    until=port.until,
                    created_at=port.created_at,
                )
            )
    except IntegrityError as error:
        if port.host_port is None or "host_port" not in violated(error):
            raise
        raise PortTakenError(port.host_port) from error


async def list_ports(session: Session, instance_id: str) -> list[Port]:
    """An instance's ports, that of SSH among them."""
    return await _with_people(session, _SELECT.where(ports.c.instance_id == instance_id))


async def get_port(session: Session, port_id: str) -> Port | None:
    found = await _with_people(session, _SELECT.where(ports.c.id == port_id))
    return found[0] if found else None


async def of_instances(session: Session, instance_ids: Collection[str]) -> dict[str, list[Port]]:
    """The ports of several instances, by the instance's id."""
    found: dict[str, list[Port]] = {}
    query = _SELECT.where(ports.c.instance_id.in_(instance_ids))
    for port in await _with_people(session, query):
        found.setdefault(port.instance_id, []).append(port)
    return found


async def of_node(session: Session, node_id: str) -> dict[str, list[Port]]:
    """The ports of a node's instances, by the instance's id, without whom they are open to."""
    found: dict[str, list[Port]] = {}
    query = _SELECT.join(instances, instances.c.id == ports.c.instance_id)
    for row in await session.execute(query.where(instances.c.node_id == node_id)):
        found.setdefault(row.instance_id, []).append(_port(row))
    return found


async def _with_people(session: Session, query: Select[Any]) -> list[Port]:
    rows = list(await session.execute(query))
    shared = [row.id for row in rows if row.open_to == OpenTo.PEOPLE.value]
    people: dict[str, list[str]] = {}
    if shared:
        named = (
            select(port_people.c.port_id, users.c.name)
            .join(users, users.c.id == port_people.c.user_id)
            .where(port_people.c.port_id.in_(shared))
            .order_by(users.c.name)
        )
        for port_id, name in await session.execute(named):
            people.setdefault(port_id, []).append(name)
    return [_port(row, tuple(people.get(row.id, ()))) for row in rows]


async def open_to(session: Session, user_id: str) -> list[Port]:
    """The TCP ports that are open to a person in particular, or to everyone."""
    mine = select(port_people.c.port_id).where(port_people.c.user_id == user_id)
    query = _SELECT.where(
        ports.c.protocol == Protocol.TCP.value,
        (ports.c.open_to == OpenTo.EVERYONE.value)
        | ((ports.c.open_to == OpenTo.PEOPLE.value) & ports.c.id.in_(mine)),
    )
    return await _with_people(session, query)


async def count_of_owner(session: Session, owner_id: str) -> int:
    """How many ports lead to a person's instances, besides those of SSH."""
    query = (
        select(func.count())
        .select_from(ports)
        .join(instances, instances.c.id == ports.c.instance_id)
        .where(instances.c.owner_id == owner_id, ports.c.name != SSH)
    )
    return (await session.execute(query)).scalar_one()


async def update_port(session: Session, port_id: str, **values: Any) -> None:
    """Change columns of one port."""
    await session.execute(update(ports).where(ports.c.id == port_id).values(**values))


async def set_people(session: Session, port_id: str, user_ids: Collection[str]) -> None:
    """Say to whom a port is open that is open to certain people."""
    await session.execute(delete(port_people).where(port_people.c.port_id == port_id))
    if user_ids:
        await session.execute(
            port_people.insert(),
            [{"port_id": port_id, "user_id": user_id} for user_id in sorted(user_ids)],
        )


async def delete_port(session: Session, port_id: str) -> None:
    await session.execute(delete(ports).where(ports.c.id == port_id))


async def due(session: Session, now: datetime) -> list[Port]:
    """Open ports whose time is over."""
    query = _SELECT.where(ports.c.until <= now, ports.c.state == PortState.OPEN.value)
    return [_port(row) for row in await session.execute(query)]


async def next_end(session: Session) -> datetime | None:
    """When the next open port ends."""
    query = select(func.min(ports.c.until)).where(ports.c.state == PortState.OPEN.value)
    return (await session.execute(query)).scalar_one()
