"""A lab of many people and simulated instances, put into an empty database through the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.instances import Container, ContainerRole, InstanceState
from hutch.domain.limits import Holding, Limits
from hutch.domain.nodes import Capacity, EngineKind, Node, NodeState
from hutch.domain.operations import Kind, Operation, OperationState
from hutch.domain.people import Role, Scope, Token, User
from hutch.engine.base import ContainerSpec, Forward
from hutch.engine.simulated import SimulatedEngine
from hutch.operations.machine import SSH_FORWARD
from hutch.services.context import Context
from hutch.services.hostkeys import new_host_key
from hutch.services.instances import SSH_TARGET_PORT
from hutch.services.vault import digest, new_token
from hutch.store import containers, images, instances, nodes, operations, ports, tokens, users
from hutch.store.db import Session

LIMITS = Limits(cpus=2, memory=4 * 1024**3, disk=20 * 1024**3, processes=8192)
_ROOM = Capacity(cpus=4096, memory=64 * 1024**4, disk=1024 * 1024**4)
_QUOTA = Holding(100, 1000, 1024**4, 100 * 1024**4)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a token, and the names of their instances."""

    name: str
    token: str
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Population:
    administrator: Person
    members: tuple[Person, ...]


def make_node(engine_state: Path, at: datetime, name: str = "node1") -> Node:
    """A simulated node with room for everyone."""
    return Node(
        id=new_id(),
        name=name,
        engine=EngineKind.SIMULATED,
        url=f"file://{engine_state}",
        project="hutch",
        pool="hutch",
        network="hutchbr0",
        subnet="10.180.0.0/16",
        address="192.0.2.1",
        state=NodeState.ACTIVE,
        capacity=_ROOM,
        disk_used=0,
        version="simulated",
        boot_id="first",
        seen_at=at,
        unreachable_since=None,
        created_at=at,
    )


async def settle(context: Context, engine_state: Path, people: int, instances_: int) -> Population:
    """Everyone, with running instances dealt out evenly, in the database and in the engine."""
    at = context.now()
    node = make_node(engine_state, at)
    image = Image(new_id(), "base", "", 0, at)
    engine = SimulatedEngine(engine_state)
    async with context.db.write() as session:
        await nodes.add_node(session, node)
        await images.add_image(session, image)
        administrator = await _add_person(session, "ada", Role.ADMIN, at)
        everyone = [
            await _add_person(session, f"person{number}", Role.MEMBER, at)
            for number in range(people)
        ]
    owned: dict[str, list[str]] = {user.id: [] for user, _ in everyone}
    for number in range(instances_):
        user, _ = everyone[number % people]
        name = f"box{number // people}"
        owned[user.id].append(name)
        async with context.db.write() as session:
            spec = await _add_instance(context, session, user, name, node, image, at)
        await engine.create(spec, start=True)
    await engine.close()
    members = tuple(Person(user.name, token, tuple(owned[user.id])) for user, token in everyone)
    return Population(Person(administrator[0].name, administrator[1], ()), members)


async def _add_person(session: Session, name: str, role: Role, at: datetime) -> tuple[User, str]:
    user = User(new_id(), name, role, None, at, 0, _QUOTA)
    await users.add_user(session, user, None)
    await users.update_user(
        session,
        user.id,
        quota_instances=_QUOTA.instances,
        quota_cpus=_QUOTA.cpus,
        quota_memory=_QUOTA.memory,
        quota_disk=_QUOTA.disk,
    )
    clear = new_token()
    # Used just now: writing down that it was used is for the first request after minutes only.
    token = Token(new_id(), user.id, "bench", Scope.FULL, at, None, None)
    await tokens.add_token(session, token, digest(clear))
    return user, clear


async def _add_instance(
    context: Context,
    session: Session,
    user: User,
    name: str,
    node: Node,
    image: Image,
    at: datetime,
) -> ContainerSpec:
    instance_id = new_id()
    host_key, host_secret = new_host_key()
    await instances.add_instance(
        session,
        instance_id=instance_id,
        owner_id=user.id,
        name=name,
        node_id=node.id,
        image_id=image.id,
        limits=LIMITS,
        host_key=host_key,
        host_secret=context.vault.seal(host_secret),
        at=at,
    )
    port = await ports.allocate_port(
        session,
        instance_id,
        instances.SSH,
        SSH_TARGET_PORT,
        first=context.settings.ssh_port_first,
        last=context.settings.ssh_port_last,
    )
    container = await containers.add_container(
        session, node, image.id, ContainerRole.CURRENT, at, instance_id
    )
    await instances.set_state(session, instance_id, InstanceState.RUNNING)
    await operations.add_operation(session, _creation(user, instance_id, name, at))
    return _spec(context, node, container, port)


def _spec(context: Context, node: Node, container: Container, port: int) -> ContainerSpec:
    return ContainerSpec(
        name=container.engine_name,
        image="base",
        limits=LIMITS,
        address=container.address,
        labels={"lab": context.vault.lab, "container": container.id},
        forwards=(Forward(SSH_FORWARD, node.address, port, SSH_TARGET_PORT),),
    )


def _creation(user: User, instance_id: str, name: str, at: datetime) -> Operation:
    """The ended operation that every instance leaves behind."""
    return Operation(
        id=new_id(),
        kind=Kind.INSTANCE_CREATE.value,
        target=f"instance:{instance_id}",
        owner_id=user.id,
        params={"instance": instance_id, "pooled": False, "label": name},
        data={},
        state=OperationState.DONE,
        step="answer",
        undoing=False,
        cancel_requested=False,
        attempts=0,
        run_at=at,
        lease_token=None,
        lease_until=None,
        progress=1.0,
        message="Done",
        error=None,
        created_by=user.name,
        request_id=None,
        created_at=at,
        finished_at=at,
    )


def write_plan(file: Path, plan: object) -> None:
    """For the load generator. It names tokens: readable by its owner alone."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(plan))
