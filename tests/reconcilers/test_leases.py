"""Devices are as leases say, leases are as instances are, and nothing stays half done."""

from datetime import timedelta

import pytest

from hutch.domain.instances import Drift, Instance
from hutch.domain.leases import EndReason, Lease, LeaseState, Notice
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import Actor
from hutch.engine.base import Device, DeviceKind
from hutch.engine.plans import plan_all
from hutch.operations.provision import put_person
from hutch.reconcilers.drift import STOPPED_OUTSIDE
from hutch.reconcilers.leases import Leases
from hutch.reconcilers.loans import STOPPED, Loans
from hutch.services import announcements, leases
from hutch.store import accelerators as accelerator_rows
from hutch.store import leases as lease_rows
from hutch.store import notices as notice_rows
from tests.accelerators import process, reading
from tests.agents_fake import FakeAgent, Manner, answering
from tests.operations.scenarios import CARDS, held_by, inside, run
from tests.reconcilers.conftest import World, read_only


class Lending(World):
    """A world in which alice's box has an active lease of two accelerators."""

    box: Instance
    lease_id: str
    agent: FakeAgent

    async def lend(self, owner: Actor) -> None:
        self.owner = owner
        self.box = await self.machine(owner, "box")
        await put_person(
            self.engine, await self.container(self.box), user=owner.name, host_name="box",
            host_secret=b"secret", host_key="ssh-ed25519 AAAA", keys=[],
        )  # fmt: skip
        self.agent = FakeAgent(self.context, await self.node())
        await self.agent.sign_in(*CARDS)
        taken = await leases.take(self.context, owner, count=2)
        self.lease_id = taken.id
        await run(self.context)
        assert (await self.lease()).state is LeaseState.ACTIVE
        self.reconciler = Leases(self.context, self.monotonic)

    async def lease(self) -> Lease:
        async with self.context.db.read() as session:
            found = await lease_rows.get_lease(session, self.lease_id)
        assert found is not None
        return found

    async def change_lease(self, **values: object) -> None:
        async with self.context.db.write() as session:
            await lease_rows.update_lease(session, self.lease_id, **values)

    async def devices(self) -> tuple[Device, ...]:
        seen = await self.engine.get(await self.container(self.box))
        assert seen is not None
        return seen.devices

    async def wanted(self) -> tuple[Device, ...]:
        return plan_all(await held_by(self.context, await self.lease()))

    async def reconcile(self) -> float | None:
        """One pass, and whatever it began carried out."""
        again = await self.reconciler.reconcile()
        await run(self.context)
        return again

    async def notices(self) -> list[Notice]:
        async with self.context.db.read() as session:
            return await notice_rows.list_notices(session, user_id=self.owner.user_id, limit=9)

    async def mended(self) -> list[str]:
        return [each.detail["how"] for each in await self.events("lease.mended")]


@pytest.fixture
async def lending(world: World, alice: Actor) -> Lending:
    made = Lending(world.context, world.lab, world.clock)
    await made.lend(alice)
    return made


async def test_where_all_is_well_nothing_is_written(lending: Lending) -> None:
    before = await lending.engine.get(await lending.container(lending.box))
    await lending.reconcile()
    await lending.reconcile()
    assert await lending.engine.get(await lending.container(lending.box)) == before
    assert await lending.mended() == []
    assert len(await lending.operations(Kind.LEASE_ATTACH, Kind.LEASE_DETACH)) == 1
    loans = Loans(read_only(lending.context), lending.monotonic)
    assert await loans.compare([await lending.lease()], set()) is None


async def test_a_lost_device_comes_back(lending: Lending) -> None:
    wanted = await lending.wanted()
    await lending.engine.detach(await lending.container(lending.box), [wanted[0].name])
    await lending.reconcile()
    assert await lending.devices() == wanted
    assert await lending.mended() == ["attached"]
    assert (await lending.lease()).state is LeaseState.ACTIVE


