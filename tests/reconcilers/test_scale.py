"""With 2,000 instances, a pass that finds nothing to do is cheap, and writes nothing."""

import statistics
import time
from dataclasses import replace

from hutch.domain.ids import new_id
from hutch.domain.instances import ContainerRole, InstanceState
from hutch.domain.operations import Kind
from hutch.domain.people import Actor
from hutch.engine.base import ContainerSpec
from hutch.reconcilers import Reconcilers
from hutch.reconcilers.instances import Instances
from hutch.reconcilers.settling import SETTLE_SECONDS
from hutch.store import instances
from hutch.store import tables as t
from tests.reconcilers.conftest import World, read_only, ssh_forward

MANY = 2000
SOME = 200
CPU_SECONDS = 0.5
"""Far above what a quiet machine needs (see the architecture's numbers), so that a busy one
passes too; a pass that asked something of each instance would take several seconds."""


async def fill(world: World, owner: Actor, many: int) -> None:
    """So many instances at rest, in a few statements."""
    limits = world.context.settings.default_limits
    rows: list[tuple[str, str, str, int]] = [
        (new_id(), f"hutch-{number:08x}", f"10.180.{number // 250}.{number % 250 + 1}", number)
        for number in range(many)
    ]
    at = world.context.now()
    async with world.context.db.write() as session:
        await session.execute(
            t.instances.insert(),
            [
                {
                    "id": key, "owner_id": owner.user_id, "name": f"box{number}",
                    "node_id": world.lab.node.id, "image_id": world.lab.image.id,
                    "state": "running", "desired": "running", "cpus": limits.cpus,
                    "memory": limits.memory, "disk": limits.disk, "processes": limits.processes,
                    "ssh_host_key": "ssh-ed25519 AAAA", "ssh_host_secret": b"", "keys_version": 0,
                    "created_at": at,
                }
                for key, _, _, number in rows
            ],
        )  # fmt: skip
        await session.execute(
            t.ports.insert(),
            [
                {
                    "id": new_id(), "instance_id": key, "name": instances.SSH, "protocol": "tcp",
                    "host_port": 22000 + number, "target_port": 22,
                }
                for key, _, _, number in rows
            ],
        )  # fmt: skip
        await session.execute(
            t.containers.insert(),
            [
                {
                    "id": new_id(), "node_id": world.lab.node.id, "engine_name": name,
                    "address": address, "image_id": world.lab.image.id,
                    "role": ContainerRole.CURRENT.value, "instance_id": key, "ready": False,
                    "created_at": at,
                }
                for key, name, address, _ in rows
            ],
        )  # fmt: skip
    one = await world.instance(rows[0][0])
    for _, name, address, number in rows:
        forward = replace(ssh_forward(world.lab.node, one), listen_port=22000 + number)
        spec = ContainerSpec(name, "base", limits, address, forwards=(forward,))
        await world.engine.create(spec, start=True)


async def test_a_pass_over_many_instances_is_cheap_and_writes_nothing(world: World, alice: Actor):
    await fill(world, alice, MANY)
    status = await world.engine.status()
    await world.change_node(disk_used=status.disk_used, seen_at=world.context.now())
    everything = Reconcilers(read_only(world.context))
    await everything.once()
    spent: list[float] = []
    for _ in range(5):
        started = time.process_time()
        await everything.once()
        spent.append(time.process_time() - started)
    await everything.close()
    print(f"one pass of all reconcilers: {statistics.median(spent) * 1000:.0f} ms of CPU")
    assert await world.events("") == []
    assert statistics.median(spent) < CPU_SECONDS


async def test_many_instances_are_brought_back_at_once(world: World, alice: Actor):
    await fill(world, alice, SOME)
    world.engine.reboot(restore=False)
    server = Instances(world.context, world.monotonic)
    await server.reconcile()
    world.wait(SETTLE_SECONDS + 1)
    started = time.process_time()
    await server.reconcile()
    spent = (time.process_time() - started) / SOME
    print(f"beginning one start: {spent * 1000:.1f} ms of CPU")
    assert len(await world.operations(Kind.INSTANCE_START)) == SOME
    async with world.context.db.read() as session:
        counted = await instances.count_by_state(session)
    assert counted == {InstanceState.STARTING.value: SOME}
