"""A lab whose machines exist in the database and in the simulated engine, and clocks to turn."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest_asyncio

from hutch.domain.events import Event
from hutch.domain.ids import new_id
from hutch.domain.instances import Container, ContainerRole, Desired, Instance, InstanceState
from hutch.domain.nodes import Node
from hutch.domain.operations import ENDED, Kind, Operation, OperationState
from hutch.domain.people import SYSTEM, Actor
from hutch.engine.base import ContainerSpec, Forward, Observed
from hutch.engine.simulated import SimulatedEngine
from hutch.operations.machine import SSH_FORWARD
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import containers, events, images, instances, nodes, operations, ports
from hutch.store.db import Session
from hutch.store.tables import operations as operations_table
from tests.lab import Clock, Lab


class Monotonic:
    """Seconds since some moment, which pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ssh_forward(node: Node, instance: Instance) -> Forward:
    """The forward of an instance's SSH port, as the operations make it."""
    return Forward(SSH_FORWARD, node.address, instance.ssh_port, 22)


class World:
    """What there is, in the database and in the engine."""

    def __init__(self, context: Context, lab: Lab, clock: Clock) -> None:
        self.context = context
        self.lab = lab
        self.clock = clock
        self.monotonic = Monotonic()
        engine = context.engines.of(lab.node)
        assert isinstance(engine, SimulatedEngine)
        self.engine = engine

    def wait(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.monotonic.seconds += seconds
        self.clock.forward(seconds=seconds)

    async def node(self) -> Node:
        async with self.context.db.read() as session:
            found = await nodes.get_node(session, self.lab.node.id)
        assert found is not None
        return found

    async def change_node(self, **values: Any) -> None:
        async with self.context.db.write() as session:
            await nodes.update_node(session, self.lab.node.id, **values)

    async def machine(self, owner: Actor, name: str, *, running: bool = True) -> Instance:
        """An instance at rest, as its creation leaves it."""
        power = "running" if running else "stopped"
        settings = self.context.settings
        instance_id, node = new_id(), await self.node()
        async with self.context.db.write() as session:
            await instances.add_instance(
                session,
                instance_id=instance_id,
                owner_id=owner.user_id,
                name=name,
                node_id=node.id,
                image_id=self.lab.image.id,
                limits=settings.default_limits,
                host_key="ssh-ed25519 AAAA",
                host_secret=self.context.vault.seal(b"secret"),
                at=self.context.now(),
            )
            await ports.allocate_port(
                session, instance_id, instances.SSH, 22, first=22000, last=29999
            )
            row = await containers.add_container(
                session,
                node,
                self.lab.image.id,
                ContainerRole.CURRENT,
                self.context.now(),
                instance_id,
            )
            await instances.update_instance(
                session, instance_id, state=power, desired=power, keys_version=0
            )
        instance = await self.instance(instance_id)
        forward = ssh_forward(node, instance)
        await self.engine.create(
            replace(self.spec(row), limits=instance.limits, forwards=(forward,)), start=running
        )
        return instance

    def spec(self, row: Container) -> ContainerSpec:
        return ContainerSpec(
            row.engine_name,
            "base",
            self.context.settings.default_limits,
            row.address,
            {"lab": self.context.vault.lab, "container": row.id},
        )

    async def pooled(self, *, ready: bool = True) -> Container:
        """A container of the pool."""
        async with self.context.db.write() as session:
            row = await containers.add_container(
                session,
                await self.node(),
                self.lab.image.id,
                ContainerRole.POOL,
                self.context.now(),
            )
            if ready:
                await containers.set_ready(session, row.id)
        await self.engine.create(self.spec(row), start=True)
        return replace(row, ready=ready)

    async def instance(self, instance_id: str) -> Instance:
        async with self.context.db.read() as session:
            found = await instances.get_instance(session, instance_id)
        assert found is not None
        return found

    async def drift(self, instance: Instance) -> str | None:
        known = await self.instance(instance.id)
        return None if known.drift is None else known.drift.code

    async def state(self, instance: Instance) -> tuple[InstanceState, Desired]:
        known = await self.instance(instance.id)
        return known.state, known.desired

    async def change(self, instance: Instance, **values: Any) -> None:
        async with self.context.db.write() as session:
            await instances.update_instance(session, instance.id, **values)

    async def container(self, instance: Instance) -> str:
        """The name of the container that an instance lives in."""
        async with self.context.db.read() as session:
            row = await containers.current(session, instance.id)
        assert row is not None
        return row.engine_name

    async def rows(self) -> list[Container]:
        async with self.context.db.read() as session:
            return await containers.list_containers(session)

    async def seen(self) -> list[Observed]:
        return await self.engine.containers()

    async def want_pool(self, size: int) -> None:
        async with self.context.db.write() as session:
            await images.update_image(session, self.lab.image.id, pool_size=size)

    async def events(self, action: str) -> list[Event]:
        async with self.context.db.read() as session:
            return await events.list_events(session, limit=5000, action=action)

    async def operations(self, *kinds: Kind) -> list[Operation]:
        async with self.context.db.read() as session:
            found = await operations.list_operations(session, limit=5000)
        return [each for each in found if each.kind in kinds]

    async def begin(self, kind: Kind, target: str, **params: Any) -> Operation:
        async with self.context.db.write() as session:
            return await enqueue(
                session,
                self.context,
                SYSTEM,
                kind,
                target,
                owner_id=None,
                label=target,
                params=params,
            )

    async def end(self, operation: Operation, state: OperationState = OperationState.DONE) -> None:
        values: dict[str, Any] = {"state": state.value}
        if state in ENDED:
            values["finished_at"] = self.context.now()
        async with self.context.db.write() as session:
            await session.execute(
                operations_table.update()
                .where(operations_table.c.id == operation.id)
                .values(**values)
            )


class WrittenError(BaseException):
    """Not an Exception: a reconciler logs those and goes on, and this is to end the test."""


class ReadOnly:
    """A database in which nothing may be written."""

    def __init__(self, context: Context) -> None:
        self.read: Callable[[], AbstractAsyncContextManager[Session]] = context.db.read

    def write(self) -> AbstractAsyncContextManager[Session]:
        raise WrittenError("nothing was to be written")


def read_only(context: Context) -> Context:
    return replace(context, db=ReadOnly(context))


@pytest_asyncio.fixture
async def world(context: Context, lab: Lab, clock: Clock) -> World:
    """A lab in which everything is as it should be."""
    made = World(context, lab, clock)
    status = await made.engine.status()
    await made.change_node(
        boot_id=status.boot_id,
        disk_used=status.disk_used,
        version=status.version,
        seen_at=context.now(),
    )
    return made
