"""What was read before a lock was waited for may no longer be true when it is had.

SQLite has no such moment, because a change there begins with its turn to write; PostgreSQL has.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hutch.domain.operations import Kind, Operation
from hutch.domain.people import Actor
from hutch.domain.sizes import GiB
from hutch.errors import QuotaExceededError
from hutch.services import instances
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.store import operations as stored_operations
from hutch.store import users as stored_users
from tests.lab import close_context, open_context

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
async def another(context: Context, database_url: str, tmp_path: Path) -> AsyncIterator[Context]:
    opened = open_context(database_url, tmp_path / "data")
    yield opened
    await close_context(opened)


async def _run(context: Context, statement: str) -> None:
    async with context.db.write() as session:
        await session.exec_driver_sql(statement)


async def _settle(context: Context) -> None:
    """As if everything asked for had been carried out."""
    await _run(context, "UPDATE operations SET state = 'done'")
    await _run(context, "UPDATE instances SET state = 'running'")


async def test_a_change_of_limits_counts_from_those_of_now(
    context: Context, another: Context, alice: Actor
) -> None:
    """8 to 2 by one, while another, who still reads 8, waits to be allowed 8 again."""
    quota = context.settings.quota_cpus
    await instances.create(context, alice, Wish("first", cpus=8))
    await instances.create(context, alice, Wish("second", cpus=quota - 8))
    await _settle(context)
    async with another.db.write() as session:
        await stored_users.lock_user(session, alice.user_id)
        waiting = asyncio.create_task(
            instances.configure(context, alice, "first", cpus=8, memory=5 * GiB)
        )
        await asyncio.sleep(0.2)  # until it waits for the lock, having read what it can
        await session.exec_driver_sql("UPDATE instances SET cpus = 2 WHERE name = 'first'")
        await session.exec_driver_sql("UPDATE instances SET cpus = cpus + 6 WHERE name = 'second'")
    with pytest.raises(QuotaExceededError):
        await waiting


async def test_a_deletion_during_a_creation_that_ends_at_that_moment_is_not_forgotten(
    context: Context, another: Context, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await instances.create(context, alice, Wish("first"))
    look = stored_operations.live_operation

    async def look_and_be_late(*arguments: object) -> Operation | None:
        found = await look(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(stored_operations, "live_operation", look)
        await _settle(another)
        return found

    monkeypatch.setattr(stored_operations, "live_operation", look_and_be_late)
    operation = await instances.delete(context, alice, "first")
    assert operation.kind == Kind.INSTANCE_DELETE
