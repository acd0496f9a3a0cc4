"""Nodes, images, instances and what belongs to them, as rows."""

import asyncio
import ipaddress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hutch.domain.instances import ContainerRole, Drift, InstanceState
from hutch.domain.limits import Limits
from hutch.domain.nodes import Capacity, Node, NodeState
from hutch.domain.ports import RESERVED_ADDRESSES
from hutch.domain.sizes import GiB
from hutch.domain.snapshots import SnapshotKind, SnapshotState
from hutch.errors import NameTakenError, NoAddressLeftError, NoPortLeftError
from hutch.store import containers, images, instances, keys, nodes, ports, snapshots
from hutch.store.db import Database
from tests.store import rows

SECOND = timedelta(seconds=1)


async def test_a_node_comes_back_as_it_was_added(database: Database) -> None:
    async with database.write() as session:
        node = await rows.add_node(session, "node1")
        other = await rows.add_node(session, "node0", state=NodeState.CORDONED, seen_at=None)
        assert await nodes.get_node(session, node.id) == node
        assert await nodes.find_node(session, "node0") == other
        assert await nodes.find_node(session, "nothing") is None
        assert await nodes.get_node(session, "nothing") is None
        assert await nodes.list_nodes(session) == [other, node]
        await nodes.update_node(session, node.id, disk_used=2**50, unreachable_since=rows.NOW)
        changed = replace(node, disk_used=2**50, unreachable_since=rows.NOW)
        assert await nodes.get_node(session, node.id) == changed
    with pytest.raises(NameTakenError):
        async with database.write() as session:
            await rows.add_node(session, "node1")


async def test_a_node_has_promised_what_its_instances_may_use(database: Database) -> None:
    async with database.write() as session:
        alice, image = await rows.add_user(session), await rows.add_image(session)
        node, _empty = await rows.add_node(session, "a"), await rows.add_node(session, "b")
        for name in ("first", "second", "failed"):
            made = await rows.add_instance(
                session, alice, node, image, name, limits=Limits(2, GiB, 2**50, 100)
            )
        assert await nodes.promised(session) == {node.id: Capacity(6, 3 * GiB, 3 * 2**50)}
        await instances.set_state(session, made, InstanceState.FAILED)
        assert await nodes.promised(session) == {node.id: Capacity(4, 2 * GiB, 2 * 2**50)}


async def test_an_image_comes_back_as_it_was_added(database: Database) -> None:
    async with database.write() as session:
        base, other = await rows.add_image(session), await rows.add_image(session, "another")
        assert await images.get_image(session, base.id) == base
        assert await images.find_image(session, "another") == other
        assert await images.find_image(session, "nothing") is None
        assert await images.get_image(session, "nothing") is None
        await images.update_image(session, base.id, pool_size=3)
        assert await images.list_images(session) == [other, replace(base, pool_size=3)]
    with pytest.raises(NameTakenError):
        async with database.write() as session:
            await rows.add_image(session, "base")


@pytest.fixture
async def made(database: Database) -> dict[str, Any]:
    async with database.write() as session:
        alice, bob = await rows.add_user(session, "alice"), await rows.add_user(session, "bob")
        node, other = await rows.add_node(session, "node1"), await rows.add_node(session, "node2")
        image = await rows.add_image(session)
        first = await rows.add_instance(session, alice, node, image, "first")
        second = await rows.add_instance(session, alice, other, image, "second")
        third = await rows.add_instance(session, bob, node, image, "first")
    return {
        "alice": alice, "bob": bob, "node": node, "other": other, "image": image,
        "first": first, "second": second, "third": third,
    }  # fmt: skip


