"""Host ports that lead to instances."""

from dataclasses import dataclass

from sqlalchemy import select

from hutch.domain.ids import new_id
from hutch.domain.ports import pick_port
from hutch.store.db import Session, lock
from hutch.store.tables import ports


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    protocol: str
    host_port: int
    target_port: int


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
    await lock(session, "ports")
    query = select(ports.c.host_port).where(ports.c.host_port.between(first, last))
    taken = set((await session.execute(query)).scalars())
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


async def list_ports(session: Session, instance_id: str) -> list[Port]:
    query = select(ports).where(ports.c.instance_id == instance_id).order_by(ports.c.host_port)
    return [
        Port(row.name, row.protocol, row.host_port, row.target_port)
        for row in await session.execute(query)
    ]
