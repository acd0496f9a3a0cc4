"""Readings become the latest reading, samples and busy seconds; nothing is counted twice."""

import pytest

from hutch.domain.accelerators import Health, Reading
from hutch.domain.people import Actor
from hutch.errors import DatabaseUnavailableError
from hutch.services import accelerators as services
from hutch.services.context import Context
from hutch.services.telemetry import Recorder
from hutch.store import accelerators, containers, events, nodes
from hutch.store.accelerators import Sample
from tests.accelerators import (
    GIB,
    broken,
    busy_seconds,
    card,
    hold,
    ids,
    process,
    reading,
    sign_in,
)
from tests.lab import Clock, Lab, with_settings
from tests.reconcilers.conftest import World

A, B = "0000:3b:00.0", "0000:5e:00.0"


async def recorder(context: Context, lab: Lab) -> Recorder:
    return Recorder(context, lab.node, await sign_in(context, lab, card(A), card(B)))


async def latest(context: Context) -> dict[str, Reading]:
    async with context.db.read() as session:
        return await accelerators.list_readings(session)


async def samples(context: Context, clock: Clock, address: str = A) -> list[Sample]:
    key = (await ids(context))[address]
    async with context.db.read() as session:
        return await accelerators.list_samples(session, [key], clock().replace(year=2000))


async def health(context: Context, address: str = A) -> tuple[Health, str]:
    async with context.db.read() as session:
        found = await accelerators.find_accelerators(session, address)
    return found[0].found.health, found[0].found.reason


async def test_the_latest_reading_is_kept_with_its_processes(context: Context, lab: Lab):
    made = await recorder(context, lab)
    told = reading(A, 0.5, memory_used=3 * GIB, processes=(process("hutch-1"), process(None, 7)))
    made.add([reading(A, 0.9)], 2)
    made.add([told], 2)
    assert await made.flush()
    assert await latest(context) == {(await ids(context))[A]: told}


async def test_a_sample_has_the_mean_and_the_peak_of_its_span(
    context: Context, lab: Lab, clock: Clock
):
    clock.stop()
    made = await recorder(with_settings(context, sample_seconds=10.0), lab)
    made.add([reading(A, 0.2, memory_used=GIB)], 6)
    await made.flush()
    assert await samples(context, clock) == []
    made.add([reading(A, 0.8, memory_used=0)], 4)
    await made.flush()
    [sample] = await samples(context, clock)
    assert sample.utilisation == pytest.approx(0.44)
    assert (sample.seconds, sample.peak, sample.memory_used) == (10, 0.8, GIB)
    made.add([reading(A, 0.1)], 10)
    clock.forward(seconds=10)
    await made.flush()
    assert [each.peak for each in await samples(context, clock)] == [0.8, 0.1]


async def test_what_does_not_tell_has_samples_that_say_so(context: Context, lab: Lab, clock: Clock):
    made = await recorder(with_settings(context, sample_seconds=1.0), lab)
    made.add([reading(A, None, memory_used=None, temperature=None, power=None)], 2)
    await made.flush()
    [sample] = await samples(context, clock)
    assert (sample.utilisation, sample.peak, sample.memory_used) == (None, None, None)


async def test_the_last_words_of_a_connection_are_a_shorter_sample(
    context: Context, lab: Lab, clock: Clock
):
    made = await recorder(context, lab)
    made.add([reading(A, 1.0)], 7)
    await made.flush(last=True)
    await made.flush(last=True)
    [sample] = await samples(context, clock)
    assert sample.seconds == 7


async def test_busy_seconds_go_to_who_holds_it_and_by_day(
    context: Context, lab: Lab, alice: Actor, clock: Clock
):
    clock.stop(clock.stop().replace(hour=23, minute=59, second=59))
    made = await recorder(context, lab)
    _, holding = await hold(context, lab, alice, (await ids(context))[A])
    made.add([reading(A, 0.5), reading(B, 1.0)], 2)
    made.add([reading(A, 0.04), reading(B, 1.0)], 2)
    await made.flush()
    await made.flush()
    clock.forward(seconds=2)
    made.add([reading(A, 0.05)], 2)
    await made.flush()
    assert await busy_seconds(context, holding) == {"2026-03-01": 2, "2026-03-02": 2}


