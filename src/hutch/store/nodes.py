"""Nodes."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.groups import IdlePolicy
from hutch.domain.instances import InstanceState
from hutch.domain.nodes import Capacity, EngineKind, Node, NodeState
from hutch.errors import NameTakenError
from hutch.store.db import Session, columns
from hutch.store.tables import instances, nodes


def _node(row: Any) -> Node:
    values = columns(row, engine=EngineKind(row.engine), state=NodeState(row.state))
    capacity = Capacity(values.pop("cpus"), values.pop("memory"), values.pop("disk"))
    values["idle"] = IdlePolicy.parse(values["idle"])
    # The agent's secret stays here.
    del values["agent_digest"], values["agent_connection"]
    return Node(capacity=capacity, **values)


async def add_node(session: Session, node: Node) -> None:
    """Insert a node. Raises NameTakenError."""
    try:
        await session.execute(
            nodes.insert().values(
                id=node.id,
                name=node.name,
                engine=node.engine.value,
                url=node.url,
                project=node.project,
                pool=node.pool,
                network=node.network,
                subnet=node.subnet,
                address=node.address,
                state=node.state.value,
                cpus=node.capacity.cpus,
                memory=node.capacity.memory,
                disk=node.capacity.disk,
                disk_used=node.disk_used,
                version=node.version,
                boot_id=node.boot_id,
                seen_at=node.seen_at,
                created_at=node.created_at,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("a node called", node.name) from error


async def update_node(session: Session, node_id: str, **values: Any) -> None:
    await session.execute(update(nodes).where(nodes.c.id == node_id).values(**values))


async def list_nodes(session: Session) -> list[Node]:
    return [_node(row) for row in await session.execute(select(nodes).order_by(nodes.c.name))]


async def get_node(session: Session, node_id: str) -> Node | None:
    row = (await session.execute(select(nodes).where(nodes.c.id == node_id))).one_or_none()
    return None if row is None else _node(row)


async def find_node(session: Session, name: str) -> Node | None:
    row = (await session.execute(select(nodes).where(nodes.c.name == name))).one_or_none()
    return None if row is None else _node(row)


async def node_of_agent(session: Session, digest: bytes) -> Node | None:
    """The node whose agent has the token with this digest."""
    row = (await session.execute(select(nodes).where(nodes.c.agent_digest == digest))).one_or_none()
    return None if row is None else _node(row)


async def touch_agent(session: Session, node_id: str, connection: str, at: datetime) -> Node | None:
    """Write down that an agent said something; None when its connection no longer counts."""
    query = (
        update(nodes)
        .where(nodes.c.id == node_id, nodes.c.agent_connection == connection)
        .values(agent_seen_at=at)
        .returning(nodes)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _node(row)


async def silence_agent(session: Session, node_id: str, seen_at: datetime | None) -> bool:
    """Note that a node's agent is silent since `seen_at`; False when it spoke again meanwhile."""
    query = update(nodes).where(
        nodes.c.id == node_id,
        nodes.c.agent_seen_at == seen_at,
        nodes.c.agent_silent_since.is_(None),
    )
    return (await session.execute(query.values(agent_silent_since=seen_at))).rowcount == 1


async def is_agent_connection(session: Session, node_id: str, connection: str) -> bool:
    """Whether this connection of a node's agent is the one that counts."""
    query = select(nodes.c.agent_connection).where(nodes.c.id == node_id)
    return (await session.execute(query)).scalar_one_or_none() == connection


async def promised(session: Session) -> dict[str, Capacity]:
    """What instances may use at most in all, by the node's id; empty nodes are not named."""
    query = (
        select(
            instances.c.node_id,
            func.sum(instances.c.cpus),
            func.sum(instances.c.memory),
            func.sum(instances.c.disk),
        )
        .where(instances.c.state != InstanceState.FAILED.value)
        .group_by(instances.c.node_id)
    )
    return {
        node_id: Capacity(int(cpus), int(memory), int(disk))
        for node_id, cpus, memory, disk in await session.execute(query)
    }