async def test_one_that_cannot_come_back_is_tried_less_and_less_often(lending: Lending) -> None:
    wanted = await lending.wanted()
    container = await lending.container(lending.box)
    await lending.engine.detach(container, [wanted[0].name])
    lost = "The card has fallen off the bus."
    lending.engine.faults.fail("attach", times=9, message=lost)
    for _ in range(3):
        await lending.reconcile()
    assert await lending.mended() == ["attached"]
    lease = await lending.lease()
    assert (lease.state, lease.error) == (LeaseState.ACTIVE, lost)
    lending.wait(16)
    await lending.agent.sign_in(*CARDS)
    lending.engine.faults.clear()
    await lending.reconcile()
    assert await lending.devices() == wanted
    assert (await lending.lease()).error is None


async def test_a_device_without_a_lease_is_taken_back_like_any_other(lending: Lending) -> None:
    path = await inside(lending.context, await lending.lease())
    container = await lending.container(lending.box)
    stale = await lending.devices()
    await leases.release(lending.context, lending.owner, lease=lending.lease_id)
    await run(lending.context)
    await lending.engine.attach(container, stale)
    lending.agent.open(container, path, "python3", Manner.STUBBORN)
    await lending.reconcile()
    assert await lending.devices() == ()
    assert lending.agent.users(path) == []
    assert await lending.mended() == ["detached"]


async def test_who_uses_it_after_the_lease_is_named_asked_and_ended(lending: Lending) -> None:
    lease, container = await lending.lease(), await lending.container(lending.box)
    path, used = await inside(lending.context, lease), lease.accelerators[0]

    async def agent_tells(*names: str) -> None:
        async with lending.context.db.write() as session:
            told = reading(processes=tuple(process(name) for name in names))
            await accelerator_rows.set_readings(session, {used: told}, lending.context.now())

    # A program that has its lease is nobody's business.
    await agent_tells(container)
    await lending.reconcile()
    assert await lending.mended() == []

    await leases.release(lending.context, lending.owner, lease=lending.lease_id)
    await run(lending.context)
    lending.agent.open(container, path, "python3", Manner.STUBBORN)
    # What the agent tells may be older than the end.
    await lending.reconcile()
    assert lending.agent.users(path) == ["python3"]
    lending.wait(20)
    await lending.agent.sign_in(*CARDS)
    await lending.reconcile()
    assert lending.agent.users(path) == []
    assert await lending.mended() == ["ended"]

    # An agent that goes on telling what is not so makes it no busier.
    await lending.reconcile()
    await agent_tells(container, "hutch-of-another-lab")
    await lending.reconcile()
    assert await lending.mended() == ["ended"]


async def test_one_that_nobody_ever_had_is_taken_away(lending: Lending) -> None:
    strange = Device("gpu-strange", DeviceKind.CHAR, source="/dev/hutch-gpu/3", path="/dev/x")
    await lending.engine.attach(await lending.container(lending.box), [strange])
    pooled = await lending.pooled()
    await lending.engine.attach(pooled.engine_name, [strange])
    await lending.reconcile()
    assert await lending.devices() == await lending.wanted()
    seen = await lending.engine.get(pooled.engine_name)
    assert seen is not None
    assert seen.devices == ()
    assert await lending.mended() == ["detached", "detached"]


async def test_an_instance_that_something_works_on_is_left_alone(lending: Lending) -> None:
    wanted = await lending.wanted()
    await lending.engine.detach(await lending.container(lending.box), [wanted[0].name])
    operation = await lending.begin(
        Kind.INSTANCE_RESTART, f"instance:{lending.box.id}", instance=lending.box.id
    )
    await lending.reconciler.reconcile()
    assert await lending.mended() == []
    await lending.end(operation)
    await lending.reconcile()
    assert await lending.devices() == wanted


async def test_who_was_stopped_by_hand_loses_them_after_a_while(lending: Lending) -> None:
    await lending.engine.stop(await lending.container(lending.box))
    drift = Drift(STOPPED_OUTSIDE, "by hand", lending.context.now())
    kept = {"code": drift.code, "message": drift.message, "since": drift.since.isoformat()}
    await lending.change(lending.box, state="stopped", drift=kept)
    again = await lending.reconcile()
    assert again is not None
    assert again <= STOPPED.total_seconds()
    assert (await lending.lease()).state is LeaseState.ACTIVE, "the node may be going down"

    lending.clock.forward(seconds=STOPPED.total_seconds() + 1)
    await lending.reconcile()
    lease = await lending.lease()
    assert (lease.state, lease.end_reason) == (LeaseState.ENDED, EndReason.STOPPED)
    assert await lending.devices() == ()


