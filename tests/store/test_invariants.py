"""What the database itself refuses, whatever the code above it does: shown by plain inserts."""

from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.ids import new_id
from hutch.domain.instances import ContainerRole
from hutch.domain.operations import ENDED, LIVE, OperationState
from hutch.domain.ports import Reach
from hutch.store import tables
from hutch.store.db import Database, Session, violated
from tests.store import rows


@pytest.fixture
async def made(database: Database) -> dict[str, Any]:
    """Two people with an instance each on one node, and a second node."""
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        node, other = await rows.add_node(session, "node1"), await rows.add_node(session, "node2")
        image = await rows.add_image(session)
        first = await rows.add_instance(session, alice, node, image, "first", port=False)
        second = await rows.add_instance(session, bob, node, image, "second", port=False)
        third = await rows.add_instance(session, bob, other, image, "third", port=False)
    return {
        "alice": alice, "bob": bob, "node": node, "other": other, "image": image,
        "first": first, "second": second, "third": third,
    }  # fmt: skip


async def _refused(database: Database, statement: Any) -> str:
    """The constraint that a statement collides with."""
    with pytest.raises(IntegrityError) as caught:
        async with database.write() as session:
            await session.execute(statement)
    return violated(caught.value)


def _port(
    instance_id: str, host_port: int | None, name: str = "ssh", protocol: str = "tcp",
    reach: Reach = Reach.NETWORK,
) -> Any:  # fmt: skip
    return insert(tables.ports).values(
        id=new_id(), instance_id=instance_id, name=name, protocol=protocol,
        host_port=host_port, target_port=22, reach=reach.value,
    )  # fmt: skip


