"""Sharing an instance: who sees it, what they may, and which keys go in and leave."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from hutch.domain.people import SYSTEM, Actor
from hutch.errors import (
    ConflictError,
    ForbiddenError,
    InvalidDurationError,
    InvalidInputError,
    NotFoundError,
)
from hutch.reconcilers.shares import Shares
from hutch.services import events, instances, keys, operations, shares, snapshots, users
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.store import containers, nodes
from tests.keys import new_key
from tests.lab import Clock
from tests.operations.scenarios import run

KEYS = "/home/alice/.ssh/authorized_keys.hutch"


@pytest.fixture
async def box(context: Context, alice: Actor) -> str:
    """A running instance of alice's; its id."""
    instance, _ = await instances.create(context, alice, Wish("box"))
    await run(context)
    return instance.id


async def inside(context: Context, instance_id: str) -> str:
    """The keys that hutch keeps in an instance."""
    await run(context)
    async with context.db.read() as session:
        container = await containers.current(session, instance_id)
        assert container is not None
        node = await nodes.get_node(session, container.node_id)
    assert node is not None
    content = await context.engines.of(node).read_file(container.engine_name, KEYS)
    assert content is not None
    return content.decode()


async def key_of(context: Context, person: Actor) -> str:
    """Register a new key of a person's; its line."""
    return (await keys.add(context, person, new_key(person.name))).public


async def refs(context: Context, person: Actor) -> list[str]:
    found = await instances.list_all(context, person)
    return [f"{each.owner_name}/{each.name}" for each in found]


