"""How the runner treats leases, retries, the unforeseen, and clocks that jump."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from hutch.domain.instances import InstanceState
from hutch.domain.limits import POOL_DISK
from hutch.domain.operations import Kind, Operation, OperationState
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.sizes import GiB
from hutch.engine.simulated import SimulatedEngine
from hutch.errors import (
    BusyError,
    EngineConflictError,
    EngineError,
    ForbiddenError,
    NotFoundError,
    WrongStateError,
)
from hutch.operations import Runner
from hutch.operations.base import Procedure, Retry, Step, Work
from hutch.operations.registry import PROCEDURES
from hutch.operations.runner import Verdict, judge
from hutch.services import events, instances, keys, operations, snapshots, users
from hutch.services.context import Context
from hutch.store import nodes as node_rows
from hutch.store import operations as operation_rows
from tests.keys import new_key
from tests.lab import Clock, with_settings
from tests.operations.scenarios import assert_whole, end, pooled, run, with_instance

KIND = Kind.INSTANCE_STOP


def only(*steps: Step) -> dict[str, Procedure]:
    """Stopping, made of these steps instead."""
    return {KIND.value: Procedure(KIND, steps)}


async def add(context: Context, actor: Actor, target: str = "thing:1") -> Operation:
    async with context.db.write() as session:
        return await operations.enqueue(
            session, context, actor, KIND, target, owner_id=actor.user_id, label="thing"
        )


def step(name: str, act: Callable[[Work], None]) -> Step:
    async def do(work: Work) -> None:
        act(work)

    return Step(name, name.capitalize(), do)


async def engine_of(context: Context) -> SimulatedEngine:
    async with context.db.read() as session:
        node = (await node_rows.list_nodes(session))[0]
    engine = context.engines.of(node)
    assert isinstance(engine, SimulatedEngine)
    return engine


async def test_steps_run_in_order_and_data_is_handed_on(context: Context, alice: Actor) -> None:
    seen: list[object] = []

    async def decide(work: Work) -> None:
        await work.remember(name="chosen")

    operation = await add(context, alice)
    await run(
        context,
        only(Step("one", "One", decide), step("two", lambda work: seen.append(work.data["name"]))),
    )
    assert seen == ["chosen"]
    assert (await end(context, operation)).state is OperationState.DONE


async def test_who_watches_is_woken_by_every_step(context: Context, alice: Actor) -> None:
    operation = await add(context, alice)
    gate = asyncio.Event()

    async def wait_for_gate(_work: Work) -> None:
        await gate.wait()

    steps = only(step("one", lambda _: None), Step("two", "Second", wait_for_gate))
    working = asyncio.create_task(run(context, steps))
    seen = operations.version(operation)
    while (
        operation := await operations.wait(context, alice, operation.id, timeout=10, seen=seen)
    ).step != "two":
        seen = operations.version(operation)
    assert operation.message == "Second"
    assert operation.progress == 0.5
    gate.set()
    assert (await operations.wait(context, alice, operation.id, timeout=10)).state == "done"
    await working


async def test_a_retry_comes_back_to_the_same_step(context: Context, alice: Actor) -> None:
    attempts: list[int] = []

    def not_yet(work: Work) -> None:
        attempts.append(work.operation.attempts)
        if len(attempts) < 3:
            raise Retry(0.01, "Not yet")

    operation = await add(context, alice)
    await run(context, only(step("wait", not_yet)))
    assert (await end(context, operation)).state is OperationState.DONE
    assert attempts == [0, 0, 0], "being told to wait is not an error"


async def test_an_unforeseen_error_again_and_again_leaves_it_stuck_until_it_is_retried(
    context: Context, alice: Actor, ada: Actor
) -> None:
    context = with_settings(context, operation_attempts=2)
    broken = True

    def act(_work: Work) -> None:
        if broken:
            raise ZeroDivisionError("secret detail")

    operation = await add(context, alice)
    await run(context, only(step("one", act)))
    stuck = await operations.show(context, alice, operation.id)
    assert stuck.state is OperationState.STUCK
    assert stuck.error is not None
    assert stuck.error["code"] == "internal_error"
    assert "secret detail" not in str(stuck.error)

    with pytest.raises(BusyError):
        await add(context, alice)
    with pytest.raises(ForbiddenError):
        await operations.retry(context, alice, operation.id)
    broken = False
    await operations.retry(context, ada, operation.id)
    await run(context, only(step("one", act)))
    assert (await end(context, operation)).state is OperationState.DONE


async def test_an_engine_that_is_silent_is_waited_for_without_counting(
    context: Context, alice: Actor
) -> None:
    context = with_settings(context, operation_attempts=1)
    engine = await engine_of(context)
    engine.faults.die()
    _, operation = await instances.create(context, alice, instances.Wish("box"))
    working = asyncio.create_task(run(context))
    seen = operations.version(operation)
    while True:
        waiting = await operations.wait(context, alice, operation.id, timeout=0.2, seen=seen)
        if waiting.message == "Waiting for the node to answer":
            break
        seen = operations.version(waiting)
    engine.faults.revive()
    await working
    assert (await end(context, operation)).state is OperationState.DONE
    await assert_whole(context)


async def test_a_busy_engine_is_tried_again(context: Context, alice: Actor) -> None:
    engine = await engine_of(context)
    engine.faults.fail("create", error=EngineConflictError, times=2)
    _, operation = await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    assert (await end(context, operation)).state is OperationState.DONE


async def test_a_refusal_of_the_engine_is_told_to_the_person(
    context: Context, alice: Actor
) -> None:
    engine = await engine_of(context)
    engine.faults.fail("create", message="No space left in the pool.")
    instance, operation = await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    assert (await end(context, operation)).state is OperationState.FAILED
    shown = await instances.show(context, alice, instance.id)
    assert shown.state is InstanceState.FAILED
    assert shown.error == "No space left in the pool."
    await assert_whole(context)
    await instances.delete(context, alice, "box")
    await run(context)
    with pytest.raises(NotFoundError):
        await instances.show(context, alice, "box")


@pytest.mark.parametrize("method", ["create", "exec", "wait_for_banner"])
async def test_deleting_during_creation_cancels_it_and_frees_the_name(
    context: Context, alice: Actor, method: str
) -> None:
    engine = await engine_of(context)
    engine.faults.hang(method)
    instance, created = await instances.create(context, alice, instances.Wish("box"))
    working = asyncio.create_task(run(context))
    answer = await instances.delete(context, alice, "box")
    assert answer.id == created.id
    engine.faults.release(method)
    await working
    assert (await end(context, created)).state is OperationState.CANCELLED
    with pytest.raises(NotFoundError):
        await instances.show(context, alice, instance.id)
    await assert_whole(context)
    await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    await assert_whole(context)


async def test_two_servers_never_do_the_same_operation(context: Context, alice: Actor) -> None:
    done: list[str] = []
    steps = only(step("one", lambda work: done.append(work.operation.id)))
    begun = [await add(context, alice, f"thing:{number}") for number in range(30)]
    await asyncio.gather(*(run(context, steps) for _ in range(3)))
    assert sorted(done) == sorted(operation.id for operation in begun)


async def test_a_server_that_lost_its_lease_stops_and_writes_nothing(
    context: Context, alice: Actor, clock: Clock
) -> None:
    """It was only asleep: meanwhile another one took over, and finished."""
    operation = await add(context, alice)
    asleep, wake = asyncio.Event(), asyncio.Event()
    later: list[str] = []

    async def sleepy(_work: Work) -> None:
        asleep.set()
        await wake.wait()

    slow = only(Step("one", "One", sleepy), step("two", lambda _: later.append("sleeper")))
    sleeper = Runner(context, slow)
    working = asyncio.create_task(sleeper.run())
    await asleep.wait()
    clock.forward(seconds=context.settings.operation_lease_seconds + 1)
    fast = only(step("one", lambda _: None), step("two", lambda _: later.append("other")))
    await run(context, fast)
    wake.set()
    await asyncio.gather(*sleeper.tasks)
    working.cancel()
    assert later == ["other"]
    assert (await end(context, operation)).state is OperationState.DONE


@pytest.mark.parametrize("jump", [{"days": 400}, {"days": -400}, {"hours": 1}, {"hours": -1}])
async def test_a_clock_that_jumps_neither_stops_nor_doubles_work(
    context: Context, alice: Actor, clock: Clock, jump: dict[str, float]
) -> None:
    done: list[str] = []

    async def act(work: Work) -> None:
        done.append(work.operation.id)
        clock.forward(**jump)
        # The runner looks for work again while this step, under an odd lease, is still going on.
        context.hints.work.set()
        await asyncio.sleep(0.05)

    first, second = await add(context, alice), await add(context, alice, "thing:2")
    await run(with_settings(context, operations_at_once=4), only(Step("one", "One", act)))
    assert sorted(done) == sorted([first.id, second.id])
    for operation in (first, second):
        assert (await end(context, operation)).state is OperationState.DONE


async def test_work_of_a_dead_server_is_found_though_the_clock_was_set_back(
    context: Context, alice: Actor, clock: Clock
) -> None:
    operation = await add(context, alice)
    lease = timedelta(seconds=context.settings.operation_lease_seconds)
    async with context.db.write() as session:
        assert await operation_rows.claim(session, context.now(), lease) is not None
    clock.back(hours=5)
    await run(context, only(step("one", lambda _: None)))
    assert (await end(context, operation)).state is OperationState.DONE


async def test_draining_lets_the_step_finish_and_leaves_the_rest_to_the_next_server(
    context: Context, alice: Actor
) -> None:
    operation = await add(context, alice)
    begun, go_on = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def first(_work: Work) -> None:
        begun.set()
        await go_on.wait()
        done.append("first")

    steps = only(Step("one", "One", first), step("two", lambda _: done.append("second")))
    runner = Runner(context, steps)
    working = asyncio.create_task(runner.run())
    await begun.wait()
    draining = asyncio.create_task(runner.drain(5.0))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    await working
    assert done == ["first"]
    left = await operations.show(context, alice, operation.id)
    assert (left.state, left.step, left.lease_token) == (OperationState.PENDING, "two", None)
    # No lease is left to run out: the next server goes on at once.
    await run(context, steps)
    assert done == ["first", "second"]


async def test_every_ending_leaves_an_event_with_the_request_that_began_it(
    context: Context, alice: Actor, ada: Actor
) -> None:
    await with_instance(context, alice)
    recorded = await events.list_all(context, ada, action="instance.create")
    assert [(event.result, event.actor_name) for event in recorded] == [
        ("ok", "alice"),
        ("requested", "alice"),
    ]
    assert {event.request_id for event in recorded} == {alice.request_id}
    assert {event.target_name for event in recorded} == {"box"}


async def test_a_kind_that_this_version_does_not_know_is_left_for_an_administrator(
    context: Context, alice: Actor
) -> None:
    operation = await add(context, alice)
    await run(context, {})
    assert (await operations.show(context, alice, operation.id)).state is OperationState.STUCK


async def test_a_stuck_operation_does_not_keep_its_owner_from_deleting(
    context: Context, alice: Actor
) -> None:
    context = with_settings(context, operation_attempts=1)
    await with_instance(context, alice)
    await instances.restart(context, alice, "box")

    def act(_work: Work) -> None:
        raise ZeroDivisionError

    broken = replace(PROCEDURES[Kind.INSTANCE_RESTART], steps=(step("stop", act),))
    await run(context, {**PROCEDURES, Kind.INSTANCE_RESTART.value: broken})
    await instances.delete(context, alice, "box")
    await run(context)
    await assert_whole(context)
    assert await instances.list_all(context, alice) == []


async def test_operations_of_others_are_not_to_be_seen(
    context: Context, alice: Actor, bob: Actor, ada: Actor
) -> None:
    operation = await add(context, alice)
    with pytest.raises(NotFoundError):
        await operations.show(context, bob, operation.id)
    assert await operations.list_all(context, bob) == []
    assert (await operations.show(context, ada, operation.id)).id == operation.id
    assert (await operations.show(context, SYSTEM, operation.id)).id == operation.id
    async with context.db.read() as session:
        assert await operation_rows.live_targets(session) == {"thing:1"}


async def test_a_machine_whose_container_was_deleted_by_hand_comes_back_by_a_rebuild(
    context: Context, alice: Actor
) -> None:
    instance = await with_instance(context, alice)
    engine = await engine_of(context)
    (lost,) = await engine.containers()
    await engine.delete(lost.name)
    operation = await instances.rebuild(context, alice, "box")
    await run(context)
    assert (await end(context, operation)).state is OperationState.DONE
    await assert_whole(context)
    assert (await instances.show(context, alice, "box")).ssh_port == instance.ssh_port


@pytest.mark.parametrize("method", ["create", "exec", "wait_for_banner"])
async def test_deleting_while_a_step_of_the_creation_is_going_on_cancels_it(
    context: Context, alice: Actor, method: str
) -> None:
    """Also in the very last step: what has just been made is unmade."""
    engine = await engine_of(context)
    engine.faults.hang(method)
    step = {"create": "", "exec": "provision", "wait_for_banner": "answer"}[method]
    _, created = await instances.create(context, alice, instances.Wish("box"))
    working = asyncio.create_task(run(context))
    seen = "other than what follows"
    while True:
        now = await operations.wait(context, alice, created.id, timeout=10, seen=seen)
        if now.step == step and now.state is OperationState.RUNNING:
            break
        seen = operations.version(now)
    await instances.delete(context, alice, "box")
    engine.faults.release(method)
    await working
    assert (await end(context, created)).state is OperationState.CANCELLED
    assert await instances.list_all(context, alice) == []
    await assert_whole(context)


async def test_a_machine_of_the_pool_that_became_somebodys_is_neither_given_away_nor_deleted(
    context: Context, alice: Actor, bob: Actor
) -> None:
    """The database was put back to a time at which alice's machine still lay in the pool."""
    await pooled(context)
    await run(context)
    engine = await engine_of(context)
    (hers,) = await engine.containers()
    await engine.set_labels(hers.name, {"instance": "alices"})
    _, operation = await instances.create(context, bob, instances.Wish("box"))
    assert operation.params["pooled"]
    await run(context)
    assert (await end(context, operation)).state is OperationState.FAILED
    assert [each.name for each in await engine.containers()] == [hers.name]
    await instances.delete(context, bob, "box")
    await run(context)
    assert [each.name for each in await engine.containers()] == [hers.name]


