"""Accelerators for tests: cards as a node finds them, and somebody who holds one."""

from dataclasses import replace
from typing import Any

from hutch.domain.accelerators import (
    DeviceNode,
    FoundAccelerator,
    Health,
    Process,
    Reading,
    Vendor,
)
from hutch.domain.ids import new_id
from hutch.domain.people import Actor
from hutch.services import accelerators as services
from hutch.services.context import Context
from hutch.store import accelerators
from hutch.store.tables import busy_days, holdings, leases
from tests.lab import Lab

GIB = 1024**3


def card(address: str = "0000:3b:00.0", **changes: Any) -> FoundAccelerator:
    plain = FoundAccelerator(
        address=address,
        vendor=Vendor.NVIDIA,
        model="NVIDIA H100",
        memory=80 * GIB,
        nodes=(DeviceNode("/dev/nvidia0", 195, 0),),
    )
    return replace(plain, **changes)


def reading(address: str = "0000:3b:00.0", busy: float | None = 0.0, **changes: Any) -> Reading:
    return replace(Reading(address, busy, 0, 40.0, 60.0), **changes)


def broken(address: str = "0000:3b:00.0", health: Health = Health.FAILED) -> Reading:
    return reading(address, None, memory_used=None, health=health, reason="It says so.")


def process(container: str | None, pid: int = 4711, **changes: Any) -> Process:
    return replace(Process(pid, "python3", container, "root", GIB), **changes)


async def sign_in(context: Context, lab: Lab, *cards: FoundAccelerator) -> str:
    """What an agent's first message leaves; the connection."""
    return await services.record_hello(
        context, lab.node, cards, version="1", has_nvidia_driver=True
    )


async def ids(context: Context) -> dict[str, str]:
    """Ids by address."""
    async with context.db.read() as session:
        found = await accelerators.list_accelerators(session)
    return {each.found.address: each.id for each in found}


async def hold(
    context: Context,
    lab: Lab,
    owner: Actor,
    accelerator_id: str,
    *,
    instance_id: str = "none",
    slot: int = 0,
) -> tuple[str, str]:
    """An active lease of one accelerator, straight into the tables; its id and the holding's."""
    lease_id, holding_id = new_id(), new_id()
    async with context.db.write() as session:
        await session.execute(
            leases.insert().values(
                id=lease_id,
                instance_id=instance_id,
                instance_name="box",
                owner_id=owner.user_id,
                node_id=lab.node.id,
                count=1,
                seconds=3600,
                state="active",
                requested_at=context.now(),
                granted_at=context.now(),
            )
        )
        await session.execute(
            holdings.insert().values(
                id=holding_id,
                lease_id=lease_id,
                accelerator_id=accelerator_id,
                slot=slot,
                since=context.now(),
            )
        )
    return lease_id, holding_id


async def busy_seconds(context: Context, holding_id: str) -> dict[str, float]:
    """What was booked to a holding, by day."""
    async with context.db.read() as session:
        rows = await session.execute(busy_days.select().where(busy_days.c.holding_id == holding_id))
        return {row.day: row.seconds for row in rows}
