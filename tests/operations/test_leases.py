"""How accelerators go into instances and come back: who is asked, who is ended, and who is not."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import pytest

from hutch.domain.accelerators import Verb
from hutch.domain.leases import EndReason, Lease, LeaseState
from hutch.domain.operations import Operation, OperationState
from hutch.domain.people import Actor
from hutch.engine.simulated import SimulatedEngine
from hutch.errors import EngineError
from hutch.operations import Runner
from hutch.operations.base import Procedure
from hutch.operations.registry import PROCEDURES
from hutch.services import (
    accelerators,
    events,
    instances,
    leases,
    notices,
    operations,
    scheduling,
    snapshots,
)
from hutch.services.context import Context
from hutch.store import accelerators as accelerator_rows
from hutch.store import nodes
from hutch.store import operations as operation_rows
from hutch.store import revocations as revocation_rows
from hutch.store.tables import accelerators as accelerator_table
from hutch.store.tables import instances as instance_table
from tests.agents_fake import Manner, agent_of, answering
from tests.lab import Clock, with_settings
from tests.operations.scenarios import (
    assert_whole,
    container_of,
    inside,
    operation_of,
    run,
    with_agent,
    with_instance,
    with_lease,
)


async def now(context: Context, actor: Actor, lease: Lease) -> Lease:
    return await leases.show(context, actor, lease.id)


async def release(context: Context, actor: Actor, lease: Lease) -> Operation:
    [lease] = await leases.release(context, actor, lease=lease.id)
    return await operation_of(context, lease)


async def texts(context: Context, actor: Actor) -> list[str]:
    return [each.text for each in await notices.list_all(context, actor)]


async def is_answered(context: Context, lease: Lease) -> bool:
    async with context.db.read() as session:
        order = await revocation_rows.latest(session, lease.id)
    return order is not None and order.result is not None


async def test_who_holds_nothing_waits_for_nobody(context: Context, alice: Actor) -> None:
    lease = await with_lease(context, alice)
    agent_of(context).asked.clear()
    operation = await release(context, alice, lease)
    await run(context)
    ended = await operations.show(context, alice, operation.id)
    assert ended.state is OperationState.DONE
    assert agent_of(context).asked == [Verb.SHUT]
    assert await texts(context, alice) == []
    assert (await now(context, alice, lease)).end_reason is EndReason.RELEASED


async def test_what_the_agent_said_a_while_ago_is_asked_again(
    context: Context, alice: Actor, clock: Clock
) -> None:
    clock.stop()
    lease = await with_lease(context, alice)
    agent, path = agent_of(context), await inside(context, lease)
    agent.asked.clear()
    async with answering(context):
        await release(context, alice, lease)
        async with asyncio.timeout(20):
            while not await is_answered(context, lease):
                await asyncio.sleep(0.01)
    # The machine is started anew meanwhile: then its devices are open again.
    agent.open(await container_of(context, lease.instance_id), path, "python3")
    clock.forward(seconds=5)
    await run(context)
    assert agent.asked[:3] == [Verb.SHUT, Verb.SHUT, Verb.ASK]
    assert agent.users(path) == []


async def test_what_cannot_be_shut_is_looked_at_again_once_it_is_out(
    context: Context, alice: Actor
) -> None:
    lease = await with_lease(context, alice)
    agent_of(context).finds_devices = False
    agent_of(context).asked.clear()
    operation = await release(context, alice, lease)
    await run(context)
    assert (await operations.show(context, alice, operation.id)).state is OperationState.DONE
    assert agent_of(context).asked == [Verb.SHUT, Verb.END, Verb.SHUT]


async def test_what_holds_it_is_named_asked_and_ended_and_nothing_else_is(
    context: Context, alice: Actor, ada: Actor
) -> None:
    context = with_settings(context, release_grace_seconds=0)
    lease = await with_lease(context, alice)
    agent, path = agent_of(context), await inside(context, lease)
    container = await container_of(context, lease.instance_id)
    agent.open(container, path, "python3")
    agent.open(container, path, "train\x1b[2J", Manner.STUBBORN)
    agent.open(container, "/dev/hutch-gpu9", "innocent", Manner.STUBBORN)
    agent.open("hutch-of-another", path, "neighbour", Manner.STUBBORN)

    operation = await release(context, alice, lease)
    await run(context)

    assert agent.users(path) == ["neighbour"]
    assert agent.users("/dev/hutch-gpu9") == ["innocent"]
    done = await operations.show(context, alice, operation.id)
    assert [each["command"] for each in done.data["processes"]] == ["python3", "train\x1b[2J"]
    assert [each["command"] for each in done.data["ended"]] == ["train\x1b[2J"]
    ended = await now(context, alice, lease)
    assert ended.evidence is not None
    assert len(ended.evidence["processes"]) == 2
    for verb, named in (("ask", ["python3", "train\x1b[2J"]), ("kill", ["train\x1b[2J"])):
        [event] = await events.list_all(context, ada, action=f"lease.{verb}")
        assert [each["command"] for each in event.detail["processes"]] == named
    told = await texts(context, alice)
    assert [text for text in told if text.startswith("python3, train [2J in box")], told
    assert [text for text in told if text.startswith("train [2J had not ended")], told


async def test_grace_is_given_and_not_waited_for_once_it_has_ended(
    context: Context, alice: Actor
) -> None:
    lease = await with_lease(context, alice)
    agent, path = agent_of(context), await inside(context, lease)
    agent.open(await container_of(context, lease.instance_id), path, "python3")
    agent.asked.clear()
    await release(context, alice, lease)
    # The grace is ten seconds of a clock that stands still in effect: `run` gives up before.
    await run(context)
    assert agent.asked == [Verb.SHUT, Verb.ASK, Verb.SHUT, Verb.END, Verb.SHUT]


async def test_nothing_is_handed_on_while_something_hangs_on_to_it(
    context: Context, alice: Actor, bob: Actor, clock: Clock
) -> None:
    clock.stop()
    lease = await with_lease(context, alice, count=4)
    agent, path = agent_of(context), await inside(context, lease)
    agent.open(await container_of(context, lease.instance_id), path, "undead", Manner.IMMORTAL)
    await instances.create(context, bob, instances.Wish("bobs"))
    await run(context)
    waiting = await leases.take(context, bob, count=1)
    assert waiting.state is LeaseState.QUEUED

    operation = await release(context, alice, lease)
    await until(context, operation, lambda each: "undead" in each.message)
    clock.forward(seconds=11)
    await until(context, operation, lambda each: each.step == "verify")
    assert (await now(context, alice, lease)).state is LeaseState.DETACHING
    assert (await now(context, bob, waiting)).state is LeaseState.QUEUED

    agent.programs.clear()
    clock.forward(seconds=1)
    await run(context)
    assert (await now(context, bob, waiting)).state is LeaseState.ACTIVE
    await assert_whole(context)


async def test_a_silent_agent_keeps_the_accelerators_where_they_are(
    context: Context, alice: Actor, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("hutch.operations.lease_detach._ANSWER_SECONDS", 0.2)
    clock.stop()
    lease = await with_lease(context, alice)
    agent_of(context).silent = True
    operation = await release(context, alice, lease)
    await until(context, operation, lambda each: "agent of node1" in each.message)
    assert (await now(context, alice, lease)).state is LeaseState.DETACHING

    agent_of(context).silent = False
    clock.forward(seconds=10)
    await run(context)
    assert (await now(context, alice, lease)).state is LeaseState.ENDED
    await assert_whole(context)


async def test_nobody_needs_an_agent_to_take_them_from_a_machine_that_is_stopped(
    context: Context, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hutch.operations.lease_detach._ANSWER_SECONDS", 0.2)
    lease = await with_lease(context, alice)
    agent_of(context).silent = True
    await instances.stop(context, alice, "box")
    await run(context)
    assert (await now(context, alice, lease)).end_reason is EndReason.STOPPED
    await assert_whole(context)


async def test_a_grant_that_is_given_back_at_once_goes_the_whole_way_out(
    context: Context, alice: Actor
) -> None:
    await with_instance(context, alice)
    await with_agent(context)
    lease = await leases.take(context, alice, count=2)
    [given_back] = await leases.release(context, alice, lease=lease.id)
    assert given_back.state is LeaseState.DETACHING
    await run(context)
    ended = await now(context, alice, lease)
    assert (ended.state, ended.end_reason) == (LeaseState.ENDED, EndReason.RELEASED)
    await assert_whole(context)


async def test_what_the_engine_refuses_ends_the_lease_with_the_reason(
    context: Context, alice: Actor
) -> None:
    await with_instance(context, alice)
    await with_agent(context)
    lease = await leases.take(context, alice, count=2)
    broken = failing("attach", EngineError("The node has no such device."))
    await run(context, broken)
    ended = await now(context, alice, lease)
    assert (ended.state, ended.end_reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert ended.error == "The node has no such device."
    assert "no such device" in (await texts(context, alice))[0]
    await assert_whole(context)


async def test_what_was_granted_to_a_machine_that_stopped_meanwhile_is_nobodys(
    context: Context, alice: Actor
) -> None:
    instance = await with_instance(context, alice)
    await with_agent(context)
    lease = await leases.take(context, alice, count=2)
    async with context.db.write() as session:
        await session.execute(
            instance_table.update()
            .where(instance_table.c.id == instance.id)
            .values(state="stopped", desired="stopped")
        )
    engine = await engine_of(context)
    await engine.stop(await container_of(context, instance.id))
    await run(context)
    ended = await now(context, alice, lease)
    assert (ended.state, ended.end_reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert "does not run" in (ended.error or "")
    await assert_whole(context)


async def test_one_of_two_leases_leaves_what_the_other_has(context: Context, alice: Actor) -> None:
    first = await with_lease(context, alice, count=1)
    second = await leases.take(context, alice, count=2)
    await run(context)
    kept, path = await inside(context, second), await inside(context, first)
    agent = agent_of(context)
    container = await container_of(context, first.instance_id)
    agent.open(container, kept, "of the second", Manner.STUBBORN)
    agent.open(container, path, "of the first")
    await release(context, alice, first)
    await run(context)
    assert agent.users(kept) == ["of the second"]
    assert agent.users(path) == []
    assert (await now(context, alice, second)).state is LeaseState.ACTIVE
    await assert_whole(context)


async def test_who_shares_one_keeps_it_when_the_other_gives_it_back(
    context: Context, alice: Actor, bob: Actor, ada: Actor
) -> None:
    await with_instance(context, alice)
    await instances.create(context, bob, instances.Wish("bobs"))
    await with_agent(context)
    await run(context)
    async with context.db.read() as session:
        shared, *others = await accelerator_rows.list_accelerators(session)
    for each in others:
        await accelerators.withdraw(context, ada, each.id, "not today")
    await accelerators.share(context, ada, shared.id, 2)
    hers = await leases.take(context, alice, count=1)
    his = await leases.take(context, bob, count=1)
    await run(context)
    agent, path = agent_of(context), await inside(context, hers)
    agent.open(await container_of(context, hers.instance_id), path, "hers")
    agent.open(await container_of(context, his.instance_id), path, "his", Manner.STUBBORN)
    await release(context, alice, hers)
    await run(context)
    assert agent.users(path) == ["his"]
    assert (await now(context, bob, his)).state is LeaseState.ACTIVE
    await assert_whole(context)


async def test_the_next_in_the_queue_has_it_without_anybody_looking(
    context: Context, alice: Actor, bob: Actor
) -> None:
    lease = await with_lease(context, alice, count=4)
    await instances.create(context, bob, instances.Wish("bobs"))
    await run(context)
    waiting = await leases.take(context, bob, count=3)
    await release(context, alice, lease)
    await run(context)
    assert (await now(context, bob, waiting)).state is LeaseState.ACTIVE
    await assert_whole(context)


# -- what these tests do by hand --------------------------------------------------------------


async def until(context: Context, operation: Operation, is_so: Callable[[Operation], bool]) -> None:
    """Work until the operation reads so; then the server stops in order."""
    runner = Runner(context)
    async with asyncio.timeout(20), answering(context):
        working = asyncio.create_task(runner.run())
        while True:
            async with context.db.read() as session:
                found = await operation_rows.get_operation(session, operation.id)
            assert found is not None
            if is_so(found):
                break
            await asyncio.sleep(0.02)
        await runner.drain(10)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


_BRINGS_BACK: dict[str, Callable[[Context, Actor], Awaitable[Operation]]] = {
    "restart": lambda context, actor: instances.restart(context, actor, "box"),
    "rebuild": lambda context, actor: instances.rebuild(context, actor, "box"),
    "restore": lambda context, actor: snapshots.restore(context, actor, "box", "monday"),
}


@pytest.mark.parametrize("verb", sorted(_BRINGS_BACK))
async def test_a_machine_that_is_back_gets_what_it_waits_for_at_once(
    context: Context, alice: Actor, verb: str
) -> None:
    await with_instance(context, alice)
    await snapshots.create(context, alice, "box", "monday")
    await with_agent(context)
    async with context.db.write() as session:
        await session.execute(accelerator_table.update().values(withdrawn="for a test"))
    lease = await leases.take(context, alice, count=2)
    await run(context)
    await _BRINGS_BACK[verb](context, alice)
    async with context.db.write() as session:
        await session.execute(accelerator_table.update().values(withdrawn=None))
    await scheduling.poke(context)
    assert (await now(context, alice, lease)).state is LeaseState.QUEUED, "it does not run yet"
    runner = Runner(context, PROCEDURES)
    working = asyncio.create_task(runner.run())
    lease = await leases.wait(context, alice, lease.id, timeout=20)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await runner.drain(10)
    assert lease.state is LeaseState.ACTIVE


async def engine_of(context: Context) -> SimulatedEngine:
    async with context.db.read() as session:
        [node] = await nodes.list_nodes(session)
    engine = context.engines.of(node)
    assert isinstance(engine, SimulatedEngine)
    return engine


def failing(step: str, error: EngineError) -> Mapping[str, Procedure]:
    """All procedures, of which attaching meets this error."""
    attach = PROCEDURES["lease_attach"]

    async def do(_: object) -> None:
        raise error

    steps = tuple(replace(each, do=do) if each.name == step else each for each in attach.steps)
    return {**PROCEDURES, "lease_attach": replace(attach, steps=steps)}
