"""People, their keys and their tokens, as rows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hutch.domain.ids import new_id
from hutch.domain.instances import InstanceState
from hutch.domain.limits import Holding, Limits
from hutch.domain.people import Role, Scope, Token
from hutch.domain.sizes import GiB
from hutch.errors import KeyTakenError, NameTakenError
from hutch.store import instances, keys, tokens, users
from hutch.store.db import Database
from tests.store import rows

SECOND = timedelta(seconds=1)


async def test_a_person_is_found_by_id_and_by_name(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session, "alice")
        bob = await rows.add_user(session, "bob", role=Role.ADMIN)
    async with database.read() as session:
        assert await users.get_user(session, alice.id, rows.QUOTA) == alice
        assert await users.find_user(session, "bob", rows.QUOTA) == bob
        assert await users.find_user(session, "Alice", rows.QUOTA) is None
        assert await users.get_user(session, "nobody", rows.QUOTA) is None
        assert await users.list_users(session, rows.QUOTA) == [alice, bob]


async def test_a_name_is_taken_once(database: Database) -> None:
    async with database.write() as session:
        await rows.add_user(session, "alice")
    with pytest.raises(NameTakenError):
        async with database.write() as session:
            await rows.add_user(session, "alice")


async def test_what_a_persons_quota_does_not_say_the_lab_says(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session)
        await users.update_user(session, alice.id, quota_cpus=0, quota_disk=2**50)
        found = await users.get_user(session, alice.id, Holding(1, 2, 3, 4))
    assert found is not None
    assert found.quota == Holding(1, 0, 3, 2**50)


async def test_the_password_hash_is_apart_from_the_person(database: Database) -> None:
    async with database.write() as session:
        alice = rows.user()
        await users.add_user(session, alice, "$argon2id$…")
        assert await users.password_hash(session, alice.id) == "$argon2id$…"
        assert await users.password_hash(session, "nobody") is None
        assert "argon2" not in repr(await users.get_user(session, alice.id, rows.QUOTA))


async def test_only_administrators_who_can_sign_in_are_counted(database: Database) -> None:
    async with database.write() as session:
        await rows.add_user(session, "alice")
        await rows.add_user(session, "ada", role=Role.ADMIN)
        gone = await rows.add_user(session, "grace", role=Role.ADMIN)
        assert await users.count_admins(session) == 2
        await users.update_user(session, gone.id, disabled_at=rows.NOW)
        assert await users.count_admins(session) == 1


async def test_what_a_person_holds_is_the_sum_of_their_instances(database: Database) -> None:
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        node, image = await rows.add_node(session), await rows.add_image(session)
        small, large = Limits(1, GiB, 2 * GiB, 100), Limits(8, 2**45, 2**50, 100)
        await rows.add_instance(session, alice, node, image, "a", limits=small)
        await rows.add_instance(session, alice, node, image, "b", limits=large)
        assert await users.held(session, alice.id) == Holding(2, 9, GiB + 2**45, 2 * GiB + 2**50)
        assert await users.held(session, bob.id) == Holding(0, 0, 0, 0)
        assert set(await users.holdings(session)) == {alice.id}
        assert (await users.holdings(session))[alice.id] == await users.held(session, alice.id)


async def test_what_could_not_be_made_counts_as_one_that_uses_nothing(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session)
        node, image = await rows.add_node(session), await rows.add_image(session)
        failed = await rows.add_instance(session, alice, node, image)
        for state in InstanceState:
            await instances.set_state(session, failed, state)
            held = await users.held(session, alice.id)
            assert held.instances == 1
            assert (held.cpus > 0, held.memory > 0, held.disk > 0) == (
                3 * (state is not InstanceState.FAILED,)
            )
            assert await users.holdings(session) == {alice.id: held}


async def test_every_change_of_keys_makes_a_new_version_of_their_owner(database: Database) -> None:
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        first = rows.key(alice)
        second = rows.key(alice, created_at=rows.NOW + SECOND)
        for added in (second, first):
            await keys.add_key(session, added)
        assert await keys.list_keys(session, alice.id) == [first, second]
        assert await keys.get_key(session, first.id) == first
        assert await keys.count_keys(session, alice.id) == 2
        await keys.delete_key(session, first)
        assert await keys.get_key(session, first.id) is None
        found = await users.list_users(session, rows.QUOTA)
        assert [person.keys_version for person in found] == [3, 0]
        assert await keys.count_keys(session, bob.id) == 0


async def test_a_key_that_anyone_has_is_taken(database: Database) -> None:
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        mine = rows.key(alice)
        await keys.add_key(session, mine)
    for owner in (alice, bob):
        with pytest.raises(KeyTakenError):
            async with database.write() as session:
                await keys.add_key(session, rows.key(owner, fingerprint=mine.fingerprint))
    async with database.read() as session:
        assert await keys.count_keys(session, bob.id) == 0


def _token(user_id: str, **changes: object) -> Token:
    made = Token(new_id(), user_id, "laptop", Scope.FULL, rows.NOW, None, None)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_token_names_its_holder_until_it_expires(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session, role=Role.ADMIN)
        token = _token(alice.id, scope=Scope.READ, expires_at=rows.NOW + SECOND)
        await tokens.add_token(session, token, b"d" * 32)
        holder = (alice.id, "alice", Role.ADMIN, Scope.READ, token.id, None, None)
        assert await tokens.holder(session, b"d" * 32, rows.NOW) == holder
        assert await tokens.holder(session, b"d" * 32, rows.NOW + SECOND) is None
        assert await tokens.holder(session, b"e" * 32, rows.NOW) is None
        await tokens.touch_token(session, token.id, rows.NOW)
        found = await tokens.holder(session, b"d" * 32, rows.NOW)
        assert found is not None
        assert found[5] == rows.NOW


async def test_a_disabled_persons_token_names_nobody(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session)
        await tokens.add_token(session, _token(alice.id), b"d" * 32)
        await users.update_user(session, alice.id, disabled_at=rows.NOW)
        assert await tokens.holder(session, b"d" * 32, rows.NOW) is None


async def test_tokens_are_listed_and_removed_one_by_one_or_all(database: Database) -> None:
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        mine = [_token(alice.id, created_at=rows.NOW + n * SECOND) for n in range(3)]
        for number, token in enumerate([*mine, _token(bob.id)]):
            await tokens.add_token(session, token, bytes([number]) * 32)
        assert await tokens.list_tokens(session, alice.id) == mine
        await tokens.delete_token(session, mine[0].id)
        assert await tokens.get_token(session, mine[0].id) is None
        assert await tokens.get_token(session, mine[1].id) == mine[1]
        await tokens.delete_tokens_of(session, alice.id)
        assert await tokens.list_tokens(session, alice.id) == []
        assert len(await tokens.list_tokens(session, bob.id)) == 1


async def test_expired_tokens_are_swept_and_others_kept(database: Database) -> None:
    async with database.write() as session:
        alice = await rows.add_user(session)
        for number, expires in enumerate((None, rows.NOW - SECOND, rows.NOW + SECOND)):
            token = _token(alice.id, expires_at=expires)
            await tokens.add_token(session, token, bytes([number]) * 32)
        assert await tokens.delete_expired(session, rows.NOW) == 1
        assert len(await tokens.list_tokens(session, alice.id)) == 2


async def test_failed_sign_ins_are_counted_within_a_window(database: Database) -> None:
    subject, window = "name:alice", timedelta(minutes=5)
    async with database.write() as session:
        for seconds in (-400, -300, -299, -1, 0, 1):
            await tokens.add_failure(session, subject, rows.NOW + seconds * SECOND)
        await tokens.add_failure(session, "name:bob", rows.NOW)
        count = await tokens.count_failures(session, subject, rows.NOW - window, rows.NOW)
        # What is dated later than now was counted before the clock was set back.
        assert count == (3, rows.NOW - 299 * SECOND)
        await tokens.delete_failures(session, rows.NOW - window)
        everything = timedelta(days=1)
        count = await tokens.count_failures(
            session, subject, rows.NOW - everything, rows.NOW + everything
        )
        assert count[0] == 5
        await tokens.forget_failures(session, subject)
        assert await tokens.count_failures(session, subject, rows.NOW - window, rows.NOW) == (
            0,
            None,
        )
        assert (await tokens.count_failures(session, "name:bob", rows.NOW - window, rows.NOW))[0]