async def test_of_those_who_share_one_only_who_computes_is_busy(
    context: Context, lab: Lab, clock: Clock, alice: Actor, bob: Actor, ada: Actor
):
    world = World(context, lab, clock)
    made = await recorder(context, lab)
    shared = await services.share(context, ada, A, 2)
    machines = [await world.machine(who, "box") for who in (alice, bob)]
    held = [
        (await hold(context, lab, who, shared.id, instance_id=machine.id, slot=slot))[1]
        for slot, (who, machine) in enumerate(zip((alice, bob), machines, strict=True))
    ]
    async with context.db.read() as session:
        row = await containers.current(session, machines[0].id)
    assert row is not None
    made.add([reading(A, 0.9, processes=(process(row.engine_name),))], 2)
    await made.flush()
    assert await busy_seconds(context, held[0])
    assert not await busy_seconds(context, held[1])
    # Nobody can tell whose it is.
    made.add([reading(A, 0.9)], 2)
    await made.flush()
    assert list((await busy_seconds(context, held[0])).values()) == [4]
    assert list((await busy_seconds(context, held[1])).values()) == [2]


async def test_an_agent_that_hung_did_not_compute_meanwhile(
    context: Context, lab: Lab, alice: Actor
):
    made = await recorder(context, lab)
    _, holding = await hold(context, lab, alice, (await ids(context))[A])
    made.add([reading(A, 1.0)], 80_000)
    await made.flush()
    assert list((await busy_seconds(context, holding)).values()) == [60]


async def test_one_that_breaks_is_told_of_once_and_so_is_its_recovery(context: Context, lab: Lab):
    made = await recorder(context, lab)
    context.hints.reconcile.clear()
    for _ in range(3):
        made.add([broken(A)], 2)
        await made.flush()
    assert await health(context) == (Health.FAILED, "It says so.")
    assert context.hints.reconcile.is_set()
    made.add([reading(A)], 2)
    await made.flush()
    assert await health(context) == (Health.OK, "")
    async with context.db.read() as session:
        told = await events.list_events(session, limit=10, action="accelerator.")
    assert [each.action for each in told][:2] == ["accelerator.recovered", "accelerator.failed"]
    assert len(told) == 4


async def test_a_missing_one_is_not_found_again_by_a_reading(context: Context, lab: Lab):
    # Another card may be at its address.
    made = await recorder(context, lab)
    made.add([broken(A, Health.MISSING)], 2)
    await made.flush()
    made.add([reading(A)], 2)
    await made.flush()
    assert (await health(context))[0] is Health.MISSING


async def test_a_connection_that_no_longer_counts_writes_nothing(context: Context, lab: Lab):
    made = await recorder(context, lab)
    await sign_in(context, lab, card(A))
    made.add([broken(A)], 2)
    assert not await made.flush()
    assert (await health(context))[0] is Health.OK


async def test_readings_of_what_is_not_known_are_left_out(context: Context, lab: Lab):
    made = await recorder(context, lab)
    made.add([reading("0000:ff:00.0", 1.0)], 2)
    assert await made.flush(last=True)
    assert await latest(context) == {}


async def test_what_could_not_be_written_is_written_later(
    context: Context, lab: Lab, alice: Actor, monkeypatch: pytest.MonkeyPatch
):
    made = await recorder(context, lab)
    _, holding = await hold(context, lab, alice, (await ids(context))[A])
    made.add([reading(A, 1.0)], 2)

    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(accelerators, "add_samples", fail)
        with pytest.raises(DatabaseUnavailableError):
            await made.flush()
    assert not await busy_seconds(context, holding)
    made.add([reading(A, 1.0)], 2)
    await made.flush()
    assert list((await busy_seconds(context, holding)).values()) == [4]


async def test_every_word_of_an_agent_is_a_sign_of_life(context: Context, lab: Lab, clock: Clock):
    clock.stop()
    made = await recorder(context, lab)
    clock.forward(seconds=10)
    made.add([], 2)
    await made.flush()
    async with context.db.read() as session:
        node = await nodes.get_node(session, lab.node.id)
    assert node is not None
    assert node.agent_seen_at == clock()