async def test_a_machine_of_the_pool_that_was_stopped_is_started_for_its_person(
    context: Context, alice: Actor
) -> None:
    await pooled(context)
    await run(context)
    engine = await engine_of(context)
    (waiting,) = await engine.containers()
    await engine.stop(waiting.name)
    _, operation = await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    assert (await end(context, operation)).state is OperationState.DONE
    await assert_whole(context)


async def test_what_has_a_small_disk_is_not_taken_from_the_pool(
    context: Context, alice: Actor
) -> None:
    """A disk can always be made larger; smaller only when it is known what is on it."""
    await pooled(context)
    await run(context)
    wish = instances.Wish("box", disk=POOL_DISK - 1)
    _, operation = await instances.create(context, alice, wish)
    assert not operation.params["pooled"]


async def test_restoring_keeps_the_limits_of_today(context: Context, alice: Actor) -> None:
    await with_instance(context, alice)
    await snapshots.create(context, alice, "box", "one")
    await run(context)
    await instances.configure(context, alice, "box", memory=2 * GiB)
    await run(context)
    await snapshots.restore(context, alice, "box", "one")
    await run(context)
    await assert_whole(context)
    assert (await instances.show(context, alice, "box")).limits.memory == 2 * GiB


async def test_limits_of_what_was_never_made_cannot_be_changed(
    context: Context, alice: Actor
) -> None:
    engine = await engine_of(context)
    engine.faults.fail("create")
    await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    with pytest.raises(WrongStateError):
        await instances.configure(context, alice, "box", memory=2 * GiB)


