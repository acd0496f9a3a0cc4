"""Signing in, tokens, and what slows a guesser down."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from hutch.domain.people import Actor, Role, Scope
from hutch.errors import (
    BadLoginError,
    BadTokenError,
    ForbiddenError,
    HutchError,
    InvalidLimitError,
    InvalidNameError,
    NotFoundError,
    TooManyRequestsError,
)
from hutch.services import events, tokens, users
from hutch.services.context import Context
from hutch.services.vault import new_password, new_token
from hutch.store import users as stored_users
from tests.lab import REAL_HASHER, REAL_NOBODY, Clock, with_settings

HERE = "192.0.2.7"


async def _sign_in(context: Context, name: str, password: str, address: str = HERE) -> str:
    token, _, _ = await tokens.login(context, name, password, address=address, request_id="r-1")
    return token


async def _who(context: Context, token: str) -> Actor:
    return await tokens.authenticate(context, token, address=HERE, request_id="r-2")


async def _error(doing: Awaitable[Any]) -> HutchError:
    with pytest.raises(HutchError) as caught:
        await doing
    return caught.value


async def test_a_name_and_a_password_become_a_token_that_acts_for_the_person(
    context: Context, alice: Actor, passwords: dict[str, str]
) -> None:
    clear, token, user = await tokens.login(
        context, "alice", passwords["alice"], address=HERE, request_id="r-1"
    )
    actor = await _who(context, clear)
    assert actor == Actor(alice.user_id, "alice", Role.MEMBER, Scope.FULL, token.id, HERE, "r-2")
    assert user.id == alice.user_id


async def test_every_reason_to_refuse_reads_the_same(
    context: Context, ada: Actor, passwords: dict[str, str]
) -> None:
    await users.disable(context, ada, "bob")
    refused = [
        await _error(_sign_in(context, name, password))
        for name, password in (
            ("alice", new_password()),
            ("nobody-by-this-name", passwords["alice"]),
            ("bob", passwords["bob"]),
            ("Alice", passwords["alice"]),
            ("alice", ""),
            ("", ""),
            ("alice", passwords["alice"] + " "),
            ("alice", "\ud800"),
        )
    ]
    assert {type(error) for error in refused} == {BadLoginError}
    assert len({str(error.as_dict()) for error in refused}) == 1


async def test_every_refusal_costs_one_hash(
    context: Context, ada: Actor, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured in work, not in seconds: who waits longer tells which names exist."""
    await users.disable(context, ada, "bob")
    hashed: list[str] = []
    matches = tokens._matches

    def count(hash_: str, password: str) -> bool:
        hashed.append(hash_.rpartition("$")[0].rpartition("$")[0])
        return matches(hash_, password)

    monkeypatch.setattr(tokens, "_matches", count)
    for name in ("alice", "bob", "nobody"):
        await _error(_sign_in(context, name, new_password()))
    await _error(_sign_in(context, "bob", passwords["bob"]))
    assert len(hashed) == 4
    assert len(set(hashed)) == 1, "the same algorithm with the same parameters"
    assert hashed[0].startswith("$argon2id$")


async def test_a_guesser_of_one_name_is_stopped_from_wherever_they_come(
    context: Context, alice: Actor, passwords: dict[str, str], clock: Clock
) -> None:
    clock.stop()
    strict = with_settings(context, login_failures=3)
    for number in range(3):
        guess = _sign_in(strict, "alice", new_password(), f"192.0.2.{number}")
        assert isinstance(await _error(guess), BadLoginError)
    error = await _error(_sign_in(strict, "alice", passwords["alice"], "192.0.2.200"))
    assert isinstance(error, TooManyRequestsError)
    assert 0 < error.retry_after <= context.settings.login_window_seconds + 1
    await _sign_in(strict, "bob", passwords["bob"], "192.0.2.200")
    clock.forward(seconds=error.retry_after)
    await _sign_in(strict, "alice", passwords["alice"], "192.0.2.200")


async def test_a_guesser_at_one_address_is_stopped_whatever_names_they_try(
    context: Context, alice: Actor, passwords: dict[str, str], clock: Clock
) -> None:
    clock.stop()
    strict = with_settings(context, login_failures=3)
    for name in ("root", "alice", "x" * 1000):
        await _error(_sign_in(strict, name, new_password()))
    error = await _error(_sign_in(strict, "alice", passwords["alice"]))
    assert isinstance(error, TooManyRequestsError)
    await _sign_in(strict, "alice", passwords["alice"], "192.0.2.200")
    # Signing in elsewhere does not make the guesser's address a good one.
    assert isinstance(await _error(_sign_in(strict, "bob", "")), TooManyRequestsError)


async def test_signing_in_forgives_earlier_mistakes_of_the_name(
    context: Context, alice: Actor, passwords: dict[str, str]
) -> None:
    strict = with_settings(context, login_failures=3)
    for number in range(8):
        await _error(_sign_in(strict, "alice", "", f"192.0.2.{number}"))
        await _sign_in(strict, "alice", passwords["alice"], "192.0.2.200")


