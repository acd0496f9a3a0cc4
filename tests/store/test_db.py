"""Transactions: atomic, in turn, and clear about a database that is gone."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, select, text

from hutch.errors import DatabaseUnavailableError, HutchError, InvalidInputError
from hutch.store import db, migrate, tables, users
from hutch.store.db import Database, lock
from tests.postgresql import Server
from tests.store import rows

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


async def _names(database: Database) -> list[str]:
    async with database.read() as session:
        return [user.name for user in await users.list_users(session, rows.QUOTA)]


async def test_a_write_is_kept_when_its_block_ends(database: Database) -> None:
    async with database.write() as session:
        await rows.add_user(session, "alice")
    assert await _names(database) == ["alice"]


async def test_a_write_is_undone_whole_by_any_exception(database: Database) -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - what is in the block is tested
        async with database.write() as session:
            await rows.add_user(session, "alice")
            raise KeyError
    assert await _names(database) == []


async def test_a_write_that_is_cancelled_is_undone_and_holds_nothing_up(
    database: Database,
) -> None:
    """At every moment of it: a person's connection may break at any."""
    for number in range(30):

        async def write(name: str = f"user-{number}") -> None:
            async with database.write() as session:
                await rows.add_user(session, name)
                await rows.add_user(session, f"{name}-too")

        task = asyncio.create_task(write())
        for _ in range(number):
            await asyncio.sleep(0)
        await asyncio.sleep(number * 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with database.write() as session:
        await rows.add_user(session, "last")
    names = await _names(database)
    assert "last" in names
    assert all((name + "-too") in names for name in names if name[-1].isdigit())


async def test_cancelled_reads_give_their_connections_back(database: Database) -> None:
    async def read() -> None:
        async with database.read() as session:
            await users.list_users(session, rows.QUOTA)

    for number in range(40):
        tasks = [asyncio.create_task(read()) for _ in range(4)]
        await asyncio.sleep(number * 0.0002)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*(read() for _ in range(8))), 10)


async def test_a_reader_sees_what_was_committed_and_waits_for_no_writer(
    database: Database,
) -> None:
    async with database.write() as session:
        await rows.add_user(session, "alice")
        assert await _names(database) == []
    assert await _names(database) == ["alice"]


async def test_a_reader_cannot_begin_a_transaction_that_holds_up_writers(
    database: Database,
) -> None:
    async with database.read() as session:
        await session.execute(select(tables.users))
        async with database.write() as writer:
            await rows.add_user(writer, "alice")
        # Each statement of a reader sees what is committed by then.
        assert await users.find_user(session, "alice", rows.QUOTA) is not None


async def test_whoever_takes_a_lock_has_it_alone_until_the_transaction_ends(
    database_url: str,
) -> None:
    one, other = Database(database_url), Database(database_url)
    order: list[str] = []
    holding = asyncio.Event()

    async def first() -> None:
        async with one.write() as session:
            await lock(session, "ports")
            holding.set()
            await asyncio.sleep(0.05)
            order.append("first ends")

    async def second() -> None:
        await holding.wait()
        async with other.write() as session:
            await lock(session, "ports")
            order.append("second begins")

    await asyncio.gather(first(), second())
    assert order == ["first ends", "second begins"]
    await one.close()
    await other.close()


@only_postgresql
async def test_locks_of_different_names_do_not_wait_for_each_other(database: Database) -> None:
    async with asyncio.timeout(5), database.write() as one, database.write() as other:
        await lock(one, "ports")
        await lock(other, "placement")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, tzinfo=datetime.now().astimezone().tzinfo),
    ],
)
async def test_a_moment_comes_back_to_the_microsecond_in_utc(
    database: Database, moment: datetime
) -> None:
    async with database.write() as session:
        added = await rows.add_user(session, created_at=moment)
        found = await users.get_user(session, added.id, rows.QUOTA)
    assert found is not None
    assert found.created_at == moment
    assert found.created_at.utcoffset() == timedelta(0)


async def test_a_moment_without_a_zone_is_a_mistake(database: Database) -> None:
    with pytest.raises(HutchError) as caught:
        async with database.write() as session:
            await rows.add_user(session, created_at=datetime(2026, 1, 1))  # noqa: DTZ001
    assert "offset-naive" in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 100_000])
async def test_text_that_a_database_cannot_take_is_the_askers_mistake(
    database: Database, name: str
) -> None:
    found = None
    with suppress(InvalidInputError):
        async with database.read() as session:
            found = await users.find_user(session, name, rows.QUOTA)
    assert found is None


async def test_a_number_that_a_database_cannot_take_is_the_askers_mistake(
    database: Database,
) -> None:
    with pytest.raises(InvalidInputError):  # noqa: PT012 - what is in the block is tested
        async with database.write() as session:
            added = await rows.add_user(session)
            await users.update_user(session, added.id, quota_memory=2**70)


