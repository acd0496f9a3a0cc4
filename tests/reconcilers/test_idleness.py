"""Nobody computes: told, then taken back; and when it must not be."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hutch.domain.groups import IdlePolicy
from hutch.domain.idleness import Kind, Verdict
from hutch.domain.leases import Announcement, EndReason, Lease, LeaseState
from hutch.domain.people import Actor
from hutch.reconcilers.idleness import Act, Idleness, decide
from hutch.services import leases
from hutch.store import accelerators
from hutch.store import groups as group_rows
from hutch.store import nodes as node_rows
from hutch.store.accelerators import Sample
from tests.lab import Clock
from tests.leases import add_group
from tests.operations.scenarios import CARDS, run
from tests.reconcilers.conftest import World
from tests.reconcilers.test_leases import Lending

MINUTE = timedelta(minutes=1)


class Watched(Lending):
    """A lease of two accelerators whose use the test decides, minute by minute."""

    async def lend(self, owner: Actor) -> None:
        self.clock.stop()
        await super().lend(owner)
        self.idleness = Idleness(self.context)

    async def minutes(self, count: int, busy: float = 0.0, **values: Any) -> None:
        """So much time goes by; the first of the accelerators is as busy as that."""
        first, second = (await self.lease()).accelerators
        for _ in range(count):
            self.clock.forward(minutes=1)
            async with self.context.db.write() as session:
                await accelerators.add_samples(
                    session,
                    [self.sample(first, busy, **values), self.sample(second, 0.0, **values)],
                )
        await self.agent.sign_in(*CARDS)

    def sample(self, accelerator_id: str, busy: float, memory: int = 0) -> Sample:
        return Sample(
            accelerator_id, self.clock(), 60.0, busy, busy, memory, 40.0, 60.0, processes=[]
        )

    async def look(self) -> float | None:
        """One look, and whatever it began carried out."""
        again = await self.idleness.reconcile()
        await run(self.context)
        return again

    async def told(self) -> Announcement | None:
        return (await self.lease()).announcement

    async def verdict(self) -> str:
        return ((await self.lease()).evidence or {})["idleness"]["verdict"]


@pytest.fixture
async def watched(world: World, alice: Actor) -> Watched:
    made = Watched(world.context, world.lab, world.clock)
    await made.lend(alice)
    return made


async def test_who_computes_on_one_of_them_keeps_all(watched: Watched) -> None:
    await watched.minutes(90, busy=0.5)
    assert await watched.look() is None
    assert await watched.told() is None
    assert await watched.verdict() == "busy"


async def test_who_computes_on_none_is_told_and_loses_them(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.look()
    told = await watched.told()
    assert told is not None
    assert (told.reason, told.due) == (EndReason.IDLE, watched.clock() + 15 * MINUTE)
    assert (await watched.notices())[0].delivered_at == watched.clock()

    await watched.minutes(14)
    assert await watched.look() == 60.0
    assert (await watched.lease()).state is LeaseState.ACTIVE
    await watched.minutes(1)
    await watched.look()
    lease = await watched.lease()
    assert (lease.state, lease.end_reason) == (LeaseState.ENDED, EndReason.IDLE)
    assert lease.evidence is not None
    assert set(lease.evidence["idleness"]["accelerators"]) == set(lease.accelerators)


async def test_memory_that_is_held_is_told_apart(watched: Watched) -> None:
    await watched.minutes(61, memory=2**33)
    await watched.look()
    assert await watched.verdict() == "holding"
    assert await watched.told() is not None


async def test_computing_again_withdraws_it(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.look()
    await watched.minutes(5, busy=0.9)
    await watched.look()
    assert await watched.told() is None
    await watched.minutes(30)
    await watched.look()
    assert (await watched.lease()).state is LeaseState.ACTIVE


async def test_an_extension_withdraws_it_and_a_new_window_begins(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.look()
    await leases.extend(watched.context, watched.owner, lease=watched.lease_id, minutes=60)
    assert await watched.told() is None
    await watched.minutes(59)
    await watched.look()
    assert await watched.told() is None
    await watched.minutes(2)
    await watched.look()
    assert await watched.told() is not None


async def test_without_observations_nobody_is_accused(watched: Watched) -> None:
    await watched.minutes(30)
    watched.clock.forward(minutes=10)
    await watched.minutes(40)
    await watched.look()
    assert await watched.verdict() == "unknown"
    assert await watched.told() is None


async def test_nor_loses_what_was_announced_while_the_agent_is_silent(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.look()
    watched.clock.forward(minutes=30)
    await watched.look()
    assert (await watched.lease()).state is LeaseState.ACTIVE
    assert await watched.told() is not None


async def test_who_could_not_be_told_keeps_them(watched: Watched) -> None:
    watched.engine.faults.fail("exec", times=99)
    await watched.minutes(61)
    await watched.look()
    await watched.minutes(60)
    await watched.look()
    assert (await watched.lease()).state is LeaseState.ACTIVE

    watched.engine.faults.clear()
    watched.wait(16)
    await watched.reconcile()
    told = await watched.told()
    assert told is not None
    assert told.due == watched.clock() + 15 * MINUTE, "the whole warning, from when it arrived"


async def test_a_group_or_a_node_may_have_another_policy(watched: Watched) -> None:
    eager = IdlePolicy(10 * MINUTE, 0.05, MINUTE)
    async with watched.context.db.write() as session:
        await node_rows.update_node(session, watched.lab.node.id, idle=eager.as_dict())
    await watched.minutes(11)
    await watched.look()
    assert await watched.told() is not None

    never = replace(eager, window=timedelta(0))
    async with watched.context.db.write() as session:
        group = await add_group(session, "patient", watched.owner, idle=never)
        await group_rows.update_group(session, group.id, idle=never.as_dict())
    await watched.change_lease(group_id=group.id)
    await watched.look()
    assert await watched.told() is None


async def test_one_that_ends_sooner_is_not_told_of_it(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.change_lease(expires_at=watched.clock() + 5 * MINUTE)
    await watched.look()
    told = await watched.told()
    assert told is None or told.reason is EndReason.EXPIRED


async def test_a_look_at_what_has_not_changed_writes_nothing(watched: Watched) -> None:
    await watched.minutes(61)
    await watched.look()
    before = await watched.lease()
    await watched.look()
    assert await watched.lease() == before


class TestDecision:
    @pytest.fixture
    async def lease(self, watched: Watched) -> Lease:
        return await watched.lease()

    @pytest.mark.parametrize(
        ("kind", "announced", "delivered", "act"),
        [
            (Kind.IDLE, None, False, Act.WARN),
            (Kind.HOLDING, None, False, Act.WARN),
            (Kind.BUSY, None, False, Act.NOTE),
            (Kind.UNKNOWN, None, False, Act.NOTE),
            (Kind.IDLE, EndReason.EXPIRED, True, Act.WARN),
            (Kind.IDLE, EndReason.PREEMPTED, True, Act.NOTE),
            (Kind.IDLE, EndReason.IDLE, True, Act.RECLAIM),
            (Kind.HOLDING, EndReason.IDLE, True, Act.RECLAIM),
            (Kind.IDLE, EndReason.IDLE, False, Act.NOTE),
            (Kind.UNKNOWN, EndReason.IDLE, True, Act.NOTE),
            (Kind.BUSY, EndReason.IDLE, True, Act.WITHDRAW),
            (Kind.BUSY, EndReason.PREEMPTED, True, Act.NOTE),
        ],
    )
    async def test_follows_from_the_verdict_and_what_was_announced(
        self,
        lease: Lease,
        clock: Clock,
        kind: Kind,
        announced: EndReason | None,
        delivered: bool,
        act: Act,
    ) -> None:
        now = clock()
        told = None if announced is None else Announcement(announced, now, now, "notice")
        policy = IdlePolicy(60 * MINUTE, 0.05, 15 * MINUTE)
        verdict = Verdict(kind, None, {})
        judged = replace(lease, announcement=told)
        assert decide(judged, verdict, policy, now, delivered=delivered) is act
