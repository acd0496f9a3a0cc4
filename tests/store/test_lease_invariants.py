"""Nobody holds what another one holds: the database says so by itself, shown by plain inserts."""

from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.ids import new_id
from hutch.domain.leases import LeaseState
from hutch.errors import ConflictError
from hutch.store import leases, tables
from hutch.store.db import Database, violated
from tests.leases import add_accelerators
from tests.store import rows


def _lease(owner: Any, node: Any, state: LeaseState = LeaseState.ACTIVE) -> dict[str, Any]:
    return {
        "id": new_id(),
        "instance_id": new_id(),
        "instance_name": "box",
        "owner_id": owner.id,
        "node_id": node.id,
        "count": 1,
        "seconds": 3600,
        "state": state.value,
        "requested_at": rows.NOW,
    }


@pytest.fixture
async def made(database: Database) -> dict[str, Any]:
    """A node with two accelerators, and two leases of one person."""
    async with database.write() as session:
        alice = await rows.add_user(session, "alice")
        node = await rows.add_node(session, "node1")
        gpus = await add_accelerators(session, node, 2, rows.NOW)
        two = [_lease(alice, node), _lease(alice, node)]
        await session.execute(insert(tables.leases), two)
    return {"node": node, "gpus": gpus, "leases": [each["id"] for each in two]}


def _holding(
    made: dict[str, Any], *, lease: int = 0, gpu: int = 0, slot: int = 0, over: bool = False
) -> Any:
    return insert(tables.holdings).values(
        id=new_id(),
        lease_id=made["leases"][lease],
        accelerator_id=made["gpus"][gpu],
        slot=slot,
        since=rows.NOW,
        until=rows.NOW if over else None,
    )


async def _do(database: Database, *statements: Any) -> None:
    async with database.write() as session:
        for statement in statements:
            await session.execute(statement)


async def _refused(database: Database, statement: Any) -> str:
    """The constraint that a statement collides with."""
    with pytest.raises(IntegrityError) as caught:
        await _do(database, statement)
    return violated(caught.value)


async def _held(database: Database) -> int:
    async with database.read() as session:
        query = select(func.count()).where(tables.holdings.c.until.is_(None))
        return (await session.execute(query)).scalar_one()


async def test_a_place_of_an_accelerator_has_one_holder(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, _holding(made), _holding(made, gpu=1))
    for lease in (0, 1):
        assert "holdings" in await _refused(database, _holding(made, lease=lease))
    assert await _held(database) == 2


async def test_several_may_hold_it_each_in_a_place_of_their_own(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, _holding(made), _holding(made, lease=1, slot=1))
    assert "holdings" in await _refused(database, _holding(made, lease=1, slot=1))


async def test_whoever_held_it_before_is_in_nobodys_way(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, *(_holding(made, over=True) for _ in range(3)), _holding(made, lease=1))
    assert await _held(database) == 1


async def test_what_was_let_go_cannot_be_held_again_beside_the_next(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, _holding(made, over=True), _holding(made, lease=1))
    again = update(tables.holdings).values(until=None)
    assert "holdings" in await _refused(database, again)


async def test_a_holder_cannot_move_into_the_place_of_another(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, _holding(made), _holding(made, lease=1, gpu=1))
    for values in ({"accelerator_id": made["gpus"][0]}, {"accelerator_id": made["gpus"][1]}):
        assert "holdings" in await _refused(database, update(tables.holdings).values(values))


async def test_without_the_index_two_would_hold_one_and_this_is_seen(
    database: Database, made: dict[str, Any]
) -> None:
    """That the tests above fail when the index is not there."""
    async with database.write() as session:
        await session.exec_driver_sql("DROP INDEX uq_holdings_held")
    await _do(database, _holding(made), _holding(made, lease=1))
    assert await _held(database) == 2


async def test_who_is_refused_one_of_several_gets_none_of_them(
    database: Database, made: dict[str, Any]
) -> None:
    first, second = made["leases"]
    async with database.write() as session:
        await leases.hold(session, first, {made["gpus"][1]: 0}, rows.NOW)
    with pytest.raises(ConflictError):
        async with database.write() as session:
            await leases.hold(session, second, dict.fromkeys(made["gpus"], 0), rows.NOW)
    assert await _held(database) == 1


async def test_what_is_held_and_who_holds_it_cannot_be_removed(
    database: Database, made: dict[str, Any]
) -> None:
    await _do(database, _holding(made))
    for table in (tables.accelerators, tables.leases, tables.nodes, tables.users):
        await _refused(database, delete(table))
    nobodys = update(tables.holdings).values
    for column in ("lease_id", "accelerator_id"):
        await _refused(database, nobodys({column: "nobody"}))


async def test_an_accelerator_is_in_a_node_once(database: Database, made: dict[str, Any]) -> None:
    same = update(tables.accelerators).values(address="0000:3b:00.0")
    assert "accelerators" in await _refused(database, same)


async def test_the_history_of_a_machine_outlives_it(
    database: Database, made: dict[str, Any]
) -> None:
    """A lease does not refer to the instance's row: there is none of that name here at all."""
    async with database.read() as session:
        assert len(await leases.list_live(session)) == 2
        assert (await session.execute(select(tables.instances))).all() == []