async def test_who_is_shut_out_loses_their_keys_inside_until_they_are_let_in_again(
    context: Context, alice: Actor, ada: Actor
) -> None:
    await keys.add(context, alice, new_key())
    await with_instance(context, alice)
    engine = await engine_of(context)
    (container,) = await engine.containers()

    async def inside() -> bytes:
        path = "/home/alice/.ssh/authorized_keys.hutch"
        return await engine.read_file(container.name, path) or b""

    assert b"ssh-ed25519" in await inside()
    await users.disable(context, ada, "alice")
    await run(context)
    assert b"ssh-ed25519" not in await inside()
    await users.enable(context, ada, "alice")
    await run(context)
    assert b"ssh-ed25519" in await inside()


async def test_one_person_never_holds_all_places(
    context: Context, alice: Actor, bob: Actor
) -> None:
    context = with_settings(context, operations_at_once=4)
    gate, done = asyncio.Event(), asyncio.Event()

    async def act(work: Work) -> None:
        if work.operation.created_by == "bob":
            done.set()
        await gate.wait()

    for number in range(6):
        await add(context, alice, f"thing:{number}")
    working = asyncio.create_task(run(context, only(Step("one", "One", act))))
    await add(context, bob, "thing:bobs")
    context.hints.work.set()
    async with asyncio.timeout(10):
        await done.wait()
    gate.set()
    await working


@pytest.mark.parametrize(
    ("error", "may_undo", "attempt", "verdict"),
    [
        (EngineError("no"), True, 1, Verdict.UNDO),
        (EngineConflictError("busy"), True, 1, Verdict.AGAIN),
        (EngineConflictError("busy"), True, 10, Verdict.UNDO),
        (EngineError("no"), False, 1, Verdict.AGAIN),
        (EngineError("no"), False, 59, Verdict.AGAIN),
        (EngineError("no"), False, 60, Verdict.STICK),
        (ZeroDivisionError(), True, 4, Verdict.AGAIN),
        (ZeroDivisionError(), True, 5, Verdict.STICK),
        (ZeroDivisionError(), False, 5, Verdict.STICK),
    ],
)
def test_what_an_error_means(
    error: Exception, may_undo: bool, attempt: int, verdict: Verdict
) -> None:
    assert judge(error, may_undo, attempt, most=5) is verdict
