"""People, as administrators keep them."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from hutch.domain.limits import Holding
from hutch.domain.people import Actor, Role, Scope
from hutch.domain.sizes import GiB
from hutch.errors import (
    BadLoginError,
    BadTokenError,
    ConflictError,
    ForbiddenError,
    HutchError,
    InvalidLimitError,
    InvalidNameError,
    NameTakenError,
    NotFoundError,
    QuotaExceededError,
    WeakPasswordError,
)
from hutch.services import instances, tokens, users
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.services.vault import new_password

HERE = "192.0.2.7"


async def _error(doing: Awaitable[Any]) -> HutchError:
    with pytest.raises(HutchError) as caught:
        await doing
    return caught.value


async def _can_sign_in(context: Context, name: str, password: str) -> bool:
    try:
        await tokens.login(context, name, password, address=HERE)
    except BadLoginError:
        return False
    return True


async def test_a_new_person_signs_in_with_the_password_that_was_shown_once(
    context: Context, ada: Actor
) -> None:
    carol, password = await users.add(context, ada, "carol", Role.MEMBER)
    assert len(password) >= 20
    assert carol.quota == context.settings.default_quota
    assert await _can_sign_in(context, "carol", password)
    dave, chosen = await users.add(context, ada, "dave", Role.ADMIN, "correct horse battery")
    assert (dave.role, chosen) == (Role.ADMIN, "correct horse battery")
    assert await _can_sign_in(context, "dave", chosen)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "Alice",
        "root",
        "hutch",
        "x" * 33,
        "a b",
        "a/b",
        "..",
        "ä",
        "a\0",
        "a\n",
        "$x",
    ],
)
async def test_a_name_that_is_no_account_is_refused(
    context: Context, ada: Actor, name: str
) -> None:
    error = await _error(users.add(context, ada, name, Role.MEMBER))
    assert isinstance(error, InvalidNameError)


async def test_a_name_that_is_taken_is_refused_even_of_a_disabled_person(
    context: Context, ada: Actor
) -> None:
    await users.disable(context, ada, "bob")
    error = await _error(users.add(context, ada, "bob", Role.MEMBER))
    assert isinstance(error, NameTakenError)


@pytest.mark.parametrize(
    "password",
    ["", "short", "123456789", "aaaaaaaaaaaa", "password123", "Hutch12345!", "x" * 1025, "a\0" * 9,
     "\ud800" * 12, "abc\ndefghijkl"],
)  # fmt: skip
async def test_a_weak_password_is_refused_without_repeating_it(
    context: Context, ada: Actor, password: str
) -> None:
    error = await _error(users.add(context, ada, "carol", Role.MEMBER, password))
    assert isinstance(error, WeakPasswordError)
    assert not password or password not in str(error.as_dict())


@pytest.mark.parametrize(
    "doing", ["add", "disable", "enable", "reset", "configure", "show", "list"]
)
async def test_only_administrators_keep_people(context: Context, alice: Actor, doing: str) -> None:
    calls: dict[str, Awaitable[Any]] = {
        "add": users.add(context, alice, "carol", Role.ADMIN),
        "disable": users.disable(context, alice, "bob"),
        "enable": users.enable(context, alice, "bob"),
        "reset": users.reset_password(context, alice, "ada"),
        "configure": users.configure(context, alice, "alice", role=Role.ADMIN),
        "show": users.show(context, alice, "bob"),
        "list": users.list_all(context, alice),
    }
    for name, call in calls.items():
        if name == doing:
            assert isinstance(await _error(call), ForbiddenError)
        else:
            call.close()  # type: ignore[attr-defined]


async def test_a_person_nobody_knows_is_not_found(context: Context, ada: Actor) -> None:
    for call in (
        users.show(context, ada, "nobody"),
        users.disable(context, ada, "nobody"),
        users.enable(context, ada, "x" * 10_000),
        users.reset_password(context, ada, ""),
        users.configure(context, ada, "../etc", cpus=1),
    ):
        assert isinstance(await _error(call), NotFoundError)


async def test_a_disabled_person_is_shut_out_until_enabled_and_keeps_everything(
    context: Context, alice: Actor, ada: Actor, passwords: dict[str, str]
) -> None:
    await instances.create(context, alice, Wish("first"))
    disabled = await users.disable(context, ada, "alice")
    assert disabled.disabled_at is not None
    assert not await _can_sign_in(context, "alice", passwords["alice"])
    _, held = await users.show(context, ada, "alice")
    assert held.instances == 1
    enabled = await users.enable(context, ada, "alice")
    assert enabled.disabled_at is None
    assert await _can_sign_in(context, "alice", passwords["alice"])


async def test_a_reset_ends_the_old_password_and_every_token(
    context: Context, alice: Actor, ada: Actor, passwords: dict[str, str]
) -> None:
    clear, _ = await tokens.create(context, alice, "laptop", Scope.FULL, None)
    for _ in range(context.settings.login_failures):
        await _error(tokens.login(context, "alice", "wrong", address="192.0.2.50"))
    password = await users.reset_password(context, ada, "alice")
    # Whoever forgot it has tried many times: the reset lets them in at once.
    assert await _can_sign_in(context, "alice", password)
    assert not await _can_sign_in(context, "alice", passwords["alice"])
    refused = await _error(tokens.authenticate(context, clear, address=None, request_id=None))
    assert isinstance(refused, BadTokenError)


async def test_one_changes_ones_own_password_by_knowing_the_old_one(
    context: Context, alice: Actor, passwords: dict[str, str]
) -> None:
    new = new_password()
    wrong = await _error(users.change_password(context, alice, "wrong", new))
    assert isinstance(wrong, BadLoginError)
    weak = await _error(users.change_password(context, alice, passwords["alice"], "weak"))
    assert isinstance(weak, WeakPasswordError)
    await users.change_password(context, alice, passwords["alice"], new)
    assert await _can_sign_in(context, "alice", new)
    assert not await _can_sign_in(context, "alice", passwords["alice"])


async def test_guessing_the_old_password_of_an_open_session_is_slowed_down_too(
    context: Context, alice: Actor
) -> None:
    seen = [
        type(await _error(users.change_password(context, alice, "wrong", new_password()))).__name__
        for _ in range(context.settings.login_failures + 2)
    ]
    assert (
        seen == ["BadLoginError"] * context.settings.login_failures + ["TooManyRequestsError"] * 2
    )


async def test_the_last_administrator_stays(context: Context, ada: Actor) -> None:
    for call in (
        users.disable(context, ada, "ada"),
        users.configure(context, ada, "ada", role=Role.MEMBER),
    ):
        assert isinstance(await _error(call), ConflictError)
    await users.add(context, ada, "grace", Role.ADMIN)
    await users.disable(context, ada, "grace")
    assert isinstance(await _error(users.disable(context, ada, "ada")), ConflictError)
    await users.enable(context, ada, "grace")
    await users.configure(context, ada, "ada", role=Role.MEMBER)
    await users.disable(context, ada, "ada")


async def test_a_quota_is_set_for_one_person_and_counts_at_the_next_creation(
    context: Context, alice: Actor, bob: Actor, ada: Actor
) -> None:
    changed = await users.configure(context, ada, "alice", instances=1, memory=8 * GiB)
    default = context.settings.default_quota
    assert changed.quota == replace(default, instances=1, memory=8 * GiB)
    await instances.create(context, alice, Wish("first"))
    error = await _error(instances.create(context, alice, Wish("second")))
    assert isinstance(error, QuotaExceededError)
    assert error.detail["resource"] == "instances"
    await instances.create(context, bob, Wish("first"))
    await instances.create(context, bob, Wish("second"))


async def test_a_quota_below_what_is_held_takes_nothing_away(
    context: Context, alice: Actor, ada: Actor
) -> None:
    await instances.create(context, alice, Wish("first"))
    nothing = {"instances": 0, "cpus": 0, "memory": 0, "disk": 0, "accelerators": 0}
    await users.configure(context, ada, "alice", **nothing)
    assert len(await instances.list_all(context, alice)) == 1
    user, held = await users.me(context, alice)
    assert user.quota == Holding(0, 0, 0, 0)
    assert held.instances == 1
    error = await _error(instances.create(context, alice, Wish("second")))
    assert isinstance(error, QuotaExceededError)


@pytest.mark.parametrize("resource", ["instances", "cpus", "memory", "disk", "accelerators"])
@pytest.mark.parametrize("value", [-1, 2**63, 10**400])
async def test_a_quota_that_makes_no_sense_is_refused(
    context: Context, ada: Actor, resource: str, value: int
) -> None:
    error = await _error(users.configure(context, ada, "alice", **{resource: value}))
    assert isinstance(error, InvalidLimitError)
    assert resource in error.message


async def test_everyone_is_listed_with_what_they_hold(
    context: Context, alice: Actor, ada: Actor
) -> None:
    await instances.create(context, alice, Wish("first", cpus=3, memory=GiB, disk=2 * GiB))
    found = {user.name: held for user, held in await users.list_all(context, ada)}
    assert found == {
        "ada": Holding(0, 0, 0, 0),
        "alice": Holding(1, 3, GiB, 2 * GiB),
        "bob": Holding(0, 0, 0, 0),
    }
