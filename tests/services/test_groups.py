"""Groups: who is in them, what they may have, and what their managers may do."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hutch.domain.groups import IdlePolicy, IdleWish
from hutch.domain.ids import new_id
from hutch.domain.leases import LeaseState
from hutch.domain.people import Actor, Role, Scope
from hutch.domain.scheduler import GroupShare
from hutch.errors import (
    ConflictError,
    ForbiddenError,
    HutchError,
    InvalidLimitError,
    InvalidNameError,
    NameTakenError,
    NotFoundError,
)
from hutch.services import events, groups, tokens, users
from hutch.services.context import Context
from hutch.store import groups as stored
from hutch.store.tables import leases
from tests.lab import Lab


async def _error(doing: Awaitable[Any]) -> HutchError:
    with pytest.raises(HutchError) as caught:
        await doing
    return caught.value


async def _signed_in(context: Context, actor: Actor, scope: Scope = Scope.FULL) -> Actor:
    """The actor as a request of theirs has them."""
    clear, _ = await tokens.create(context, actor, "test", scope, 1)
    return await tokens.authenticate(context, clear, address=None, request_id=None)


@pytest.fixture
def managed(context: Context, alice: Actor, ada: Actor) -> Callable[[], Awaitable[Actor]]:
    """Makes the group `vision`, limit 4, and alice its manager; her as she signs in then."""

    async def _managed() -> Actor:
        await groups.add(context, ada, "vision", guarantee=2, limit=4)
        await groups.add_member(context, ada, "vision", "alice")
        await groups.set_manager(context, ada, "vision", "alice", True)
        return await _signed_in(context, alice)

    return _managed


async def _lease(
    context: Context, lab: Lab, owner: Actor, group: str | None, state: LeaseState, count: int
) -> None:
    async with context.db.write() as session:
        found = None if group is None else await stored.find_group(session, group)
        await session.execute(
            leases.insert().values(
                id=new_id(), instance_id=new_id(), instance_name="box", owner_id=owner.user_id,
                group_id=None if found is None else found.id, group_name=group,
                node_id=lab.node.id, count=count, seconds=60, state=state.value,
                requested_at=context.now(),
            )
        )  # fmt: skip


async def test_a_group_is_made_shown_changed_and_removed(context: Context, ada: Actor) -> None:
    made = await groups.add(context, ada, "vision", guarantee=2, limit=6, weight=2.5)
    assert (await groups.show(context, ada, "vision")).group == made.group
    changed = await groups.configure(context, ada, "vision", limit=None, weight=1.0)
    assert changed.group == replace(made.group, limit=None, weight=1.0)
    assert (await groups.show(context, ada, "vision")).group == changed.group
    assert [each.group.name for each in await groups.list_all(context, ada)] == ["vision"]
    await groups.remove(context, ada, "vision")
    assert await groups.list_all(context, ada) == []
    assert isinstance(await _error(groups.show(context, ada, "vision")), NotFoundError)


async def test_what_the_scheduler_needs_of_groups_is_one_question(
    context: Context, alice: Actor, ada: Actor
) -> None:
    vision = (await groups.add(context, ada, "vision", guarantee=2, limit=6, weight=2.5)).group
    await groups.add(context, ada, "audio")
    await groups.add_member(context, ada, "vision", "alice")
    async with context.db.read() as session:
        shares = await stored.shares(session)
        assert await stored.group_of(session, alice.user_id) == vision
        assert await stored.group_of(session, ada.user_id) is None
    assert shares[vision.id] == GroupShare(2, 6, 2.5)
    assert sorted(share.guarantee for share in shares.values()) == [0, 2]


@pytest.mark.parametrize(
    "wish",
    [
        {"guarantee": -1},
        {"guarantee": 10**6},
        {"guarantee": 3, "limit": 2},
        {"limit": -1},
        {"limit": 10**6},
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": 1001.0},
        {"weight": float("nan")},
        {"idle": IdleWish(window=timedelta(seconds=-1))},
        {"idle": IdleWish(window=timedelta(days=366))},
        {"idle": IdleWish(threshold=1.5)},
        {"idle": IdleWish(warning=timedelta(days=8))},
    ],
    ids=str,
)
async def test_shares_that_make_no_sense_are_refused(
    context: Context, ada: Actor, wish: dict[str, Any]
) -> None:
    assert isinstance(await _error(groups.add(context, ada, "vision", **wish)), InvalidLimitError)
    before = await groups.add(context, ada, "vision")
    error = await _error(groups.configure(context, ada, "vision", **wish))
    assert isinstance(error, InvalidLimitError)
    assert await groups.show(context, ada, "vision") == before


@pytest.mark.parametrize("name", ["", "Vision", "-x", "a b", "a/b", "..", "ü", "x" * 64, "a\0"])
async def test_a_bad_name_of_a_group_is_refused(context: Context, ada: Actor, name: str) -> None:
    assert isinstance(await _error(groups.add(context, ada, name)), InvalidNameError)


async def test_a_name_that_is_taken_is_refused(context: Context, ada: Actor) -> None:
    await groups.add(context, ada, "vision")
    assert isinstance(await _error(groups.add(context, ada, "vision")), NameTakenError)


async def test_a_limit_may_not_fall_below_a_guarantee_that_stays(
    context: Context, ada: Actor
) -> None:
    await groups.add(context, ada, "vision", guarantee=4)
    assert isinstance(
        await _error(groups.configure(context, ada, "vision", limit=3)), InvalidLimitError
    )
    both = await groups.configure(context, ada, "vision", guarantee=3, limit=3)
    assert (both.group.guarantee, both.group.limit) == (3, 3)


async def test_a_policy_of_idleness_begins_as_the_labs_and_is_changed_part_by_part(
    context: Context, ada: Actor
) -> None:
    lab = context.settings.idle_policy
    await groups.add(context, ada, "vision")
    two_hours = timedelta(hours=2)
    first = await groups.configure(context, ada, "vision", idle=IdleWish(window=two_hours))
    assert first.group.idle == IdlePolicy(two_hours, lab.threshold, lab.warning)
    second = await groups.configure(context, ada, "vision", idle=IdleWish(threshold=0.2))
    assert second.group.idle == IdlePolicy(two_hours, 0.2, lab.warning)
    assert (await groups.show(context, ada, "vision")).group.idle == second.group.idle
    never = await groups.configure(context, ada, "vision", idle=IdleWish(window=timedelta(0)))
    assert never.group.idle == IdlePolicy(timedelta(0), 0.2, lab.warning)
    assert (await groups.configure(context, ada, "vision", idle=None)).group.idle is None


async def test_a_person_is_in_one_group_at_most(context: Context, ada: Actor) -> None:
    await groups.add(context, ada, "vision")
    await groups.add(context, ada, "audio")
    await groups.add_member(context, ada, "vision", "bob")
    for name in ("vision", "audio"):
        error = await _error(groups.add_member(context, ada, name, "bob"))
        assert isinstance(error, ConflictError)
    await groups.remove_member(context, ada, "vision", "bob")
    assert isinstance(
        await _error(groups.remove_member(context, ada, "vision", "bob")), NotFoundError
    )
    moved = await groups.add_member(context, ada, "audio", "bob")
    assert [member.user_name for member in moved.members] == ["bob"]


async def test_a_group_shows_what_its_members_hold_wait_for_and_may_hold(
    context: Context, lab: Lab, alice: Actor, bob: Actor, ada: Actor
) -> None:
    await groups.add(context, ada, "vision")
    await groups.add_member(context, ada, "vision", "alice")
    await groups.add_member(context, ada, "vision", "bob")
    await users.configure(context, ada, "bob", accelerators=1)
    await _lease(context, lab, alice, "vision", LeaseState.ACTIVE, 2)
    await _lease(context, lab, alice, "vision", LeaseState.DETACHING, 1)
    await _lease(context, lab, bob, "vision", LeaseState.QUEUED, 4)
    await _lease(context, lab, bob, "vision", LeaseState.ENDED, 8)
    await _lease(context, lab, ada, None, LeaseState.ACTIVE, 16)
    standing = await groups.show(context, ada, "vision")
    assert (standing.held, standing.waiting) == (3, 4)
    default = context.settings.quota_accelerators
    shown = [(each.user_name, each.held, each.maximum) for each in standing.members]
    assert shown == [("alice", 3, default), ("bob", 4, 1)]
    assert await groups.list_all(context, ada) == [standing]


async def test_a_group_that_somebody_holds_something_in_stays(
    context: Context, lab: Lab, alice: Actor, ada: Actor
) -> None:
    await groups.add(context, ada, "vision")
    await groups.add_member(context, ada, "vision", "alice")
    await _lease(context, lab, alice, "vision", LeaseState.QUEUED, 2)
    error = await _error(groups.remove(context, ada, "vision"))
    assert isinstance(error, ConflictError)
    assert error.detail == {"held": 0, "waiting": 2}


async def test_removing_a_group_leaves_its_members(
    context: Context, managed: Callable[[], Awaitable[Actor]], alice: Actor, ada: Actor
) -> None:
    await managed()
    await groups.remove(context, ada, "vision")
    assert (await _signed_in(context, alice)).manages is None
    await groups.add(context, ada, "audio")
    await groups.add_member(context, ada, "audio", "alice")


# -- who may what ------------------------------------------------------------------------------


async def test_signing_in_tells_which_group_one_manages(
    context: Context, managed: Callable[[], Awaitable[Actor]], alice: Actor, bob: Actor, ada: Actor
) -> None:
    manager = await managed()
    group = (await groups.show(context, ada, "vision")).group
    assert manager.manages == group.id
    await groups.add_member(context, ada, "vision", "bob")
    assert (await _signed_in(context, bob)).manages is None
    await groups.set_manager(context, ada, "vision", "alice", False)
    assert (await _signed_in(context, alice)).manages is None


async def test_a_manager_keeps_the_people_of_their_own_group(
    context: Context, managed: Callable[[], Awaitable[Actor]]
) -> None:
    manager = await managed()
    await groups.add_member(context, manager, "vision", "bob")
    standing = await groups.set_quota(context, manager, "vision", "bob", 4)
    assert {each.user_name: each.maximum for each in standing.members}["bob"] == 4
    await groups.remove_member(context, manager, "vision", "bob")
    assert [each.user_name for each in (await groups.show(context, manager, "vision")).members] == [
        "alice"
    ]


async def test_a_manager_gives_no_more_than_the_groups_limit(
    context: Context, managed: Callable[[], Awaitable[Actor]], ada: Actor
) -> None:
    manager = await managed()
    await groups.add_member(context, manager, "vision", "bob")
    for many in (5, -1, 10**400):
        error = await _error(groups.set_quota(context, manager, "vision", "bob", many))
        assert isinstance(error, InvalidLimitError)
    await groups.configure(context, ada, "vision", limit=None)
    await groups.set_quota(context, manager, "vision", "bob", 5)
    assert isinstance(
        await _error(groups.set_quota(context, manager, "vision", "bob", 100_001)),
        InvalidLimitError,
    )


async def test_what_a_manager_gave_above_the_labs_default_ends_with_the_membership(
    context: Context, managed: Callable[[], Awaitable[Actor]], ada: Actor
) -> None:
    manager = await managed()
    await groups.configure(context, ada, "vision", limit=50)
    default = context.settings.quota_accelerators
    for many, afterwards in ((50, default), (1, 1)):
        await groups.add_member(context, manager, "vision", "bob")
        await groups.set_quota(context, manager, "vision", "bob", many)
        await groups.remove_member(context, manager, "vision", "bob")
        user, _ = await users.show(context, ada, "bob")
        assert user.quota.accelerators == afterwards


async def test_a_manager_touches_no_share(
    context: Context, managed: Callable[[], Awaitable[Actor]]
) -> None:
    manager = await managed()
    for refused in (
        groups.add(context, manager, "mine"),
        groups.configure(context, manager, "vision", guarantee=100),
        groups.configure(context, manager, "vision", limit=None),
        groups.configure(context, manager, "vision", weight=9.0),
        groups.configure(context, manager, "vision", idle=None),
        groups.set_manager(context, manager, "vision", "alice", True),
        groups.remove(context, manager, "vision"),
        users.configure(context, manager, "alice", accelerators=100),
    ):
        assert isinstance(await _error(refused), ForbiddenError)


async def test_another_group_and_its_people_do_not_exist_for_a_manager(
    context: Context, managed: Callable[[], Awaitable[Actor]], ada: Actor
) -> None:
    manager = await managed()
    await groups.add(context, ada, "audio")
    await groups.add_member(context, ada, "audio", "bob")
    for refused in (
        groups.show(context, manager, "audio"),
        groups.add_member(context, manager, "audio", "alice"),
        groups.remove_member(context, manager, "audio", "bob"),
        groups.set_quota(context, manager, "audio", "bob", 1),
        groups.set_quota(context, manager, "vision", "bob", 1),
        groups.remove_member(context, manager, "vision", "bob"),
        groups.set_quota(context, manager, "vision", "nobody", 1),
        groups.add_member(context, manager, "vision", "nobody"),
    ):
        assert isinstance(await _error(refused), NotFoundError)
    # Whoever is in another group cannot be drawn out of it either.
    refused = await _error(groups.add_member(context, manager, "vision", "bob"))
    assert isinstance(refused, ConflictError)
    assert [each.group.name for each in await groups.list_all(context, manager)] == ["vision"]


async def test_a_manager_leaves_other_managers_to_the_administrators(
    context: Context, managed: Callable[[], Awaitable[Actor]], ada: Actor
) -> None:
    manager = await managed()
    await groups.add_member(context, ada, "vision", "bob")
    await groups.set_manager(context, ada, "vision", "bob", True)
    for refused in (
        groups.remove_member(context, manager, "vision", "bob"),
        groups.set_quota(context, manager, "vision", "bob", 0),
    ):
        assert isinstance(await _error(refused), ForbiddenError)
    await groups.set_quota(context, manager, "vision", "alice", 3)
    await groups.remove_member(context, ada, "vision", "bob")


async def test_a_managers_read_only_token_changes_nothing(
    context: Context, managed: Callable[[], Awaitable[Actor]], alice: Actor
) -> None:
    await managed()
    reader = await _signed_in(context, alice, Scope.READ)
    assert (await groups.show(context, reader, "vision")).group.name == "vision"
    for refused in (
        groups.add_member(context, reader, "vision", "bob"),
        groups.set_quota(context, reader, "vision", "alice", 1),
        groups.remove_member(context, reader, "vision", "alice"),
    ):
        assert isinstance(await _error(refused), ForbiddenError)


async def test_a_member_sees_their_own_group_and_changes_nothing(
    context: Context, managed: Callable[[], Awaitable[Actor]], bob: Actor, ada: Actor
) -> None:
    await managed()
    assert await groups.list_all(context, bob) == []
    assert isinstance(await _error(groups.show(context, bob, "vision")), NotFoundError)
    await groups.add_member(context, ada, "vision", "bob")
    assert [each.group.name for each in await groups.list_all(context, bob)] == ["vision"]
    assert (await groups.show(context, bob, "vision")).group.limit == 4
    for refused in (
        groups.add_member(context, bob, "vision", "ada"),
        groups.remove_member(context, bob, "vision", "alice"),
        groups.set_quota(context, bob, "vision", "bob", 4),
        groups.configure(context, bob, "vision", limit=None),
        groups.remove(context, bob, "vision"),
    ):
        assert isinstance(await _error(refused), ForbiddenError)


async def test_every_change_is_in_the_audit(
    context: Context, managed: Callable[[], Awaitable[Actor]], ada: Actor
) -> None:
    manager = await managed()
    await groups.configure(context, ada, "vision", weight=2.0, idle=IdleWish(timedelta(hours=2)))
    await groups.configure(context, ada, "vision", weight=2.0)
    await groups.set_quota(context, manager, "vision", "alice", 3)
    await groups.remove_member(context, manager, "vision", "alice")
    await groups.remove(context, ada, "vision")
    told = [
        (event.actor_name, event.action, event.target_name, event.detail)
        for event in await events.list_all(context, ada)
        if event.action.startswith(("group.", "user."))
    ]
    idle = {"window": 7200.0, "threshold": 0.05, "warning": 900.0}
    assert told[::-1] == [
        ("ada", "group.add", "vision", {"guarantee": 2, "limit": 4, "weight": 1.0, "idle": None}),
        ("ada", "group.add_member", "vision", {"user": "alice"}),
        ("ada", "group.set_manager", "vision", {"user": "alice", "is_manager": True}),
        ("ada", "group.configure", "vision", {"changes": {"weight": 2.0, "idle": idle}}),
        ("alice", "user.configure", "alice",
         {"changes": {"quota_accelerators": 3}, "group": "vision"}),
        ("alice", "group.remove_member", "vision", {"user": "alice"}),
        ("ada", "group.remove", "vision", {}),
    ]  # fmt: skip


async def test_a_new_role_keeps_the_group(context: Context, ada: Actor) -> None:
    await groups.add(context, ada, "vision")
    await groups.add_member(context, ada, "vision", "bob")
    await users.configure(context, ada, "bob", role=Role.ADMIN)
    (standing,) = await groups.list_all(context, ada)
    assert [member.user_name for member in standing.members] == ["bob"]
