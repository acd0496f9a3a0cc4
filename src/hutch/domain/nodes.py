"""Nodes: the servers that run instances."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hutch.domain.groups import IdlePolicy
from hutch.domain.limits import Limits
from hutch.errors import NodeTooSmallError


class NodeState(StrEnum):
    ACTIVE = "active"
    CORDONED = "cordoned"
    """Runs what it runs, takes nothing new."""


class EngineKind(StrEnum):
    INCUS = "incus"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node has in all."""

    cpus: int
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    name: str
    engine: EngineKind
    url: str
    """Where its engine listens: `unix:///path/to/socket`, `https://host:8443`, or for the
    simulated engine `file:///path/to/its/state`."""
    project: str
    pool: str
    network: str
    subnet: str
    """IPv4 network of the instances' bridge in CIDR form; its first address is the gateway."""
    address: str
    """The address at which people reach the node, where instances' ports are forwarded."""
    state: NodeState
    capacity: Capacity
    disk_used: int
    version: str
    boot_id: str
    """Changes when the engine's daemon or the node restarts."""
    seen_at: datetime | None
    unreachable_since: datetime | None
    created_at: datetime
    agent_seen_at: datetime | None = None
    """When its agent last said something; None: it has none."""
    agent_version: str | None = None
    idle: IdlePolicy | None = None
    """When idle accelerators here are taken back, unless the group says; None: as in the lab."""
    agent_silent_since: datetime | None = None
    has_nvidia_driver: bool = False
    """Whether instances made here can be given the libraries of its NVIDIA driver."""


@dataclass(frozen=True, slots=True)
class Overcommit:
    """How many times a node's capacity may be promised in all."""

    cpus: float
    memory: float
    disk: float


def check_fits(node: Node, limits: Limits) -> None:
    """Raise NodeTooSmallError when one instance asks for more than the whole node has."""
    for name in ("cpus", "memory", "disk"):
        if getattr(limits, name) > getattr(node.capacity, name):
            raise NodeTooSmallError(node.name, name, getattr(node.capacity, name))


def has_room(
    capacity: Capacity, promised: Capacity, limits: Limits, overcommit: Overcommit
) -> bool:
    """Whether `limits` fit beside what is already promised on a node."""
    return (
        promised.cpus + limits.cpus <= capacity.cpus * overcommit.cpus
        and promised.memory + limits.memory <= capacity.memory * overcommit.memory
        and promised.disk + limits.disk <= capacity.disk * overcommit.disk
    )
