"""A lab with accelerators for the tests of leases."""

import pytest

from hutch.domain.people import Actor
from hutch.services.context import Context
from tests.lab import Lab
from tests.leases import Hands, add_accelerators, add_machine


@pytest.fixture
async def gpus(context: Context, lab: Lab, alice: Actor, bob: Actor) -> list[str]:
    """The ids of four accelerators on node1, where alice and bob have a running machine each:
    `box` and `bobs`."""
    async with context.db.write() as session:
        made = await add_accelerators(session, lab.node, 4, context.now())
        await add_machine(session, alice, lab.node, "box")
        await add_machine(session, bob, lab.node, "bobs")
    return made


@pytest.fixture
def hands(context: Context) -> Hands:
    return Hands(context)