async def test_guesses_sent_at_once_are_counted_as_those_sent_in_a_row(
    context: Context, alice: Actor
) -> None:
    strict = with_settings(context, login_failures=3)
    got = await asyncio.gather(
        *(_error(_sign_in(strict, "alice", new_password(), f"192.0.2.{n}")) for n in range(25))
    )
    looked_at = sum(isinstance(error, BadLoginError) for error in got)
    # Two are looked at at a time, so one may begin before another has been counted.
    assert 3 <= looked_at <= 4


async def test_many_people_at_one_address_may_sign_in_at_once(
    context: Context, alice: Actor, passwords: dict[str, str]
) -> None:
    strict = with_settings(context, login_failures=2)
    names = ["alice", "bob", "ada"] * 3
    await asyncio.gather(*(_sign_in(strict, name, passwords[name]) for name in names))


async def test_a_clock_that_is_set_back_locks_nobody_out(
    context: Context, alice: Actor, passwords: dict[str, str], clock: Clock
) -> None:
    clock.stop()
    strict = with_settings(context, login_failures=2)
    for _ in range(2):
        await _error(_sign_in(strict, "alice", ""))
    assert isinstance(await _error(_sign_in(strict, "alice", "")), TooManyRequestsError)
    clock.back(days=400)
    await _sign_in(strict, "alice", passwords["alice"])


