"""Accelerators: the GPUs and other devices that nodes offer, and what an instance gets of one.

An accelerator is known by its address and its UUID, never by an index: an index changes when a
card is added, fails, or is found in another order after a boot.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Vendor(StrEnum):
    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"
    JETSON = "jetson"
    CORAL = "coral"
    SIMULATED = "simulated"


class Health(StrEnum):
    OK = "ok"
    FAILED = "failed"
    """It is there and says that it is broken: ECC errors, a driver that gave up on it."""
    MISSING = "missing"
    """It was there and no longer answers: fallen off the bus, or taken out."""
    UNKNOWN = "unknown"
    """Nobody on the node has said anything about it for a while."""


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device of the node's `/dev`."""

    path: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class FoundAccelerator:
    """An accelerator as the node it is in has found it."""

    address: str
    """PCI address `0000:3b:00.0`, or for what is not on that bus a name that stays over boots,
    such as `platform:17000000.gpu` or `simulated:0`."""
    vendor: Vendor
    model: str
    memory: int = 0
    """Bytes; 0 when it has none of its own, or does not tell."""
    uuid: str | None = None
    nodes: tuple[DeviceNode, ...] = ()
    """The device nodes that are this accelerator's alone: whoever has one open, uses it."""
    shared: tuple[DeviceNode, ...] = ()
    """The device nodes that it needs and shares with its kind, such as `/dev/kfd`."""
    health: Health = Health.OK
    reason: str = ""
    """Why it is not well."""

    def as_dict(self) -> dict[str, Any]:
        """As an agent tells it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator of the lab."""

    id: str
    node_id: str
    node_name: str
    found: FoundAccelerator
    """As its node last found it. `found.health` is UNKNOWN while the node's agent is silent."""
    withdrawn: str | None
    """Why an administrator took it out of service; None while it is in service."""
    sharers: int
    """How many leases may hold it at once: 1 is exclusive."""
    seen_at: datetime | None
    created_at: datetime

    @property
    def is_grantable(self) -> bool:
        """Whether it may be given to anyone at all."""
        return self.withdrawn is None and self.found.health is Health.OK


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has an accelerator open."""

    pid: int
    """On the node."""
    command: str
    container: str | None
    """The engine's name of the container it runs in; None for one of the node itself."""
    user: str = ""
    """The name of the account inside, or its number when that is not known."""
    memory: int = 0
    """Bytes of the accelerator's memory that it holds."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a node's agent answers when it was asked to do something about a container's devices."""

    processes: tuple[Process, ...] = ()
    """Those that were found to have one open, and asked or ended if that was the order."""
    is_shut: bool = False
    """Whether nobody in the container can open one of them anew, by whatever way to it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an accelerator was doing at one moment."""

    address: str
    utilisation: float | None
    """Share of the time since the last reading in which it computed, 0 to 1; None when it does
    not tell."""
    memory_used: int | None
    """Bytes."""
    temperature: float | None
    """Degrees Celsius."""
    power: float | None
    """Watts."""
    health: Health = Health.OK
    reason: str = ""
    processes: tuple[Process, ...] = field(default=())

    @classmethod
    def parse(cls, kept: Mapping[str, Any]) -> "Reading":
        """From what `as_dict` gave."""
        values = dict(kept)
        processes = tuple(Process(**each) for each in values.pop("processes"))
        return cls(health=Health(values.pop("health")), processes=processes, **values)

    def as_dict(self) -> dict[str, Any]:
        """As an agent tells it, and as it is kept."""
        return asdict(self)


class Verb(StrEnum):
    """What a node's agent is asked to do about the processes that have a device open."""

    SHUT = "shut"
    """Let nobody open it anew, and name those that have it open already."""
    ASK = "ask"
    """Ask them to end: SIGTERM."""
    END = "end"
    """End them: SIGKILL."""


@dataclass(frozen=True, slots=True)
class OpenedDevice:
    """A device as the processes inside a container open it."""

    major: int
    minor: int
    path: str
    """Its path inside. Devices of the same number, as the simulated ones are, differ by its last
    part."""