async def test_a_host_port_leads_to_one_instance_over_all_nodes(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await session.execute(_port(made["first"], 22000))
        await session.execute(_port(made["first"], 22000, name="dns", protocol="udp"))
    assert "ports" in await _refused(database, _port(made["second"], 22000))
    assert "host_port" in await _refused(database, _port(made["third"], 22000))


async def test_one_host_port_leads_to_a_port_of_an_instance(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await session.execute(_port(made["first"], 22000))
        await session.execute(_port(made["second"], 22001))
    assert "ports" in await _refused(database, _port(made["first"], 22002, name="again"))


async def test_what_is_reached_in_a_browser_alone_has_no_host_port_and_all_else_has_one(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await session.execute(_port(made["first"], None, reach=Reach.WEB))
        await session.execute(_port(made["second"], None, reach=Reach.WEB))
    for host_port, reach in ((None, Reach.NETWORK), (None, Reach.NODE), (22000, Reach.WEB)):
        broken = await _refused(database, _port(made["third"], host_port, reach=reach))
        assert "host_port" in broken


async def test_an_instance_is_shared_once_with_a_person(
    database: Database, made: dict[str, Any]
) -> None:
    def share() -> Any:
        return insert(tables.shares).values(
            id=new_id(), instance_id=made["first"], user_id=made["bob"].id, read_only_view=False,
            created_at=rows.NOW,
        )  # fmt: skip

    async with database.write() as session:
        await session.execute(share())
    assert "shares" in await _refused(database, share())


async def test_an_instance_has_one_port_of_a_name(database: Database, made: dict[str, Any]) -> None:
    async with database.write() as session:
        await session.execute(_port(made["first"], 22000))
    assert "ports" in await _refused(database, _port(made["first"], 22001))


def _container(
    made: dict[str, Any],
    *,
    address: str = "10.180.0.10",
    node: str = "node",
    role: ContainerRole = ContainerRole.POOL,
    instance: str | None = None,
    **changes: Any,
) -> Any:
    values = {
        "id": new_id(),
        "node_id": made[node].id,
        "engine_name": f"hutch-{new_id()[:8]}",
        "address": address,
        "image_id": made["image"].id,
        "role": role.value,
        "instance_id": made[instance] if instance else None,
        "ready": False,
        "created_at": rows.NOW,
    }
    return insert(tables.containers).values(values | changes)


async def test_an_address_belongs_to_one_container_of_a_node(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await session.execute(_container(made))
        await session.execute(_container(made, node="other"))
    assert "containers" in await _refused(database, _container(made))


async def test_an_engine_name_is_used_once_over_all_nodes(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await session.execute(_container(made, engine_name="hutch-1"))
    again = _container(made, node="other", engine_name="hutch-1")
    assert "engine_name" in await _refused(database, again)


async def test_an_instance_lives_in_one_container(database: Database, made: dict[str, Any]) -> None:
    current, incoming, outgoing = (
        ContainerRole.CURRENT, ContainerRole.INCOMING, ContainerRole.OUTGOING,
    )  # fmt: skip
    async with database.write() as session:
        for number, role in enumerate((current, incoming, outgoing, outgoing)):
            await session.execute(
                _container(made, role=role, instance="first", address=f"10.180.0.{20 + number}")
            )
        await session.execute(
            _container(made, role=current, instance="second", address="10.180.0.30")
        )
    second = _container(made, role=current, instance="first", address="10.180.0.31")
    assert "containers" in await _refused(database, second)
    switch = (
        update(tables.containers)
        .where(tables.containers.c.role == incoming.value)
        .values(role=current.value)
    )
    assert "containers" in await _refused(database, switch)


def _operation(state: OperationState, target: str = "instance:1") -> Any:
    operation = rows.operation(target, state=state)
    values = {name: getattr(operation, name) for name in operation.__slots__}
    return insert(tables.operations).values(values | {"state": state.value})


@pytest.mark.parametrize("first", sorted(LIVE))
@pytest.mark.parametrize("second", sorted(LIVE))
async def test_a_target_has_one_live_operation(
    database: Database, first: OperationState, second: OperationState
) -> None:
    async with database.write() as session:
        await session.execute(_operation(first))
        await session.execute(_operation(first, "instance:2"))
    assert "operations" in await _refused(database, _operation(second))


async def test_a_target_has_any_number_of_ended_operations(database: Database) -> None:
    async with database.write() as session:
        for state in [*ENDED, *ENDED, OperationState.PENDING]:
            await session.execute(_operation(state))


async def test_an_ended_operation_cannot_come_back_beside_a_live_one(database: Database) -> None:
    async with database.write() as session:
        await session.execute(_operation(OperationState.DONE))
        await session.execute(_operation(OperationState.RUNNING))
    back = update(tables.operations).values(state=OperationState.PENDING.value)
    assert "operations" in await _refused(database, back)


async def _add_key(session: Session, owner: Any, fingerprint: str) -> None:
    key = rows.key(owner, fingerprint=fingerprint)
    values = {name: getattr(key, name) for name in key.__slots__}
    await session.execute(insert(tables.ssh_keys).values(values))


async def test_a_key_belongs_to_one_person(database: Database, made: dict[str, Any]) -> None:
    async with database.write() as session:
        await _add_key(session, made["alice"], "SHA256:same")
    for owner in ("alice", "bob"):
        with pytest.raises(IntegrityError) as caught:
            async with database.write() as session:
                await _add_key(session, made[owner], "SHA256:same")
        assert "ssh_keys" in violated(caught.value)
        assert "fingerprint" in violated(caught.value)


async def test_names_are_taken_once(database: Database, made: dict[str, Any]) -> None:
    async with database.write() as session:
        # Another person may call theirs the same.
        await rows.add_instance(session, made["bob"], made["node"], made["image"], "first")
    for table, values in (
        (tables.users, {"name": "bob"}),
        (tables.nodes, {"name": "node2"}),
    ):
        refused = await _refused(
            database, update(table).where(table.c.name != values["name"]).values(values)
        )
        assert table.name in refused
    mine = update(tables.instances).where(tables.instances.c.owner_id == made["bob"].id)
    assert "instances" in await _refused(database, mine.values(name="mine"))


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("instances", "owner_id"),
        ("instances", "node_id"),
        ("instances", "image_id"),
        ("ports", "instance_id"),
        ("containers", "node_id"),
        ("containers", "instance_id"),
        ("containers", "image_id"),
        ("snapshots", "instance_id"),
        ("ssh_keys", "user_id"),
        ("tokens", "user_id"),
    ],
)
async def test_a_row_refers_to_what_there_is(
    database: Database, made: dict[str, Any], table: str, column: str
) -> None:
    async with database.write() as session:
        await session.execute(_port(made["first"], 22000))
        await session.execute(_container(made, instance="first"))
        snapshot = rows.snapshot(made["first"])
        await session.execute(
            insert(tables.snapshots).values(
                {name: getattr(snapshot, name) for name in snapshot.__slots__}
            )
        )
        await _add_key(session, made["alice"], "SHA256:one")
        await session.execute(
            insert(tables.tokens).values(
                id=new_id(), user_id=made["alice"].id, title="t", scope="full", digest=b"d" * 32,
                created_at=rows.NOW,
            )
        )  # fmt: skip
    changed = tables.metadata.tables[table]
    await _refused(database, update(changed).values({column: "nobody"}))


async def test_what_is_still_used_cannot_be_removed(
    database: Database, made: dict[str, Any]
) -> None:
    for table in (tables.users, tables.nodes, tables.images):
        await _refused(database, table.delete())
    async with database.write() as session:
        await session.execute(_container(made, instance="first"))
    gone = tables.instances.delete().where(tables.instances.c.id == made["first"])
    await _refused(database, gone)