async def test_a_guest_sees_it_by_id_by_name_and_as_owner_and_name(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    for ref in (box, "box", "alice/box"):
        assert (await instances.show(context, bob, ref)).id == box
    assert await refs(context, bob) == ["alice/box"]
    [seen] = await instances.list_all(context, bob)
    assert seen.share is not None
    [own] = await instances.list_all(context, alice)
    assert own.share is None


async def test_a_name_means_ones_own_instance_first(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    own, _ = await instances.create(context, bob, Wish("box"))
    assert (await instances.show(context, bob, "box")).id == own.id
    assert (await instances.show(context, bob, "alice/box")).id == box
    assert await refs(context, bob) == ["alice/box", "bob/box"]


async def test_a_name_that_two_people_share_has_to_be_said_in_full(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    await users.configure(context, SYSTEM, "bob", instances=5)
    await instances.create(context, ada, Wish("box"))
    await shares.add(context, alice, "box", "bob")
    await shares.add(context, ada, "box", "bob")
    with pytest.raises(ConflictError) as caught:
        await instances.show(context, bob, "box")
    assert "ada/box" in caught.value.hint
    assert "alice/box" in caught.value.hint


async def test_an_owner_is_named_only_to_whom_they_share_with(
    context: Context, bob: Actor, alice: Actor, box: str
) -> None:
    with pytest.raises(ForbiddenError):
        await instances.list_all(context, bob, owner="alice")
    await shares.add(context, alice, "box", "bob")
    await instances.create(context, alice, Wish("private"))
    found = await instances.list_all(context, bob, owner="alice")
    assert [each.id for each in found] == [box]
    with pytest.raises(ForbiddenError):
        await instances.list_all(context, bob, owner="nobody")


Act = Callable[[Context, Actor], Awaitable[Any]]
ALLOWED: dict[str, Act] = {
    "show": lambda c, a: instances.show(c, a, "box"),
    "list snapshots": lambda c, a: snapshots.list_all(c, a, "box"),
    "run a program": lambda c, a: instances.execute(c, a, "box", ["true"]),
    "restart": lambda c, a: instances.restart(c, a, "box"),
    "stop": lambda c, a: instances.stop(c, a, "box"),
}
REFUSED: dict[str, Act] = {
    "delete": lambda c, a: instances.delete(c, a, "box"),
    "rebuild": lambda c, a: instances.rebuild(c, a, "box"),
    "configure": lambda c, a: instances.configure(c, a, "box", cpus=1),
    "take a snapshot": lambda c, a: snapshots.create(c, a, "box", "one"),
    "restore": lambda c, a: snapshots.restore(c, a, "box", "one"),
    "pass it on": lambda c, a: shares.add(c, a, "box", "ada"),
    "shut another out": lambda c, a: shares.remove(c, a, "box", "ada"),
}
LOOKING = {"show", "list snapshots"}


@pytest.mark.parametrize("what", ALLOWED)
async def test_a_guest_may(context: Context, alice: Actor, bob: Actor, box: str, what: str) -> None:
    await shares.add(context, alice, "box", "bob")
    await ALLOWED[what](context, bob)


@pytest.mark.parametrize("what", REFUSED)
async def test_a_guest_may_not(
    context: Context, alice: Actor, bob: Actor, box: str, what: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    with pytest.raises(ForbiddenError, match="alice shares box with you"):
        await REFUSED[what](context, bob)


@pytest.mark.parametrize("what", {**ALLOWED, **REFUSED})
async def test_who_may_look_may_look_and_nothing_else(
    context: Context, alice: Actor, bob: Actor, box: str, what: str
) -> None:
    await shares.add(context, alice, "box", "bob", read_only_view=True)
    act = {**ALLOWED, **REFUSED}[what]
    if what in LOOKING:
        await act(context, bob)
        return
    with pytest.raises(ForbiddenError):
        await act(context, bob)


@pytest.mark.parametrize("what", {**ALLOWED, **REFUSED})
async def test_for_everyone_else_it_does_not_exist(
    context: Context, alice: Actor, bob: Actor, box: str, what: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    await shares.remove(context, alice, "box", "bob")
    with pytest.raises(NotFoundError, match="There is no instance 'box'"):
        await {**ALLOWED, **REFUSED}[what](context, bob)


async def test_a_guest_watches_the_operation_that_they_began(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    stopped = await instances.stop(context, bob, "box")
    assert (await operations.show(context, bob, stopped.id)).id == stopped.id
    await run(context)
    started = await instances.start(context, alice, "box")
    with pytest.raises(NotFoundError):
        await operations.show(context, bob, started.id)


async def test_a_guests_keys_go_in_at_once_and_leave_at_once(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    own, theirs = await key_of(context, alice), await key_of(context, bob)
    assert theirs not in await inside(context, box)
    await shares.add(context, alice, "box", "bob")
    both = await inside(context, box)
    assert own in both
    assert f"{theirs} bob:_bob" in both, "whose key it is can be read inside"
    await shares.remove(context, alice, "box", "bob")
    assert theirs not in await inside(context, box)
    assert own in await inside(context, box)


async def test_keys_that_a_guest_adds_and_removes_follow(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    theirs = await key_of(context, bob)
    assert theirs in await inside(context, box)
    [key] = await keys.list_all(context, bob)
    await keys.remove(context, bob, key.id)
    assert theirs not in await inside(context, box)


async def test_a_guest_who_is_shut_out_loses_the_way_in_and_gets_it_back(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    theirs = await key_of(context, bob)
    await shares.add(context, alice, "box", "bob")
    await users.disable(context, ada, "bob")
    assert theirs not in await inside(context, box)
    await users.enable(context, ada, "bob")
    assert theirs in await inside(context, box)


async def test_the_guests_of_an_owner_who_is_shut_out_stay(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    own, theirs = await key_of(context, alice), await key_of(context, bob)
    await shares.add(context, alice, "box", "bob")
    await users.disable(context, ada, "alice")
    assert own not in await inside(context, box)
    assert theirs in await inside(context, box)


async def test_no_key_of_those_who_may_only_look_goes_in(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    theirs = await key_of(context, bob)
    await shares.add(context, alice, "box", "bob", read_only_view=True)
    assert theirs not in await inside(context, box)
    await shares.add(context, alice, "box", "bob")
    assert theirs in await inside(context, box), "sharing again changes how it is shared"
    await shares.add(context, alice, "box", "bob", read_only_view=True)
    assert theirs not in await inside(context, box)


@pytest.mark.parametrize("verb", [instances.rebuild, instances.restart])
async def test_guests_stay_over_a_restart_and_a_rebuild(
    context: Context, alice: Actor, bob: Actor, box: str, verb: Act
) -> None:
    theirs = await key_of(context, bob)
    await shares.add(context, alice, "box", "bob")
    await run(context)
    await verb(context, alice, "box")  # pyright: ignore[reportCallIssue]
    assert theirs in await inside(context, box)


async def test_keys_go_into_a_stopped_instance_when_it_starts(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    theirs = await key_of(context, bob)
    await instances.stop(context, alice, "box")
    await run(context)
    await shares.add(context, alice, "box", "bob")
    await instances.start(context, bob, "box")
    assert theirs in await inside(context, box)


async def test_a_share_ends_when_its_time_has_come(
    context: Context, alice: Actor, bob: Actor, clock: Clock, box: str
) -> None:
    at = clock.stop()
    theirs = await key_of(context, bob)
    share = await shares.add(context, alice, "box", "bob", until="2d")
    assert share.until == at + timedelta(days=2)
    ending = Shares(context)
    assert await ending.reconcile() == timedelta(days=2).total_seconds()
    clock.forward(days=2, seconds=-1)
    assert await ending.reconcile() == 1.0
    assert theirs in await inside(context, box)
    clock.forward(seconds=1)
    assert await ending.reconcile() is None
    assert theirs not in await inside(context, box)
    with pytest.raises(NotFoundError):
        await instances.show(context, bob, box)


async def test_the_end_counts_also_before_it_is_tidied_away(
    context: Context, alice: Actor, bob: Actor, clock: Clock, box: str
) -> None:
    theirs = await key_of(context, bob)
    clock.back(days=3)
    await shares.add(context, alice, "box", "bob", until="2d")
    clock.forward(days=3)
    with pytest.raises(NotFoundError):
        await instances.show(context, bob, box)
    assert await refs(context, bob) == []
    assert await shares.list_all(context, alice, "box") == []
    assert theirs not in await inside(context, box)


async def test_nothing_is_shared_with_nobody_oneself_or_for_no_time(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    with pytest.raises(NotFoundError):
        await shares.add(context, alice, "box", "nobody")
    with pytest.raises(InvalidInputError):
        await shares.add(context, alice, "box", "alice")
    for never in ("yesterday", "0h", "2020-01-01"):
        with pytest.raises(InvalidDurationError):
            await shares.add(context, alice, "box", "bob", until=never)
    with pytest.raises(NotFoundError):
        await shares.remove(context, alice, "box", "bob")
    assert await shares.list_all(context, alice, "box") == []


async def test_the_owner_sees_all_guests_and_a_guest_sees_themself(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    await shares.add(context, alice, "box", "ada", read_only_view=True)
    shown = await shares.list_all(context, alice, "box")
    assert [(each.user_name, each.read_only_view) for each in shown] == [
        ("ada", True), ("bob", False),
    ]  # fmt: skip
    assert [each.user_name for each in await shares.list_all(context, bob, box)] == ["bob"]


async def test_a_guest_may_give_it_up(context: Context, alice: Actor, bob: Actor, box: str) -> None:
    await shares.add(context, alice, "box", "bob")
    await shares.remove(context, bob, "alice/box", "bob")
    assert await refs(context, bob) == []


async def test_both_have_an_event_of_both_ends(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    await shares.remove(context, alice, "box", "bob")
    found = await events.list_all(context, ada, target_id=box)
    shown = [(each.action, each.owner_id, each.actor_name) for each in found]
    for verb in ("share", "unshare"):
        assert (f"instance.{verb}", alice.user_id, "alice") in shown
        assert (f"instance.{verb}d", bob.user_id, "alice") in shown


async def test_shares_go_with_the_instance(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob")
    await instances.delete(context, alice, "box")
    await run(context)
    assert await refs(context, bob) == []


async def test_a_page_of_the_list_has_what_is_shared_too(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await instances.create(context, bob, Wish("own"))
    await shares.add(context, alice, "box", "bob")
    first = await instances.list_all(context, bob, limit=1)
    second = await instances.list_all(context, bob, limit=1, after=first[0].id)
    assert {each.name for each in (*first, *second)} == {"box", "own"}
    assert await instances.list_all(context, bob, limit=1, after=second[0].id) == []
