"""A lab with accelerators: who asks for them in tests, and how it is told that time goes on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update

from hutch.domain.accelerators import Health, Vendor
from hutch.domain.groups import Group
from hutch.domain.ids import new_id
from hutch.domain.instances import InstanceState
from hutch.domain.leases import Lease
from hutch.domain.nodes import Node
from hutch.domain.people import Actor
from hutch.services import scheduling, transitions
from hutch.services.context import Context
from hutch.store import groups, images, instances, leases, ports, tables
from hutch.store.db import Session
from tests.store import rows

MODEL = "Simulated A100"


async def add_accelerators(
    session: Session, node: Node, count: int, at: datetime, model: str = MODEL, **values: Any
) -> list[str]:
    """Accelerators of a node whose agent was just heard; their ids."""
    await session.execute(
        update(tables.nodes).where(tables.nodes.c.id == node.id).values(agent_seen_at=at)
    )
    made = [
        {
            "id": new_id(),
            "node_id": node.id,
            "address": f"simulated:{model}:{number}",
            "vendor": Vendor.SIMULATED.value,
            "model": model,
            "memory": 0,
            "device_nodes": {"nodes": [], "shared": []},
            "health": Health.OK.value,
            "reason": "",
            "sharers": 1,
            "seen_at": at,
            "created_at": at,
            **values,
        }
        for number in range(count)
    ]
    await session.execute(tables.accelerators.insert(), made)
    return [row["id"] for row in made]


async def add_machine(
    session: Session,
    owner: Actor,
    node: Node,
    name: str = "box",
    state: InstanceState = InstanceState.RUNNING,
) -> str:
    """A person's instance in a state of rest; its id."""
    [image] = await images.list_images(session)
    instance_id = new_id()
    await instances.add_instance(
        session,
        instance_id=instance_id,
        owner_id=owner.user_id,
        name=name,
        node_id=node.id,
        image_id=image.id,
        limits=rows.LIMITS,
        host_key="ssh-ed25519 AAAA",
        host_secret=b"sealed",
        at=rows.NOW,
    )
    await instances.set_state(session, instance_id, state)
    await ports.allocate_port(session, instance_id, instances.SSH, 22, first=22000, last=22999)
    return instance_id


async def add_group(session: Session, name: str, *people: Actor, **values: Any) -> Group:
    """A group with these members; without a guarantee, a limit, or more weight than another."""
    known = {"guarantee": 0, "limit": None, "weight": 1.0, "idle": None, "created_at": rows.NOW}
    group = Group(id=new_id(), name=name, **{**known, **values})
    await groups.add_group(session, group)
    for person in people:
        await groups.add_member(session, group.id, person.user_id, person.name)
    return group


@dataclass(frozen=True)
class Hands:
    """What the operations and the agent do in a real lab, done at once."""

    context: Context

    async def attach(self, *found: Lease) -> None:
        """As if these leases' accelerators had been brought into their instances."""
        async with self.context.db.write() as session:
            for lease in found:
                await _end_operation(session, lease.id)
                assert await transitions.activate(session, self.context, lease.id)

    async def detach(self, *found: Lease) -> None:
        """As if they had left, and nobody had them open any more."""
        async with self.context.db.write() as session:
            for lease in found:
                await _end_operation(session, lease.id)
                assert await transitions.finish(session, self.context, lease.id)
        await scheduling.poke(self.context)

    async def deliver(self) -> None:
        """As if every notice had been written where people see it."""
        async with self.context.db.write() as session:
            await session.execute(
                tables.notices.update()
                .where(tables.notices.c.delivered_at.is_(None))
                .values(delivered_at=self.context.now())
            )

    async def hear_agents(self) -> None:
        """As if every node's agent had just said something."""
        async with self.context.db.write() as session:
            await session.execute(tables.nodes.update().values(agent_seen_at=self.context.now()))

    async def lease(self, lease_id: str) -> Lease:
        """The lease as it is now."""
        async with self.context.db.read() as session:
            found = await leases.get_lease(session, lease_id)
        assert found is not None
        return found


async def _end_operation(session: Session, lease_id: str) -> None:
    await session.execute(
        tables.operations.update()
        .where(tables.operations.c.target == transitions.target(lease_id))
        .values(state="done")
    )
