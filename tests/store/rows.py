"""Valid rows, as a test needs them: what it does not name is filled in."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.instances import Container, ContainerRole
from hutch.domain.limits import Holding, Limits
from hutch.domain.nodes import Capacity, EngineKind, Node, NodeState
from hutch.domain.operations import Operation, OperationState
from hutch.domain.people import Role, SshKey, User
from hutch.domain.ports import OpenTo, Port, PortState, Protocol, Reach
from hutch.domain.sizes import GiB
from hutch.domain.snapshots import Snapshot, SnapshotKind, SnapshotState
from hutch.store import containers, images, instances, nodes, operations, ports, users
from hutch.store.db import Session

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
QUOTA = Holding(5, 16, 64 * GiB, 500 * GiB)
LIMITS = Limits(2, 4 * GiB, 20 * GiB, 1000)


def user(name: str = "alice", **changes: Any) -> User:
    return replace(User(new_id(), name, Role.MEMBER, None, NOW, 0, QUOTA), **changes)


def key(owner: User, **changes: Any) -> SshKey:
    made = SshKey(
        id=new_id(),
        user_id=owner.id,
        title="laptop",
        type="ssh-ed25519",
        public=f"ssh-ed25519 {new_id()}",
        fingerprint=f"SHA256:{new_id()}",
        created_at=NOW,
    )
    return replace(made, **changes)


def node(name: str = "node1", **changes: Any) -> Node:
    made = Node(
        id=new_id(),
        name=name,
        engine=EngineKind.SIMULATED,
        url="file:///nowhere",
        project="hutch",
        pool="hutch",
        network="hutchbr0",
        subnet="10.180.0.0/24",
        address="192.0.2.1",
        state=NodeState.ACTIVE,
        capacity=Capacity(64, 256 * GiB, 4096 * GiB),
        disk_used=0,
        version="1",
        boot_id="first",
        seen_at=NOW,
        unreachable_since=None,
        created_at=NOW,
    )
    return replace(made, **changes)


def image(name: str = "base", **changes: Any) -> Image:
    return replace(Image(new_id(), name, "A plain Debian", 0, NOW), **changes)


def operation(target: str = "instance:1", **changes: Any) -> Operation:
    made = Operation(
        id=new_id(),
        kind="instance_start",
        target=target,
        owner_id=None,
        params={"instance": "1"},
        data={},
        state=OperationState.PENDING,
        step="",
        undoing=False,
        cancel_requested=False,
        attempts=0,
        run_at=NOW,
        lease_token=None,
        lease_until=None,
        progress=0.0,
        message="Waiting to begin",
        error=None,
        created_by="alice",
        request_id="request-1",
        created_at=NOW,
        finished_at=None,
    )
    return replace(made, **changes)


def snapshot(instance_id: str, name: str = "monday", **changes: Any) -> Snapshot:
    made = Snapshot(new_id(), instance_id, name, SnapshotKind.MANUAL, SnapshotState.READY, NOW)
    return replace(made, **changes)


async def add_user(session: Session, name: str = "alice", **changes: Any) -> User:
    made = user(name, **changes)
    await users.add_user(session, made, None)
    return made


async def add_node(session: Session, name: str = "node1", **changes: Any) -> Node:
    made = node(name, **changes)
    await nodes.add_node(session, made)
    return made


async def add_image(session: Session, name: str = "base", **changes: Any) -> Image:
    made = image(name, **changes)
    await images.add_image(session, made)
    return made


async def add_instance(
    session: Session,
    owner: User,
    where: Node,
    base: Image,
    name: str = "first",
    *,
    limits: Limits = LIMITS,
    port: bool = True,
) -> str:
    """An instance in creation with its SSH port; its id."""
    instance_id = new_id()
    await instances.add_instance(
        session,
        instance_id=instance_id,
        owner_id=owner.id,
        name=name,
        node_id=where.id,
        image_id=base.id,
        limits=limits,
        host_key="ssh-ed25519 AAAA",
        host_secret=b"sealed",
        at=NOW,
    )
    if port:
        await ports.allocate_port(session, instance_id, instances.SSH, 22, first=22000, last=22999)
    return instance_id


async def add_container(
    session: Session,
    where: Node,
    base: Image,
    role: ContainerRole = ContainerRole.POOL,
    instance_id: str | None = None,
    *,
    ready: bool = False,
    at: datetime = NOW,
) -> Container:
    made = await containers.add_container(session, where, base.id, role, at, instance_id)
    if ready:
        await containers.set_ready(session, made.id)
    return replace(made, ready=ready)


async def add_operation(session: Session, target: str = "instance:1", **changes: Any) -> Operation:
    made = operation(target, **changes)
    await operations.add_operation(session, made)
    return made


def port(instance_id: str, host_port: int | None, reach: Reach = Reach.NETWORK) -> Port:
    """A port that is open to certain people; its target follows from its reach."""
    target = 8000 + list(Reach).index(reach)
    return Port(
        id=new_id(),
        instance_id=instance_id,
        name=f"tcp-{target}",
        protocol=Protocol.TCP,
        host_port=host_port,
        target_port=target,
        state=PortState.OPEN,
        reach=reach,
        open_to=OpenTo.PEOPLE,
        people=(),
        keeps_path=False,
        until=None,
        created_at=NOW,
    )