async def test_an_instance_knows_the_names_around_it(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.read() as session:
        found = await instances.get_instance(session, made["second"])
        by_name = await instances.find_instance(session, made["alice"].id, "second")
        nothing = await instances.find_instance(session, made["bob"].id, "second")
        secret = await instances.host_secret(session, made["second"])
    assert found is not None
    assert (found.owner_name, found.node_name, found.image_name) == ("alice", "node2", "base")
    assert (found.ssh_host, found.ssh_port) == ("192.0.2.1", 22001)
    assert found.limits == rows.LIMITS
    assert found.state is InstanceState.CREATING
    assert found.keys_version == -1
    assert found.created_at == rows.NOW
    assert by_name == found
    assert nothing is None
    assert secret == b"sealed"
    assert "sealed" not in repr(found)


async def test_a_name_is_taken_once_per_owner(database: Database, made: dict[str, Any]) -> None:
    with pytest.raises(NameTakenError):
        async with database.write() as session:
            await rows.add_instance(session, made["bob"], made["other"], made["image"], "first")


async def test_instances_are_listed_by_owner_node_and_page(
    database: Database, made: dict[str, Any]
) -> None:
    async def ids(**wanted: Any) -> list[str]:
        async with database.read() as session:
            return [one.id for one in await instances.list_instances(session, **wanted)]

    assert await ids() == [made["first"], made["second"], made["third"]]
    assert await ids(owner_id=made["alice"].id) == [made["first"], made["second"]]
    assert await ids(node_id=made["node"].id) == [made["first"], made["third"]]
    assert await ids(owner_id="nobody") == []
    in_order = sorted([made["first"], made["second"], made["third"]])
    assert await ids(limit=2) == in_order[:2]
    assert await ids(limit=2, after=in_order[1]) == in_order[2:]


async def test_an_instances_columns_are_changed_one_by_one(
    database: Database, made: dict[str, Any]
) -> None:
    drift = Drift("stopped-by-hand", "It was stopped outside hutch.", rows.NOW)
    limits = Limits(4, 8 * GiB, 40 * GiB, 2000)
    async with database.write() as session:
        await instances.set_state(session, made["first"], InstanceState.RUNNING)
        await instances.set_limits(session, made["first"], limits)
        await instances.set_drift(session, made["first"], drift)
        found = await instances.get_instance(session, made["first"])
        assert found is not None
        assert (found.state, found.limits, found.drift) == (InstanceState.RUNNING, limits, drift)
        await instances.set_drift(session, made["first"], None)
        found = await instances.get_instance(session, made["first"])
        assert found is not None
        assert found.drift is None
        assert await instances.count_by_state(session) == {"running": 1, "creating": 2}
        other = await instances.get_instance(session, made["second"])
        assert other is not None
        assert other.limits == rows.LIMITS


async def test_running_instances_behind_their_owners_keys_are_found(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        assert await instances.behind_on_keys(session) == []
        for name in ("first", "third"):
            await instances.set_state(session, made[name], InstanceState.RUNNING)
            await instances.update_instance(session, made[name], keys_version=0)
        assert await instances.behind_on_keys(session) == []
        await keys.add_key(session, rows.key(made["alice"]))
        behind = await instances.behind_on_keys(session)
        assert behind == [(made["first"], made["alice"].id, "first")]


async def test_a_deleted_instance_frees_its_name_and_port(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        await snapshots.add_snapshot(session, rows.snapshot(made["first"]))
        await instances.delete_instance(session, made["first"])
        assert await instances.get_instance(session, made["first"]) is None
        assert await ports.list_ports(session, made["first"]) == []
        assert await snapshots.list_snapshots(session, made["first"]) == []
        await rows.add_instance(session, made["alice"], made["node"], made["image"], "first")
        again = await instances.find_instance(session, made["alice"].id, "first")
        assert again is not None
        assert again.ssh_port == 22000


async def test_the_lowest_port_that_nobody_has_is_given(
    database: Database, made: dict[str, Any]
) -> None:
    async def give(name: str, target: int, **range_: Any) -> int:
        async with database.write() as session:
            return await ports.allocate_port(session, made["first"], name, target, **range_)

    assert await give("web", 80, first=22000, last=22010, avoid=frozenset({22003, 22004})) == 22005
    assert await give("low", 81, first=22000, last=22010) == 22003
    with pytest.raises(NoPortLeftError):
        await give("none", 82, first=22000, last=22003)
    async with database.read() as session:
        found = await ports.list_ports(session, made["first"])
    assert [(port.name, port.host_port, port.target_port) for port in found] == [
        ("ssh", 22000, 22), ("low", 22003, 81), ("web", 22005, 80),
    ]  # fmt: skip


async def test_addresses_are_given_until_a_node_has_none(
    database: Database, made: dict[str, Any]
) -> None:
    async with database.write() as session:
        small = await rows.add_node(session, "small", subnet="10.9.0.0/28")
        hosts = list(ipaddress.IPv4Network("10.9.0.0/28").hosts())[RESERVED_ADDRESSES - 1 :]
        given = [await rows.add_container(session, small, made["image"]) for _ in hosts]
        assert [container.address for container in given] == [str(host) for host in hosts]
        with pytest.raises(NoAddressLeftError):
            await rows.add_container(session, small, made["image"])
        await containers.delete_container(session, given[1].id)
        again = await rows.add_container(session, small, made["image"])
        assert again.address == given[1].address


async def test_the_oldest_ready_container_of_the_pool_is_taken(
    database: Database, made: dict[str, Any]
) -> None:
    node, image = made["node"], made["image"]
    async with database.write() as session:
        other_image = await rows.add_image(session, "other")
        await rows.add_container(session, node, image)
        await rows.add_container(session, node, other_image, ready=True)
        await rows.add_container(session, made["other"], image, ready=True)
        newer = await rows.add_container(session, node, image, ready=True, at=rows.NOW + SECOND)
        older = await rows.add_container(session, node, image, ready=True)
        assert await containers.count_pool(session, node.id, image.id) == 3
        taken = await containers.take_from_pool(session, node.id, image.id, made["first"])
        assert taken == replace(older, role=ContainerRole.CURRENT, instance_id=made["first"])
        assert await containers.current(session, made["first"]) == taken
        second = await containers.take_from_pool(session, node.id, image.id, made["third"])
        assert second is not None
        assert second.id == newer.id
        assert await containers.take_from_pool(session, node.id, image.id, made["second"]) is None
        assert await containers.count_pool(session, node.id, image.id) == 1


async def test_two_takers_never_get_the_same_container(
    database_url: str, made: dict[str, Any]
) -> None:
    """Two servers, one container left, many times."""
    one, other = Database(database_url), Database(database_url)
    node: Node = made["node"]
    for _ in range(15):
        async with one.write() as session:
            left = await rows.add_container(session, node, made["image"], ready=True)
        both = asyncio.Barrier(2)

        async def take(database: Database, instance_id: str, both: asyncio.Barrier = both) -> Any:
            await both.wait()
            async with database.write() as session:
                return await containers.take_from_pool(
                    session, node.id, made["image"].id, instance_id
                )

        taken = await asyncio.gather(take(one, made["first"]), take(other, made["third"]))
        assert [container.id for container in taken if container] == [left.id]
        async with one.write() as session:
            await containers.delete_container(session, left.id)
    await one.close()
    await other.close()


async def test_containers_are_found_by_role_and_node(
    database: Database, made: dict[str, Any]
) -> None:
    node, image, first = made["node"], made["image"], made["first"]
    async with database.write() as session:
        current = await rows.add_container(session, node, image, ContainerRole.CURRENT, first)
        incoming = await rows.add_container(
            session, node, image, ContainerRole.INCOMING, first, at=rows.NOW + SECOND
        )
        elsewhere = await rows.add_container(
            session, made["other"], image, at=rows.NOW + 2 * SECOND
        )
        assert await containers.of_role(session, first, ContainerRole.INCOMING) == incoming
        assert await containers.of_role(session, first, ContainerRole.OUTGOING) is None
        assert await containers.get_container(session, current.id) == current
        assert await containers.get_container(session, "nothing") is None
        everything = [current, incoming, elsewhere]
        assert await containers.list_containers(session) == everything
        assert await containers.list_containers(session, node_id=node.id) == everything[:2]
        await containers.set_role(session, current.id, ContainerRole.OUTGOING)
        await containers.set_role(session, incoming.id, ContainerRole.CURRENT)
        assert await containers.current(session, first) == replace(
            incoming, role=ContainerRole.CURRENT
        )


async def test_snapshots_are_named_once_per_instance_and_counted(
    database: Database, made: dict[str, Any]
) -> None:
    monday = rows.snapshot(made["first"])
    tuesday = rows.snapshot(made["first"], "tuesday", created_at=rows.NOW + SECOND)
    back = rows.snapshot(
        made["first"], "back", kind=SnapshotKind.BEFORE_RESTORE, created_at=rows.NOW - SECOND
    )
    async with database.write() as session:
        for added in (monday, tuesday, back, rows.snapshot(made["second"])):
            await snapshots.add_snapshot(session, added)
        assert await snapshots.list_snapshots(session, made["first"]) == [back, monday, tuesday]
        assert await snapshots.count_manual(session, made["first"]) == 2
        await snapshots.set_state(session, monday.id, SnapshotState.DELETING)
        found = await snapshots.find_snapshot(session, made["first"], "monday")
        assert found == replace(monday, state=SnapshotState.DELETING)
        await snapshots.delete_snapshot(session, monday.id)
        assert await snapshots.find_snapshot(session, made["first"], "monday") is None
        await snapshots.delete_all(session, made["first"])
        assert await snapshots.list_snapshots(session, made["first"]) == []
        assert len(await snapshots.list_snapshots(session, made["second"])) == 1
    with pytest.raises(NameTakenError):
        async with database.write() as session:
            await snapshots.add_snapshot(session, rows.snapshot(made["second"]))
