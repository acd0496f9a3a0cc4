from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.people import SYSTEM, Actor, Role, Scope
from hutch.domain.permissions import Action, can
from hutch.domain.shares import Share

ADMINS_ALONE = {
    Action.USER_READ,
    Action.USER_WRITE,
    Action.IMAGE_WRITE,
    Action.NODE_WRITE,
    Action.EVENT_READ,
    Action.OPERATION_RETRY,
    Action.ACCELERATOR_WRITE,
    Action.GROUP_WRITE,
}
MANAGERS_ALONE = {Action.GROUP_MANAGE}
OF_THE_LAB = {Action.IMAGE_READ, Action.NODE_READ, Action.ACCELERATOR_READ}
actions = st.sampled_from(Action)
owners = st.sampled_from([None, "ada", "eve", ""])


def actor(role: Role = Role.MEMBER, scope: Scope = Scope.FULL) -> Actor:
    return Actor(user_id="ada", name="ada", role=role, scope=scope)


actors = st.builds(actor, st.sampled_from(Role), st.sampled_from(Scope))


@pytest.mark.parametrize("action", Action)
def test_an_admin_may_do_everything(action: Action):
    for owner in (None, "ada", "eve"):
        assert can(actor(Role.ADMIN), action, owner)
        assert can(SYSTEM, action, owner)


@pytest.mark.parametrize("action", sorted(set(Action) - ADMINS_ALONE - MANAGERS_ALONE))
def test_a_member_may_do_all_else_with_their_own(action: Action):
    assert can(actor(), action, "ada")
    assert can(actor(), action)


@pytest.mark.parametrize("action", sorted(ADMINS_ALONE))
def test_a_member_may_not_do_what_is_for_admins(action: Action):
    for owner in (None, "ada", "eve"):
        assert not can(actor(), action, owner)


@pytest.mark.parametrize("action", sorted(set(Action) - OF_THE_LAB))
def test_a_member_may_do_nothing_with_what_is_someone_elses(action: Action):
    assert not can(actor(), action, "eve")
    assert not can(actor(), action, "")


def share(user_id: str, *, read_only_view: bool = False) -> Share:
    return Share("s", "i", user_id, "x", read_only_view, None, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("action", Action)
def test_a_guest_may_log_in_start_and_stop_but_not_change_or_pass_it_on(action: Action):
    allowed = {
        Action.INSTANCE_READ,
        Action.INSTANCE_EXEC,
        Action.INSTANCE_CONTROL,
        Action.APP_READ,
        Action.FILE_READ,
        Action.FILE_WRITE,
        Action.PORT_READ,
        Action.SHARE_READ,
        Action.SNAPSHOT_READ,
    }
    of_the_lab = can(actor(), action, "eve")
    assert can(actor(), action, "eve", share("ada")) == (action in allowed or of_the_lab)


@pytest.mark.parametrize("action", Action)
def test_who_may_only_look_reads_and_nothing_else(action: Action):
    if can(actor(), action, "eve", share("ada", read_only_view=True)):
        assert action.value.endswith(":read")


@given(actors, actions, owners)
def test_what_is_shared_with_another_gives_nobody_anything(
    who: Actor, action: Action, owner: str | None
):
    assert can(who, action, owner, share("eve")) == can(who, action, owner)


@given(actors, actions, owners)
def test_a_share_never_takes_anything_away(who: Actor, action: Action, owner: str | None):
    if can(who, action, owner):
        assert can(who, action, owner, share("ada", read_only_view=True))


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_read_only_token_reads_and_nothing_else(role: Role, action: Action):
    # What is on a disk (keys, tokens) would let one do more than read.
    reads = action.value.endswith(":read") and action is not Action.FILE_READ
    allowed = any(can(actor(role, Scope.READ), action, owner) for owner in (None, "ada"))
    assert allowed == (reads and can(actor(role), action, "ada"))


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_browsers_cookie_opens_apps_and_does_nothing_else(role: Role, action: Action):
    for owner in (None, "ada", "eve"):
        if can(actor(role, Scope.BROWSER), action, owner, share("ada")):
            assert action is Action.APP_READ


@given(actors, actions, owners)
def test_a_narrower_token_never_allows_more(who: Actor, action: Action, owner: str | None):
    if can(actor(who.role, Scope.READ), action, owner):
        assert can(actor(who.role, Scope.FULL), action, owner)


@given(actors, actions, owners)
def test_a_member_may_do_nothing_that_an_admin_may_not(
    who: Actor, action: Action, owner: str | None
):
    if can(who, action, owner):
        assert can(actor(Role.ADMIN, who.scope), action, owner)


def test_a_manager_may_manage_their_own_group_and_no_other():
    manager = replace(actor(), manages="vision")
    assert can(manager, Action.GROUP_MANAGE, "vision")
    assert can(manager, Action.GROUP_MANAGE)
    assert not can(manager, Action.GROUP_MANAGE, "audio")
    assert not can(replace(manager, scope=Scope.READ), Action.GROUP_MANAGE, "vision")
    assert not can(actor(), Action.GROUP_MANAGE)


@given(actions, owners)
def test_managing_a_group_gives_no_other_right(action: Action, owner: str | None):
    if action is not Action.GROUP_MANAGE:
        assert can(replace(actor(), manages="eve"), action, owner) == can(actor(), action, owner)


def test_actions_are_written_as_noun_and_verb():
    for action in Action:
        noun, _, verb = action.value.partition(":")
        assert action.name == f"{noun}_{verb}".upper()