async def test_a_failed_sign_in_is_recorded_without_what_was_typed(
    context: Context, ada: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    typed, secret_name = new_password(), new_password()
    with caplog.at_level(logging.DEBUG):
        await _error(_sign_in(context, "alice", typed))
        # Somebody typed their password into the field for the name.
        await _error(_sign_in(context, secret_name, typed))
    found = await events.list_all(context, ada, action="user.login")
    assert [(e.target_name, e.result, e.address, e.request_id) for e in found] == [
        ("(unknown)", "refused", HERE, "r-1"),
        ("alice", "refused", HERE, "r-1"),
    ]
    async with context.db.read() as session:
        counted = (await session.exec_driver_sql("SELECT * FROM login_failures")).all()
    assert len(counted) == 4
    for secret in (typed, secret_name):
        assert secret not in repr(found) + repr(counted) + caplog.text


@pytest.mark.parametrize(
    "token", ["", "x", "hutch_", "hutch_" + "x" * 1000, "Bearer x", "hutch_ä\0", "hutch_\ud800"]
)
async def test_what_is_no_token_is_refused(context: Context, token: str) -> None:
    assert isinstance(await _error(_who(context, token)), BadTokenError)


async def test_a_token_of_somebodys_making_is_refused(context: Context, alice: Actor) -> None:
    assert isinstance(await _error(_who(context, new_token())), BadTokenError)


async def test_a_sign_in_ends_after_its_days(
    context: Context, alice: Actor, passwords: dict[str, str], clock: Clock
) -> None:
    clock.stop()
    token = await _sign_in(context, "alice", passwords["alice"])
    clock.forward(days=context.settings.login_days, seconds=-1)
    await _who(context, token)
    clock.forward(seconds=1)
    assert isinstance(await _error(_who(context, token)), BadTokenError)


async def test_a_token_works_until_it_expires_or_is_revoked(
    context: Context, alice: Actor, clock: Clock
) -> None:
    clock.stop()
    short, _ = await tokens.create(context, alice, "short", Scope.FULL, days=1)
    endless, kept = await tokens.create(context, alice, "endless", Scope.FULL, days=None)
    for clear in (short, endless):
        assert (await _who(context, clear)).user_id == alice.user_id
    clock.forward(days=1)
    assert isinstance(await _error(_who(context, short)), BadTokenError)
    clock.forward(days=4000)
    await _who(context, endless)
    await tokens.revoke(context, alice, kept.id)
    assert isinstance(await _error(_who(context, endless)), BadTokenError)


async def test_a_reading_token_reads_and_nothing_else(context: Context, ada: Actor) -> None:
    clear, _ = await tokens.create(context, ada, "monitoring", Scope.READ, days=None)
    reader = await _who(context, clear)
    assert await users.list_all(context, reader)
    for doing in (
        users.add(context, reader, "carol", Role.MEMBER),
        tokens.create(context, reader, "more", Scope.FULL, None),
        tokens.revoke(context, reader, str(reader.token_id)),
        users.change_password(context, reader, "old", new_password()),
    ):
        assert isinstance(await _error(doing), ForbiddenError)


async def test_a_disabled_persons_tokens_end_and_do_not_come_back(
    context: Context, alice: Actor, ada: Actor
) -> None:
    clear, _ = await tokens.create(context, alice, "laptop", Scope.FULL, None)
    await users.disable(context, ada, "alice")
    assert isinstance(await _error(_who(context, clear)), BadTokenError)
    await users.enable(context, ada, "alice")
    assert isinstance(await _error(_who(context, clear)), BadTokenError)


async def test_another_persons_token_is_as_if_it_were_not_there(
    context: Context, alice: Actor, bob: Actor, ada: Actor
) -> None:
    clear, token = await tokens.create(context, alice, "laptop", Scope.FULL, None)
    missing = await _error(tokens.revoke(context, bob, "0" * 16))
    refused = await _error(tokens.revoke(context, bob, token.id))
    assert isinstance(refused, NotFoundError)
    assert refused.message.replace(token.id, "x") == missing.message.replace("0" * 16, "x")
    assert await tokens.list_all(context, bob) == []
    await _who(context, clear)
    await tokens.revoke(context, ada, token.id)
    assert isinstance(await _error(_who(context, clear)), BadTokenError)


@pytest.mark.parametrize("days", [0, -1, 3651, 10**12])
async def test_a_token_for_a_time_that_makes_no_sense_is_refused(
    context: Context, alice: Actor, days: int
) -> None:
    error = await _error(tokens.create(context, alice, "laptop", Scope.FULL, days))
    assert isinstance(error, InvalidLimitError)


@pytest.mark.parametrize("title", ["", "x" * 65, "a\nb", "a\0b", "\ud800", "<script>"])
async def test_a_token_with_a_title_that_cannot_be_shown_is_refused(
    context: Context, alice: Actor, title: str
) -> None:
    error = await _error(tokens.create(context, alice, title, Scope.FULL, 1))
    assert isinstance(error, InvalidNameError)


async def test_when_a_token_was_last_used_is_known_to_some_minutes(
    context: Context, alice: Actor, clock: Clock
) -> None:
    clock.stop()
    clear, token = await tokens.create(context, alice, "laptop", Scope.FULL, None)

    async def used() -> object:
        [found] = await tokens.list_all(context, alice)
        return found.last_used_at

    assert token.last_used_at is None
    assert await used() is None
    first = clock()
    await _who(context, clear)
    assert await used() == first
    clock.forward(minutes=4)
    await _who(context, clear)
    assert await used() == first, "not written at every request"
    later = clock.forward(minutes=2)
    await _who(context, clear)
    assert await used() == later
    earlier = clock.back(days=1)
    await _who(context, clear)
    assert await used() == earlier, "a clock that was set back"


async def test_only_a_digest_of_a_token_is_kept(
    context: Context, alice: Actor, database_url: str
) -> None:
    clear, _ = await tokens.create(context, alice, "laptop", Scope.FULL, None)
    async with context.db.read() as session:
        rows = await session.exec_driver_sql("SELECT * FROM tokens")
        assert clear not in repr(rows.all())
        assert clear.removeprefix("hutch_") not in repr(rows)


@pytest.mark.parametrize("change", ["reset", "disable"])
async def test_who_is_shut_out_while_signing_in_gets_no_token(
    context: Context,
    alice: Actor,
    ada: Actor,
    passwords: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """The old password was right when it was looked at, and is not when the token is written."""
    verify = tokens._verify

    async def verify_slowly(*arguments: Any, **named: Any) -> None:
        await verify(*arguments, **named)
        if change == "reset":
            await users.reset_password(context, ada, "alice")
        else:
            await users.disable(context, ada, "alice")
            await users.enable(context, ada, "alice")
            await users.disable(context, ada, "alice")

    monkeypatch.setattr(tokens, "_verify", verify_slowly)
    assert isinstance(await _error(_sign_in(context, "alice", passwords["alice"])), BadLoginError)
    assert await tokens.list_all(context, alice) == []


def test_passwords_are_hashed_as_the_standard_says() -> None:
    """The tests use a cheaper one; this is the product's (RFC 9106, section 4)."""
    assert REAL_HASHER.type is Type.ID
    assert REAL_HASHER.time_cost >= 3
    assert REAL_HASHER.memory_cost >= 64 * 1024
    assert tokens._hasher is not REAL_HASHER


def test_the_hash_that_no_password_has_costs_as_much_as_a_real_one() -> None:
    real = extract_parameters(PasswordHasher().hash(new_password()))
    assert extract_parameters(REAL_NOBODY) == real


async def test_signing_in_takes_as_long_for_a_name_that_nobody_has(
    context: Context, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roughly: the sure test is the one that counts hashes."""
    hasher = PasswordHasher(time_cost=1, memory_cost=32 * 1024, parallelism=1)
    monkeypatch.setattr(tokens, "_hasher", hasher)
    monkeypatch.setattr(tokens, "_NOBODY", hasher.hash(new_password()))
    async with context.db.write() as session:
        await stored_users.update_user(
            session, alice.user_id, password_hash=hasher.hash(new_password())
        )
    loop = asyncio.get_running_loop()

    async def time_of(name: str) -> float:
        times: list[float] = []
        for number in range(4):
            begun = loop.time()
            await _error(_sign_in(context, name, new_password(), f"192.0.2.{number}"))
            times.append(loop.time() - begun)
        return min(times)

    known, unknown = await time_of("alice"), await time_of("nobody")
    assert known / 3 < unknown < known * 3