_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.rollback()
"""


@only_sqlite
async def test_a_file_that_another_process_locks_is_unavailable_until_it_is_free(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.3)
    database = Database(database_url)
    file = database_url.removeprefix("sqlite:///")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, file],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with database.write() as session:
            await rows.add_user(session)
    assert time.monotonic() - begun < 3
    assert caught.value.hint
    assert "locked" in str(caught.value.__cause__)
    assert await _names(database) == [], "whoever reads does not wait"
    holder.communicate()
    async with database.write() as session:
        await rows.add_user(session)
    assert await _names(database) == ["alice"]
    await database.close()


@only_sqlite
async def test_a_file_that_is_not_there_is_unavailable(tmp_path: Path, database_url: str) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/hutch.db")
    with pytest.raises(DatabaseUnavailableError):
        await _names(database)
    await database.close()


@only_sqlite
async def test_writers_of_one_server_queue_for_longer_than_the_files_lock_waits(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.2)
    database = Database(database_url)

    async def write(number: int) -> None:
        async with database.write() as session:
            await rows.add_user(session, f"user-{number}")
            await asyncio.sleep(0.05)

    await asyncio.gather(*(write(number) for number in range(10)))
    assert len(await _names(database)) == 10
    await database.close()


async def test_a_server_that_is_gone_is_unavailable_and_used_again_when_it_is_back(
    stoppable_server: Server,
) -> None:
    url = stoppable_server.url(stoppable_server.create())
    migrate.upgrade(url)
    database = Database(url)
    async with database.write() as session:
        await rows.add_user(session, "before")
    stoppable_server.stop()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError) as caught:
            async with asyncio.timeout(10), database.write() as session:
                await rows.add_user(session, "meanwhile")
        assert "meanwhile" not in str(caught.value.as_dict())
        with pytest.raises(DatabaseUnavailableError):
            await _names(database)
    stoppable_server.start()
    async with database.write() as session:
        await rows.add_user(session, "after")
    assert await _names(database) == ["after", "before"]
    stoppable_server.stop(at_once=True)
    stoppable_server.start()
    assert await _names(database) == ["after", "before"]

    # Gone in the middle of a transaction.
    with pytest.raises(DatabaseUnavailableError):  # noqa: PT012 - what is in the block is tested
        async with database.write() as session:
            await rows.add_user(session, "halfway")
            stoppable_server.stop(at_once=True)
            await rows.add_user(session, "never")
    stoppable_server.start()
    assert await _names(database) == ["after", "before"]
    await database.close()


@only_postgresql
async def test_a_lock_that_is_never_given_up_is_not_waited_for_without_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOCK_SECONDS", 0.2)
    one, other = Database(database_url), Database(database_url)
    async with one.write() as holder:
        await lock(holder, "ports")
        with pytest.raises(DatabaseUnavailableError):
            async with asyncio.timeout(5), other.write() as session:
                await lock(session, "ports")
    await one.close()
    await other.close()


@only_postgresql
async def test_a_server_that_hangs_in_the_middle_of_a_change_loses_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "IDLE_SECONDS", 1)
    one, other = Database(database_url), Database(database_url)
    with pytest.raises(DatabaseUnavailableError):  # noqa: PT012 - what is in the block is tested
        async with one.write() as hanging:
            await lock(hanging, "ports")
            async with asyncio.timeout(10), other.write() as session:
                await lock(session, "ports")
            await rows.add_user(hanging, "late")
    assert await _names(one) == []
    await one.close()
    await other.close()


@only_postgresql
async def test_writers_who_wait_for_each_other_are_told_to_try_again(database: Database) -> None:
    met = asyncio.Barrier(2)

    async def take(*names: str) -> str:
        try:
            async with database.write() as session:
                await lock(session, names[0])
                await met.wait()
                await lock(session, names[1])
        except DatabaseUnavailableError:
            return "refused"
        return "done"

    got = await asyncio.gather(take("ports", "placement"), take("placement", "ports"))
    assert sorted(got) == ["done", "refused"]


async def test_a_mistake_in_a_statement_is_not_called_an_unavailable_database(
    database: Database,
) -> None:
    with pytest.raises(Exception, match="nonsense") as caught:
        async with database.write() as session:
            await session.execute(text("SELECT nonsense FROM users"))
    assert not isinstance(caught.value, HutchError)


@only_sqlite
async def test_sqlite_keeps_what_it_confirmed_and_watches_references(database: Database) -> None:
    async with database.write() as session:
        for pragma, value in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            assert (await session.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value


async def test_only_what_need_not_be_durable_does_not_wait_for_the_disk(
    database: Database,
) -> None:
    query, fast, safe = "SHOW synchronous_commit", "off", "on"
    if database.is_sqlite:
        query, fast, safe = "PRAGMA synchronous", 1, 2

    async def waits(durable: bool) -> bool:
        async with database.write(durable=durable) as session:
            told = (await session.exec_driver_sql(query)).scalar_one()
        assert told in (fast, safe)
        return told == safe

    # One connection serves both, also after one that was broken off.
    assert [await waits(each) for each in (True, False, False, True)] == [True, False, False, True]
    with pytest.raises(ZeroDivisionError):
        async with database.write(durable=False):
            raise ZeroDivisionError
    assert await waits(True)


@only_sqlite
async def test_sqlite_takes_the_write_lock_before_anything_is_read(database: Database) -> None:
    seen: list[str] = []

    @event.listens_for(database._writer.sync_engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    async with database.write() as session:
        await users.list_users(session, rows.QUOTA)
    assert seen[0] == "BEGIN IMMEDIATE"


def test_the_driver_is_new_enough_to_return_what_it_changed() -> None:
    assert sqlite3.sqlite_version_info >= (3, 35), "UPDATE … RETURNING"
