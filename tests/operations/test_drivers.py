"""Machines run with the libraries of their node's NVIDIA driver, or without where it is broken."""

import pytest

from hutch.domain.accelerators import FoundAccelerator, Vendor
from hutch.domain.instances import InstanceState
from hutch.domain.people import Actor
from hutch.engine.base import Observed, Power
from hutch.engine.simulated import SimulatedEngine
from hutch.errors import EngineConflictError, EngineError
from hutch.operations.drivers import WITHOUT
from hutch.services import instances
from hutch.services.context import Context
from hutch.store import nodes
from tests.lab import Lab
from tests.operations.scenarios import pooled, run, with_instance

CARD = FoundAccelerator("0000:3b:00.0", Vendor.NVIDIA, "NVIDIA A100")


@pytest.fixture
def engine(context: Context, lab: Lab) -> SimulatedEngine:
    engine = context.engines.of(lab.node)
    assert isinstance(engine, SimulatedEngine)
    return engine


async def say(context: Context, lab: Lab, *, has_nvidia_driver: bool) -> None:
    """What the node's agent says."""
    async with context.db.write() as session:
        await nodes.update_node(session, lab.node.id, has_nvidia_driver=has_nvidia_driver)


@pytest.fixture
async def on_nvidia(context: Context, lab: Lab, engine: SimulatedEngine) -> None:
    engine.add_accelerator(CARD)
    await say(context, lab, has_nvidia_driver=True)


async def only_one(engine: SimulatedEngine) -> Observed:
    (container,) = await engine.containers()
    return container


async def restart(context: Context, actor: Actor) -> None:
    await instances.restart(context, actor, "box")
    await run(context)


async def test_a_machine_on_a_node_without_has_none(
    context: Context, alice: Actor, engine: SimulatedEngine
) -> None:
    await with_instance(context, alice)
    assert not (await only_one(engine)).has_nvidia_driver


@pytest.mark.usefixtures("on_nvidia")
async def test_a_machine_is_made_and_rebuilt_with_them(
    context: Context, alice: Actor, engine: SimulatedEngine
) -> None:
    made = await with_instance(context, alice)
    first = await only_one(engine)
    assert first.has_nvidia_driver
    assert made.error is None
    await instances.rebuild(context, alice, "box")
    await run(context)
    second = await only_one(engine)
    assert second.name != first.name
    assert second.has_nvidia_driver


@pytest.mark.usefixtures("on_nvidia")
async def test_a_machine_of_the_pool_has_them_too(
    context: Context, engine: SimulatedEngine
) -> None:
    await pooled(context)
    await run(context)
    assert (await only_one(engine)).has_nvidia_driver


async def test_a_machine_from_before_gets_them_at_its_next_start(
    context: Context, lab: Lab, alice: Actor, engine: SimulatedEngine
) -> None:
    await with_instance(context, alice)
    engine.add_accelerator(CARD)
    await say(context, lab, has_nvidia_driver=True)
    assert not (await only_one(engine)).has_nvidia_driver
    await restart(context, alice)
    assert (await only_one(engine)).has_nvidia_driver
    await say(context, lab, has_nvidia_driver=False)
    await restart(context, alice)
    assert not (await only_one(engine)).has_nvidia_driver


async def test_a_node_that_cannot_do_what_its_agent_says_makes_machines_all_the_same(
    context: Context, lab: Lab, alice: Actor, engine: SimulatedEngine
) -> None:
    await say(context, lab, has_nvidia_driver=True)
    made = await with_instance(context, alice)
    assert made.state is InstanceState.RUNNING
    assert made.error == WITHOUT
    await restart(context, alice)
    again = await instances.show(context, alice, "box")
    assert again.state is InstanceState.RUNNING
    assert again.error == WITHOUT
    assert not (await only_one(engine)).has_nvidia_driver


@pytest.mark.usefixtures("on_nvidia")
async def test_a_machine_whose_driver_is_broken_starts_without(
    context: Context, alice: Actor, engine: SimulatedEngine
) -> None:
    await with_instance(context, alice, stopped=True)
    engine.faults.fail("start", message="The hook failed.")
    await instances.start(context, alice, "box")
    await run(context)
    box = await instances.show(context, alice, "box")
    assert (box.state, (await only_one(engine)).power) == (InstanceState.RUNNING, Power.RUNNING)
    assert box.error == WITHOUT
    assert not (await only_one(engine)).has_nvidia_driver
    # The next start tries again, and then nothing is wrong any more.
    await restart(context, alice)
    assert (await only_one(engine)).has_nvidia_driver
    assert (await instances.show(context, alice, "box")).error is None


@pytest.mark.usefixtures("on_nvidia")
async def test_a_machine_that_was_made_and_does_not_start_is_started_without(
    context: Context, alice: Actor, engine: SimulatedEngine
) -> None:
    engine.faults.fail("create", message="The hook failed.", after=True)
    made = await with_instance(context, alice)
    assert made.state is InstanceState.RUNNING
    assert made.error == WITHOUT
    assert not (await only_one(engine)).has_nvidia_driver


@pytest.mark.usefixtures("on_nvidia")
async def test_a_failure_that_is_not_the_drivers_is_none_of_its_business(
    context: Context, alice: Actor, engine: SimulatedEngine
) -> None:
    await with_instance(context, alice, stopped=True)
    engine.faults.fail("start", error=EngineConflictError, message="Busy.")
    await instances.start(context, alice, "box")
    await run(context)
    assert (await only_one(engine)).has_nvidia_driver
    engine.faults.fail("start", times=2, error=EngineError, message="No.")
    await instances.stop(context, alice, "box")
    await run(context)
    await instances.start(context, alice, "box")
    await run(context)
    assert (await instances.show(context, alice, "box")).state is InstanceState.STOPPED
