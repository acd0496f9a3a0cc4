"""Three promises that every operation keeps, whatever it does.

Each of its steps may be repeated; it may fail at each of them; the server may die after each of
them. It always ends, and then database and engine tell the same story.
"""

from collections.abc import Callable
from contextlib import suppress

import pytest

from hutch.domain.operations import OperationState
from hutch.domain.people import Actor
from hutch.errors import EngineError
from hutch.operations.base import Done, Failed, Step, Work
from hutch.services.context import Context
from tests.lab import Clock
from tests.operations.scenarios import (
    EVERY_STEP,
    SCENARIOS,
    CrashError,
    after,
    assert_whole,
    before,
    crash,
    end,
    run,
    with_step,
)

steps = pytest.mark.parametrize(("name", "step"), EVERY_STEP)


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Do it the first time, and never again."""
    left = [act]

    def do() -> None:
        if left:
            left.pop()()

    return do


def refuse() -> None:
    raise Failed(EngineError("Refused by the test."))


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_ends_well(name: str, context: Context, alice: Actor) -> None:
    operation = await SCENARIOS[name].begin(context, alice)
    await run(context)
    ended = await end(context, operation)
    assert ended.state is OperationState.DONE, ended.error
    assert ended.progress == 1.0
    await assert_whole(context)


@steps
async def test_a_step_may_be_repeated(name: str, step: str, context: Context, alice: Actor) -> None:
    scenario = SCENARIOS[name]
    operation = await scenario.begin(context, alice)

    def thrice(original: Step) -> Step:
        async def do(work: Work) -> None:
            for _ in range(2):
                with suppress(Done):
                    await original.do(work)
            await original.do(work)

        return Step(original.name, original.message, do, original.undo, original.pivot)

    await run(context, with_step(scenario, step, thrice))
    assert (await end(context, operation)).state is OperationState.DONE
    await assert_whole(context)


@pytest.mark.parametrize("when", [before, after])
@steps
async def test_it_may_fail_at_a_step(
    name: str,
    step: str,
    when: Callable[[Step, Callable[[], None]], Step],
    context: Context,
    alice: Actor,
) -> None:
    scenario = SCENARIOS[name]
    operation = await scenario.begin(context, alice)
    refusing = once(refuse)
    await run(context, with_step(scenario, step, lambda original: when(original, refusing)))
    ended = await end(context, operation)
    if scenario.procedure.is_past_pivot(scenario.procedure.index(step)):
        assert ended.state is OperationState.DONE, "past the pivot there is only forward"
    else:
        assert ended.state is OperationState.FAILED
        assert ended.error is not None
        assert ended.error["message"] == "Refused by the test."
    await assert_whole(context)


@pytest.mark.parametrize("when", [before, after])
@steps
async def test_the_server_may_die_at_a_step(
    name: str,
    step: str,
    when: Callable[[Step, Callable[[], None]], Step],
    context: Context,
    alice: Actor,
    clock: Clock,
) -> None:
    scenario = SCENARIOS[name]
    operation = await scenario.begin(context, alice)
    die = once(crash)
    with pytest.raises(CrashError):
        await run(context, with_step(scenario, step, lambda original: when(original, die)))
    clock.forward(seconds=context.settings.operation_lease_seconds + 1)
    await run(context)
    assert (await end(context, operation)).state is OperationState.DONE
    await assert_whole(context)


@pytest.mark.parametrize("when", [before, after])
@steps
async def test_the_server_may_die_while_it_undoes_a_step(
    name: str,
    step: str,
    when: Callable[[Step, Callable[[], None]], Step],
    context: Context,
    alice: Actor,
    clock: Clock,
) -> None:
    scenario = SCENARIOS[name]
    procedure = scenario.procedure
    if procedure.is_past_pivot(procedure.index(step)):
        return
    operation = await scenario.begin(context, alice)
    die = once(crash)

    def fail_then_die(original: Step) -> Step:
        async def undo(work: Work) -> None:
            if when is before:
                die()
            if original.undo is not None:
                await original.undo(work)
            die()

        failing = after(original, once(refuse))
        return Step(failing.name, failing.message, failing.do, undo, failing.pivot)

    with pytest.raises(CrashError):
        await run(context, with_step(scenario, step, fail_then_die))
    clock.forward(seconds=context.settings.operation_lease_seconds + 1)
    await run(context)
    assert (await end(context, operation)).state is OperationState.FAILED
    await assert_whole(context)
