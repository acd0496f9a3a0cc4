"""What people may ask of the accelerators, and what they are told."""

from datetime import timedelta

import pytest

from hutch.domain.leases import LeaseState
from hutch.domain.people import Actor
from hutch.services import leases
from hutch.services.context import Context
from hutch.store import operations
from tests.lab import Lab
from tests.leases import Hands, add_accelerators, add_machine


@pytest.fixture
async def gpus(context: Context, lab: Lab, alice: Actor, bob: Actor) -> list[str]:
    """Four accelerators on node1, where alice and bob have a running machine each."""
    async with context.db.write() as session:
        made = await add_accelerators(session, lab.node, 4, context.now())
        await add_machine(session, alice, lab.node, "box")
        await add_machine(session, bob, lab.node, "bobs")
    return made


@pytest.fixture
def hands(context: Context) -> Hands:
    return Hands(context)


async def test_free_accelerators_are_held_by_the_time_the_answer_is_there(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    lease = await leases.take(context, alice, count=2)
    assert lease.state is LeaseState.ATTACHING
    assert set(lease.accelerators) <= set(gpus)
    assert len(set(lease.accelerators)) == 2
    assert lease.instance_name == "box"
    assert lease.expires_at == lease.granted_at + timedelta(minutes=480)
    async with context.db.read() as session:
        live = await operations.live_operation(session, f"lease:{lease.id}")
    assert live is not None
    assert (live.kind, live.owner_id) == ("lease_attach", alice.user_id)
