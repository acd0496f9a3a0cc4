"""What people may ask of the accelerators, what is refused, and who may know what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hutch.domain.instances import InstanceState
from hutch.domain.leases import EndReason, Lease, LeaseState
from hutch.domain.operations import Operation
from hutch.domain.people import Actor, Scope
from hutch.errors import (
    ExtensionRefusedError,
    ForbiddenError,
    HutchError,
    InvalidDurationError,
    InvalidInputError,
    InvalidLimitError,
    NoSuchAcceleratorError,
    NotFoundError,
    QuotaExceededError,
    WrongStateError,
)
from hutch.services import events, instances, leases, users
from hutch.services.context import Context
from hutch.store import operations, tables
from hutch.store import users as stored_users
from tests.lab import Clock, Lab, with_settings
from tests.leases import MODEL, Hands, add_accelerators, add_group, add_machine
from tests.store import rows


async def _operation(context: Context, lease: Lease) -> Operation | None:
    async with context.db.read() as session:
        return await operations.live_operation(session, f"lease:{lease.id}")


async def _count(context: Context, table: str) -> int:
    async with context.db.read() as session:
        found = await session.exec_driver_sql(f"SELECT count(*) FROM {table}")
        return found.scalar_one()


async def _actions(context: Context, actor: Actor, lease: Lease) -> list[str]:
    """What the audit says was done to a lease, the first first."""
    found = await events.list_all(context, actor, target_id=lease.id)
    return [each.action.removeprefix("lease.") for each in reversed(found)]


# -- taking ----------------------------------------------------------------------------------------


async def test_free_accelerators_are_held_by_the_time_the_answer_is_there(
    context: Context, alice: Actor, ada: Actor, gpus: list[str]
) -> None:
    lease = await leases.take(context, alice, count=2)
    assert (lease.state, lease.instance_name) == (LeaseState.ATTACHING, "box")
    assert len(set(lease.accelerators) & set(gpus)) == 2
    assert lease.granted_at
    assert lease.expires_at == lease.granted_at + timedelta(minutes=480)
    attach = await _operation(context, lease)
    assert attach
    assert (attach.kind, attach.owner_id) == ("lease_attach", alice.user_id)
    assert attach.params == {"lease": lease.id, "instance": lease.instance_id, "label": "box"}
    assert await _actions(context, ada, lease) == ["take", "grant"]


async def test_who_comes_later_waits_and_is_told_for_whom(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    first = await leases.take(context, alice, count=3)
    await hands.attach(first)
    second = await leases.take(context, bob, count=2, minutes=30)
    assert second.state is LeaseState.QUEUED
    assert second.accelerators == ()
    assert second.explanation
    assert second.explanation["waiting"] == "devices"
    assert (second.explanation["position"], second.explanation["free"]) == (1, 1)
    assert second.explanation["held_by"] == [first.id]
    assert first.expires_at
    assert second.explanation["projected_start"] == first.expires_at.isoformat()


async def test_what_is_given_back_goes_to_the_next_once_nobody_has_it_open(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    first = await leases.take(context, alice, count=4)
    await hands.attach(first)
    second = await leases.take(context, bob, count=1)
    [going] = await leases.release(context, alice, lease=first.id)
    assert going.state is LeaseState.DETACHING
    assert (await hands.lease(second.id)).state is LeaseState.QUEUED
    await hands.detach(going)
    ended, granted = await hands.lease(first.id), await hands.lease(second.id)
    assert (ended.state, ended.end_reason) == (LeaseState.ENDED, EndReason.RELEASED)
    assert set(ended.accelerators) == set(gpus)
    assert granted.state is LeaseState.ATTACHING
    assert granted.explanation is None


async def test_a_model_is_found_by_a_part_of_its_name(
    context: Context, lab: Lab, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        [special] = await add_accelerators(session, lab.node, 1, context.now(), "Tesla V100")
    lease = await leases.take(context, alice, count=1, model=" v100 ")
    assert (lease.model, lease.accelerators) == ("v100", (special,))


async def test_an_accelerator_for_several_is_held_by_as_many_and_no_more(
    context: Context, lab: Lab, alice: Actor, bob: Actor
) -> None:
    async with context.db.write() as session:
        [shared] = await add_accelerators(session, lab.node, 1, context.now(), sharers=2)
        for person, name in ((alice, "one"), (alice, "two"), (bob, "three")):
            await add_machine(session, person, lab.node, name)
    held = [
        await leases.take(context, person, count=1, instance=name)
        for person, name in ((alice, "one"), (alice, "two"), (bob, "three"))
    ]
    assert [each.accelerators for each in held] == [(shared,), (shared,), ()]
    async with context.db.read() as session:
        slots = await session.exec_driver_sql("SELECT slot FROM holdings ORDER BY slot")
        assert list(slots.scalars()) == [0, 1]


async def test_an_administrator_takes_for_the_machine_of_somebody_else(
    context: Context, ada: Actor, alice: Actor, gpus: list[str]
) -> None:
    [box] = await instances.list_all(context, alice)
    lease = await leases.take(context, ada, count=1, instance=box.id)
    assert lease.owner_id == alice.user_id
    [event] = await events.list_all(context, ada, action="lease.take")
    assert (event.actor_name, event.owner_id) == ("ada", alice.user_id)


async def test_a_lease_is_counted_to_the_group_that_its_owner_is_in_when_they_ask(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        group = await add_group(session, "vision", alice)
    lease = await leases.take(context, alice, count=1)
    assert (lease.group_id, lease.group_name) == (group.id, "vision")


async def test_the_machine_need_not_be_named_when_only_one_runs(
    context: Context, lab: Lab, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        await add_machine(session, alice, lab.node, "asleep", InstanceState.STOPPED)
    assert (await leases.take(context, alice, count=1)).instance_name == "box"
    async with context.db.write() as session:
        await add_machine(session, alice, lab.node, "second")
    with pytest.raises(InvalidInputError, match="box, second") as caught:
        await leases.take(context, alice, count=1)
    assert caught.value.detail["instances"] == ["box", "second"]


async def test_who_has_no_running_machine_is_told_so(context: Context, ada: Actor) -> None:
    with pytest.raises(WrongStateError, match="no running machine"):
        await leases.take(context, ada, count=1)


# -- what is refused -------------------------------------------------------------------------------

_REFUSED: dict[str, tuple[dict[str, Any], type[HutchError], str]] = {
    "none": ({"count": 0}, InvalidLimitError, "cannot be 0"),
    "fewer than none": ({"count": -2}, InvalidLimitError, "cannot be -2"),
    "more than the node has": (
        {"count": 5}, NoSuchAcceleratorError, f"node1.*box.*has 4 × {MODEL}; 5 asked for",
    ),
    "more than any number": ({"count": 2**70}, NoSuchAcceleratorError, "asked for"),
    "an unknown model": (
        {"count": 1, "model": "H100"}, NoSuchAcceleratorError, f"has 4 × {MODEL}; 1 × H100 asked",
    ),
    "a model that is no name": ({"count": 1, "model": "x" * 129}, InvalidInputError, "too long"),
    "no time": ({"count": 1, "minutes": 0}, InvalidDurationError, "'0 minutes'"),
    "less than no time": ({"count": 1, "minutes": -5}, InvalidDurationError, "'-5 minutes'"),
    "too long a time": ({"count": 1, "minutes": 10_081}, InvalidDurationError, "'10081 minutes'"),
    "a machine that is stopped": (
        {"count": 1, "instance": "asleep"}, WrongStateError, "asleep is stopped",
    ),
    "a machine of somebody else": ({"count": 1, "instance": "bobs"}, NotFoundError, "'bobs'"),
    "a machine that is not there": ({"count": 1, "instance": "nothing"}, NotFoundError, "nothing"),
    "a machine on a node without accelerators": (
        {"count": 1, "instance": "far"}, NoSuchAcceleratorError, "node2.*has no accelerators",
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", sorted(_REFUSED))
async def test_what_cannot_be_had_is_refused_at_once_and_leaves_nothing_behind(
    context: Context, lab: Lab, alice: Actor, gpus: list[str], asked: str
) -> None:
    async with context.db.write() as session:
        other = await rows.add_node(session, "node2")
        await add_machine(session, alice, lab.node, "asleep", InstanceState.STOPPED)
        await add_machine(session, alice, other, "far")
    wish, error, says = _REFUSED[asked]
    with pytest.raises(error, match=says) as caught:
        await leases.take(context, alice, **{"instance": "box", **wish})
    assert caught.value.hint
    for table in ("leases", "holdings", "operations", "events"):
        assert await _count(context, table) == 0


async def test_the_id_of_somebody_elses_machine_is_not_found_either(
    context: Context, alice: Actor, bob: Actor, gpus: list[str]
) -> None:
    [theirs] = await instances.list_all(context, bob)
    with pytest.raises(NotFoundError):
        await leases.take(context, alice, count=1, instance=theirs.id)


async def test_nobody_gets_more_than_their_maximum_waiting_ones_included(
    context: Context, alice: Actor, bob: Actor, gpus: list[str]
) -> None:
    few = with_settings(context, quota_accelerators=3)
    await leases.take(few, bob, count=3)
    held = await leases.take(few, alice, count=1)
    waiting = await leases.take(few, alice, count=2)
    assert (held.state, waiting.state) == (LeaseState.ATTACHING, LeaseState.QUEUED)
    with pytest.raises(QuotaExceededError, match="accelerators: 3 allowed, 3 held, 1 more"):
        await leases.take(few, alice, count=1)
    await leases.release(few, alice, lease=waiting.id)
    await leases.take(few, alice, count=2)


async def test_a_persons_own_maximum_counts_before_the_labs(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        await stored_users.update_user(session, alice.user_id, quota_accelerators=1)
    with pytest.raises(QuotaExceededError, match="1 allowed, 0 held, 2 more"):
        await leases.take(context, alice, count=2)


async def test_more_at_once_than_the_group_may_ever_hold_is_refused_less_waits(
    context: Context, alice: Actor, bob: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        await add_group(session, "vision", alice, bob, limit=2)
    with pytest.raises(QuotaExceededError, match="accelerators of group vision: 2 allowed"):
        await leases.take(context, alice, count=3)
    await leases.take(context, alice, count=2)
    waiting = await leases.take(context, bob, count=1)
    assert waiting.explanation
    assert waiting.explanation["waiting"] == "group"


async def test_who_is_shut_out_gets_nothing_not_even_from_an_administrator(
    context: Context, ada: Actor, alice: Actor, gpus: list[str]
) -> None:
    [box] = await instances.list_all(context, alice)
    await users.disable(context, ada, "alice")
    with pytest.raises(WrongStateError, match="alice is shut out"):
        await leases.take(context, ada, count=1, instance=box.id)


# -- who may ---------------------------------------------------------------------------------------

_WITH_A_LEASE: dict[str, Callable[[Context, Actor, str], Awaitable[Any]]] = {
    "show": lambda c, actor, lease_id: leases.show(c, actor, lease_id),
    "release": lambda c, actor, lease_id: leases.release(c, actor, lease=lease_id),
    "extend": lambda c, actor, lease_id: leases.extend(c, actor, lease=lease_id, minutes=5),
    "wait": lambda c, actor, lease_id: leases.wait(c, actor, lease_id, timeout=0),
}


@pytest.mark.parametrize("verb", sorted(_WITH_A_LEASE))
async def test_somebody_elses_lease_does_not_exist(
    context: Context, ada: Actor, alice: Actor, bob: Actor, gpus: list[str], hands: Hands, verb: str
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    for lease_id in (lease.id, "nothing"):
        with pytest.raises(NotFoundError):
            await _WITH_A_LEASE[verb](context, bob, lease_id)
    assert (await hands.lease(lease.id)).state is LeaseState.ACTIVE
    await _WITH_A_LEASE[verb](context, ada, lease.id)


@pytest.mark.parametrize("verb", ["release", "extend"])
async def test_somebody_elses_machine_has_no_leases_that_one_could_name(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands, verb: str
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    change: Any = getattr(leases, verb)
    more = {"minutes": 5} if verb == "extend" else {}
    with pytest.raises(NotFoundError):
        await change(context, bob, instance=lease.instance_id, **more)


async def test_a_token_that_only_reads_changes_nothing(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    reader = replace(alice, scope=Scope.READ)
    assert (await leases.show(context, reader, lease.id)).id == lease.id
    for change in (
        leases.take(context, reader, count=1),
        leases.release(context, reader, lease=lease.id),
        leases.extend(context, reader, lease=lease.id, minutes=1),
    ):
        with pytest.raises(ForbiddenError):
            await change


async def test_the_line_shows_who_waits_for_how_many_and_not_for_which_machine(
    context: Context, ada: Actor, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    await hands.attach(await leases.take(context, alice, count=4))
    first = await leases.take(context, bob, count=2)
    await stored_quota(context, alice, 8)
    second = await leases.take(context, alice, count=1)
    seen = await leases.queue(context, alice)
    assert [each.id for each in seen] == [first.id, second.id]
    theirs, mine = seen
    assert (theirs.owner_name, theirs.count, theirs.node_name) == ("bob", 2, "node1")
    assert theirs.explanation
    assert theirs.explanation["position"] == 1
    assert (theirs.instance_id, theirs.instance_name) == ("", "")
    assert mine.instance_name == "box"
    assert (await leases.queue(context, ada))[0].instance_name == "bobs"


async def stored_quota(context: Context, person: Actor, accelerators: int) -> None:
    async with context.db.write() as session:
        await stored_users.update_user(session, person.user_id, quota_accelerators=accelerators)


async def test_everyones_leases_are_an_administrators_to_see(
    context: Context, ada: Actor, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    mine = await leases.take(context, alice, count=1)
    theirs = await leases.take(context, bob, count=1)
    assert [each.id for each in await leases.list_all(context, alice)] == [mine.id]
    everyones = await leases.list_all(context, ada, everyone=True)
    assert [each.id for each in everyones] == [theirs.id, mine.id]
    for ask in (leases.list_all, leases.history):
        with pytest.raises(ForbiddenError):
            await ask(context, alice, everyone=True)
    with pytest.raises(NotFoundError):
        await leases.list_all(context, alice, instance="bobs")


async def test_history_is_what_has_ended_and_can_be_paged_through(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    ended: list[str] = []
    for person in (alice, bob, alice, alice):
        lease = await leases.take(context, person, count=1)
        await hands.attach(lease)
        await hands.detach(*await leases.release(context, person))
        ended.append(lease.id)
    live = await leases.take(context, alice, count=1)
    mine = [ended[3], ended[2], ended[0]]
    assert [each.id for each in await leases.history(context, alice)] == mine
    first = await leases.history(context, alice, limit=2)
    assert [each.id for each in first] == mine[:2]
    second = await leases.history(context, alice, limit=2, before=first[-1].id)
    assert [each.id for each in second] == mine[2:]
    everything = await leases.list_all(context, alice, live=False, instance="box")
    assert [each.id for each in everything] == [live.id, *mine]
    assert await leases.history(context, alice, before="nothing") == []


# -- releasing -------------------------------------------------------------------------------------


async def test_a_lease_that_waits_leaves_the_line_at_once(
    context: Context, ada: Actor, alice: Actor, bob: Actor, gpus: list[str]
) -> None:
    await leases.take(context, alice, count=4)
    waiting = await leases.take(context, bob, count=1)
    [ended] = await leases.release(context, bob, instance="bobs")
    assert (ended.id, ended.state) == (waiting.id, LeaseState.ENDED)
    assert ended.end_reason is EndReason.CANCELLED
    assert ended.explanation is None
    assert await _operation(context, ended) is None
    assert await _actions(context, ada, ended) == ["take", "cancel"]


async def test_a_lease_that_is_held_is_taken_out_by_an_operation(
    context: Context, ada: Actor, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    [going] = await leases.release(context, alice)
    assert (going.state, going.end_reason) == (LeaseState.DETACHING, EndReason.RELEASED)
    detach = await _operation(context, lease)
    assert detach
    assert (detach.kind, detach.created_by) == ("lease_detach", "alice")
    assert detach.params == {"lease": lease.id, "instance": lease.instance_id, "label": "box"}
    assert await _actions(context, ada, lease) == ["take", "grant", "release"]


async def test_releasing_what_is_still_being_attached_cancels_that_first(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    lease = await leases.take(context, alice, count=1)
    [going] = await leases.release(context, alice, lease=lease.id)
    assert going.state is LeaseState.DETACHING
    attach = await _operation(context, lease)
    assert attach
    assert (attach.kind, attach.cancel_requested) == ("lease_attach", True)


async def test_an_attachment_that_is_stuck_gives_way_to_the_detachment(
    context: Context, alice: Actor, gpus: list[str]
) -> None:
    lease = await leases.take(context, alice, count=1)
    async with context.db.write() as session:
        await session.execute(tables.operations.update().values(state="stuck"))
    await leases.release(context, alice, lease=lease.id)
    detach = await _operation(context, lease)
    assert detach
    assert detach.kind == "lease_detach"


async def test_releasing_again_while_it_is_going_is_harmless_and_afterwards_refused(
    context: Context, ada: Actor, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    for _ in range(2):
        [going] = await leases.release(context, alice, lease=lease.id)
        assert going.state is LeaseState.DETACHING
    assert await _actions(context, ada, lease) == ["take", "grant", "release"]
    await hands.detach(lease)
    with pytest.raises(WrongStateError, match="has ended: released"):
        await leases.release(context, alice, lease=lease.id)
    with pytest.raises(WrongStateError, match="box has no lease"):
        await leases.release(context, alice, instance="box")
    with pytest.raises(WrongStateError, match="No machine of yours has a lease"):
        await leases.release(context, alice)


async def test_whoever_has_leases_on_several_machines_must_say_which(
    context: Context, lab: Lab, alice: Actor, gpus: list[str]
) -> None:
    async with context.db.write() as session:
        await add_machine(session, alice, lab.node, "second")
    for name in ("box", "second", "second"):
        await leases.take(context, alice, count=1, instance=name)
    with pytest.raises(InvalidInputError, match="box, second"):
        await leases.release(context, alice)
    assert len(await leases.release(context, alice, instance="second")) == 2
    [left] = [each for each in await leases.list_all(context, alice) if not each.end_reason]
    assert left.instance_name == "box"


# -- extending -------------------------------------------------------------------------------------


async def test_a_lease_runs_as_much_longer_as_was_asked_for(
    context: Context, ada: Actor, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1, minutes=60)
    await hands.attach(lease)
    for minutes in (30, 15):
        before = await hands.lease(lease.id)
        extended = await leases.extend(context, alice, instance="box", minutes=minutes)
        assert before.expires_at
        assert extended.expires_at == before.expires_at + timedelta(minutes=minutes)
    assert await _actions(context, ada, lease) == ["take", "grant", "extend", "extend"]


@pytest.mark.parametrize("minutes", [0, -1, 10_080, 2**70])
async def test_a_lease_is_not_extended_by_nothing_or_beyond_the_longest(
    context: Context, alice: Actor, gpus: list[str], hands: Hands, clock: Clock, minutes: int
) -> None:
    clock.stop()
    await hands.hear_agents()
    lease = await leases.take(context, alice, count=1, minutes=60)
    await hands.attach(lease)
    with pytest.raises(InvalidDurationError) as caught:
        await leases.extend(context, alice, lease=lease.id, minutes=minutes)
    assert f"1 to {10_080 - 60} minutes" in caught.value.hint
    await leases.extend(context, alice, lease=lease.id, minutes=10_080 - 60)
    with pytest.raises(InvalidDurationError) as caught:
        await leases.extend(context, alice, lease=lease.id, minutes=1)
    assert "nothing yet" in caught.value.hint


async def test_what_waits_is_going_or_has_ended_cannot_be_extended(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await leases.take(context, alice, count=4)
    waiting = await leases.take(context, bob, count=1)
    with pytest.raises(WrongStateError, match="is queued") as caught:
        await leases.extend(context, bob, lease=waiting.id, minutes=5)
    assert "hutch gpu why" in caught.value.hint
    await hands.attach(held)
    await leases.release(context, alice)
    with pytest.raises(WrongStateError, match="is detaching"):
        await leases.extend(context, alice, lease=held.id, minutes=5)
    await hands.detach(held)
    with pytest.raises(WrongStateError, match="has ended: released"):
        await leases.extend(context, alice, lease=held.id, minutes=5)


async def test_a_lease_is_not_extended_over_the_head_of_who_waits_for_it(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await leases.take(context, alice, count=4)
    await hands.attach(held)
    waiting = await leases.take(context, bob, count=1)
    with pytest.raises(ExtensionRefusedError, match="bob waits for 1") as caught:
        await leases.extend(context, alice, lease=held.id, minutes=5)
    assert caught.value.detail["waiting"] == waiting.id
    await leases.release(context, bob)
    await leases.extend(context, alice, lease=held.id, minutes=5)


async def test_which_of_several_leases_is_extended_must_be_said(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    both = [await leases.take(context, alice, count=1) for _ in range(2)]
    await hands.attach(*both)
    with pytest.raises(InvalidInputError, match="2 leases of box") as caught:
        await leases.extend(context, alice, instance="box", minutes=5)
    assert all(each.id in caught.value.hint for each in both)


# -- machines and people that go -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "reason"), [("stop", EndReason.STOPPED), ("delete", EndReason.DELETED)]
)
async def test_a_machine_that_stops_or_goes_loses_its_leases_in_the_same_transaction(
    context: Context,
    alice: Actor,
    gpus: list[str],
    hands: Hands,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    reason: EndReason,
) -> None:
    active = await leases.take(context, alice, count=2)
    await hands.attach(active)
    attaching = await leases.take(context, alice, count=1)
    async with context.db.write() as session:
        await session.execute(tables.accelerators.update().values(withdrawn="for a test"))
    waiting = await leases.take(context, alice, count=1)
    act = getattr(instances, verb)
    with monkeypatch.context() as patched:
        patched.setattr("hutch.services.instances.end_all", _fail)
        with pytest.raises(KeyError):
            await act(context, alice, "box")
    assert (await instances.show(context, alice, "box")).state is InstanceState.RUNNING
    await act(context, alice, "box")
    for lease, state in (
        (active, LeaseState.DETACHING),
        (attaching, LeaseState.DETACHING),
        (waiting, LeaseState.ENDED),
    ):
        now = await hands.lease(lease.id)
        assert (now.state, now.end_reason) == (state, reason)


async def _fail(*_: object, **__: object) -> None:
    raise KeyError("the disk is full")


@pytest.mark.parametrize("verb", ["restart", "rebuild"])
async def test_a_machine_keeps_its_leases_through_what_leaves_it_running(
    context: Context, alice: Actor, gpus: list[str], hands: Hands, verb: str
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    await getattr(instances, verb)(context, alice, "box")
    assert (await hands.lease(lease.id)).state is LeaseState.ACTIVE


async def test_a_machine_that_cannot_be_stopped_now_keeps_its_leases(
    context: Context, alice: Actor, gpus: list[str], hands: Hands
) -> None:
    lease = await leases.take(context, alice, count=1)
    await hands.attach(lease)
    await instances.restart(context, alice, "box")
    with pytest.raises(HutchError):
        await instances.stop(context, alice, "box")
    assert (await hands.lease(lease.id)).state is LeaseState.ACTIVE


async def test_who_is_shut_out_loses_what_they_hold_and_what_they_wait_for(
    context: Context, ada: Actor, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await leases.take(context, alice, count=2)
    await hands.attach(held)
    theirs = await leases.take(context, bob, count=2)
    waiting = await leases.take(context, alice, count=1)
    await users.disable(context, ada, "alice")
    assert (await hands.lease(held.id)).state is LeaseState.DETACHING
    assert (await hands.lease(waiting.id)).state is LeaseState.ENDED
    assert (await hands.lease(theirs.id)).state is LeaseState.ATTACHING
    [event] = await events.list_all(context, ada, action="lease.release")
    assert event.actor_name == "ada"


# -- waiting ---------------------------------------------------------------------------------------


async def test_who_waits_hears_at_once_that_it_is_their_turn(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await leases.take(context, alice, count=4)
    await hands.attach(held)
    waiting = await leases.take(context, bob, count=1)
    listening = asyncio.create_task(
        leases.wait(context, bob, waiting.id, timeout=60, seen=leases.version(waiting))
    )
    await asyncio.sleep(0)
    await leases.release(context, alice)
    await hands.detach(held)
    changed = await listening
    assert leases.version(changed) != leases.version(waiting)


async def test_without_knowing_anything_one_waits_until_it_is_active_or_over(
    context: Context, alice: Actor, bob: Actor, gpus: list[str], hands: Hands
) -> None:
    held = await leases.take(context, alice, count=4)
    assert (await leases.wait(context, alice, held.id, timeout=0)).state is LeaseState.ATTACHING
    listening = asyncio.create_task(leases.wait(context, alice, held.id, timeout=60))
    await hands.attach(held)
    assert (await listening).state is LeaseState.ACTIVE
    waiting = await leases.take(context, bob, count=1)
    listening = asyncio.create_task(leases.wait(context, bob, waiting.id, timeout=60))
    await leases.release(context, bob)
    assert (await listening).state is LeaseState.ENDED