async def test_a_node_that_is_coming_back_is_given_the_time(lending: Lending) -> None:
    lending.engine.reboot(restore=False)
    await lending.change(lending.box, state="stopped")
    await lending.reconcile()
    assert (await lending.lease()).state is LeaseState.ACTIVE


async def test_a_machine_that_would_not_start_again_loses_them_at_once(lending: Lending) -> None:
    await lending.engine.stop(await lending.container(lending.box))
    await lending.change(lending.box, state="stopped", error="It would not start.")
    await lending.reconcile()
    assert (await lending.lease()).end_reason is EndReason.STOPPED


async def test_what_waits_for_a_machine_that_is_stopped_leaves_the_queue(
    lending: Lending, bob: Actor
) -> None:
    instance = await lending.machine(bob, "bobs")
    waiting = await leases.take(lending.context, bob, count=3)
    await lending.engine.stop(await lending.container(instance))
    await lending.change(instance, state="stopped")
    await lending.reconcile()
    ended = await leases.show(lending.context, bob, waiting.id)
    assert (ended.state, ended.end_reason) == (LeaseState.ENDED, EndReason.STOPPED)
    assert (await lending.lease()).state is LeaseState.ACTIVE


@pytest.mark.parametrize("state", ["attaching", "detaching"])
async def test_what_nobody_works_on_any_more_goes_on(lending: Lending, state: str) -> None:
    await lending.change_lease(state=state)
    await lending.reconcile()
    after = LeaseState.ACTIVE if state == "attaching" else LeaseState.ENDED
    assert (await lending.lease()).state is after


async def test_what_is_due_later_is_looked_at_then(lending: Lending) -> None:
    lending.clock.stop()
    await lending.agent.sign_in(*CARDS)
    warning = lending.clock() + timedelta(minutes=5)
    minutes = lending.context.settings.lease_warning_minutes
    await lending.change_lease(expires_at=warning + timedelta(minutes=minutes))
    assert await lending.reconcile() == 300.0


class TestAnnouncements:
    @pytest.fixture
    async def warned(self, lending: Lending) -> Lending:
        lending.clock.stop()
        await lending.change(lending.box, state="stopped")
        due = lending.clock() + timedelta(minutes=10)
        async with lending.context.db.write() as session:
            await announcements.warn(
                session, lending.context, await lending.lease(), EndReason.IDLE, due
            )
        await run(lending.context)
        await lending.change(lending.box, state="running")
        return lending

    async def test_one_that_did_not_arrive_is_brought_again(self, warned: Lending) -> None:
        lease = await warned.lease()
        assert lease.announcement is not None
        warned.clock.forward(minutes=3)
        await warned.reconcile()
        async with warned.context.db.read() as session:
            notice = await notice_rows.get_notice(session, lease.announcement.notice_id)
        assert notice is not None
        assert notice.delivered_at == warned.clock()
        told = (await warned.lease()).announcement
        assert told is not None
        assert told.due == lease.announcement.due + timedelta(minutes=3), "the whole time is left"

    async def test_and_again_less_and_less_often(self, warned: Lending) -> None:
        await warned.change(warned.box, owner_id=warned.lab.actors["bob"].user_id)
        for _ in range(3):
            await warned.reconcile()
        tried = await warned.operations(Kind.NOTICE_DELIVER)
        assert {each.state for each in tried} == {OperationState.FAILED, OperationState.DONE}
        warned.wait(16)
        await warned.reconcile()
        assert len(await warned.operations(Kind.NOTICE_DELIVER)) == 3


async def test_hands_out_what_has_become_free_without_a_hint(lending: Lending, bob: Actor) -> None:
    await lending.machine(bob, "bobs")
    waiting = await leases.take(lending.context, bob, count=4)
    async with lending.context.db.write() as session:
        await session.exec_driver_sql("UPDATE holdings SET until = since")
        await session.exec_driver_sql(
            f"UPDATE leases SET state = 'ended' WHERE id = '{lending.lease_id}'"
        )
    async with answering(lending.context):
        await lending.reconcile()
    assert (await leases.show(lending.context, bob, waiting.id)).state is LeaseState.ACTIVE
