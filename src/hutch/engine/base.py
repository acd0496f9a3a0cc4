"""The one protocol between hutch and whatever runs its containers.

Every method is safe to repeat. `create`, `start`, `stop`, `delete`, `snapshot`, `set_forward` and
the like mean "make it so": they return quietly when it is already so, because the caller may have
died between asking and learning the answer. A method returns only when the engine has finished.

Every method raises EngineUnavailableError when the engine does not answer (nothing is known about
the outcome; ask again), EngineNotFoundError when the container, snapshot or image is not there
(never from `delete*`, `remove_*` and `detach`), EngineConflictError when the engine is busy with
that container, and EngineError when it refused.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.limits import Limits
from hutch.engine.files import Files
from hutch.engine.streams import EngineStream
from hutch.engine.terminals import EngineTerminal
from hutch.errors import EngineError


class Power(StrEnum):
    """What a container is doing, as the engine sees it."""

    RUNNING = "running"
    STOPPED = "stopped"
    OTHER = "other"
    """Frozen, failing, in between: nothing that hutch ever asks for."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What an engine says of itself and its host."""

    version: str
    boot_id: str
    """Changes whenever the engine's daemon (or the host under it) has restarted."""
    cpus: int
    memory: int
    """Bytes."""
    disk: int
    """Bytes of the instances' storage pool, in all."""
    disk_used: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that is decided about a container before it exists."""

    name: str
    image: str
    """Alias of an image which the engine has."""
    limits: Limits
    address: str
    """Its IPv4 address on the bridge: fixed, and the only one it may use."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Kept with the container, so that it can be known without the database. Keys are a-z, 0-9
    and "-"; in Incus they are `user.hutch.<key>`."""
    forwards: "tuple[Forward, ...]" = ()
    """Host ports that lead to it from the first moment."""
    has_nvidia_driver: bool = False
    """Whether the node's NVIDIA driver libraries are put in at each start, so that they always
    match its kernel module and a GPU that is attached later needs only its device node."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A host port of the node that leads to a port of a container."""

    name: str
    """Unique within the container: a-z, 0-9 and '-'."""
    listen_address: str
    """An IPv4 address of the node. At its loopback only the node's own programs come in, and they
    arrive at the container's loopback; else everyone does who reaches the node, and they arrive at
    the container's address on the bridge."""
    listen_port: int
    target_port: int
    protocol: str = "tcp"
    """`tcp` or `udp`."""

    @property
    def is_local(self) -> bool:
        return self.listen_address.startswith("127.")


class DeviceKind(StrEnum):
    GPU = "gpu"
    """A graphics card by its PCI address: the engine adds the device nodes that its driver made."""
    CHAR = "char"
    """One character device of the node."""


@dataclass(frozen=True, slots=True)
class Device:
    """Something of the node's that a container may open while it has it."""

    name: str
    """Unique within the container: a-z, 0-9 and '-'."""
    kind: DeviceKind
    pci: str | None = None
    """The PCI address of a GPU."""
    source: str | None = None
    """The path of a character device on the node."""
    path: str | None = None
    """Its path inside; None: the same as on the node."""


_DEVICE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
_NODE_PATH = re.compile(r"/dev(/[A-Za-z0-9_+:@-][A-Za-z0-9._+:@-]*)+", re.ASCII)


def check_device_names(names: Sequence[str]) -> None:
    """Refuse what no engine takes as a device's name."""
    for name in names:
        if not _DEVICE_NAME.fullmatch(name):
            raise EngineError(f"{name[:80]!r} is not a device's name.")


def check_devices(devices: Sequence[Device]) -> None:
    """Refuse devices that make no sense, as every engine does before it asks anyone."""
    names = [device.name for device in devices]
    check_device_names(names)
    if len(set(names)) < len(names):
        raise EngineError("Two devices that are to be attached have one name.")
    for device in devices:
        if device.kind is DeviceKind.GPU and not _PCI.fullmatch(device.pci or ""):
            raise EngineError(f"{(device.pci or '')[:80]!r} is not a PCI address of a GPU.")
        if device.kind is DeviceKind.CHAR:
            for path in (device.source or "", device.path or "/dev/same"):
                if not _NODE_PATH.fullmatch(path):
                    raise EngineError(f"{path[:80]!r} is not a path of a device.")


@dataclass(frozen=True, slots=True)
class Observed:
    """A container as the engine has it."""

    name: str
    power: Power
    address: str | None
    limits: Limits | None
    """None when someone removed or rewrote one of them by hand."""
    forwards: tuple[Forward, ...]
    labels: Mapping[str, str]
    devices: tuple[Device, ...] = ()
    """What was attached, sorted by name."""
    has_nvidia_driver: bool = False
    """Whether the node's NVIDIA driver libraries are put in at each start."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses now. A stopped one uses disk alone."""

    cpu_seconds: float
    """Processor time since it was started."""
    memory: int
    disk: int
    processes: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    """More was printed than the caller was ready to hold."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to a container, by hutch or by someone else: a hint, never the truth."""

    name: str | None
    """The container, or None when events may have been missed: look at everything again."""
    action: str


class Engine(Protocol):
    """One node's engine."""

    async def status(self) -> NodeStatus:
        """The engine's version and the host's capacity."""
        ...

    async def images(self) -> list[str]:
        """The aliases of all images that it has."""
        ...

    async def containers(self) -> list[Observed]:
        """Every container whose name begins with `hutch-`.

        May come from a cache which the engine's own events keep fresh.
        """
        ...

    async def get(self, name: str) -> Observed | None:
        """One container as it is now, never from a cache; None when there is none."""
        ...

    async def create(self, spec: ContainerSpec, *, start: bool = False) -> None:
        """Make a container, unprivileged and isolated, and start it if told to.

        One that is there already under this name is left as it is (and started if told to).
        """
        ...

    async def start(self, name: str) -> None:
        """Start a container, without those of its devices that the node has no longer: they are
        taken from it, since a machine must not stay down because a card in it has failed."""
        ...

    async def stop(self, name: str, *, timeout: float = 30.0) -> None:
        """Shut down; after `timeout` seconds without success, by force."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a container, its snapshots and forwards, stopping it by force if it runs."""
        ...

    async def set_limits(self, name: str, limits: Limits) -> None:
        """Change the limits, at once if it runs. EngineError when the disk would be too small."""
        ...

    async def prepare(
        self, name: str, *, limits: Limits, forward: Forward, labels: Mapping[str, str]
    ) -> None:
        """`set_limits`, `set_forward` and `set_labels` in one go, for a container of the pool."""
        ...

    async def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        """Set labels, keeping those not named."""
        ...

    async def set_forward(self, name: str, forward: Forward) -> None:
        """Make this forward exist just so, replacing another of its name."""
        ...

    async def remove_forward(self, name: str, forward_name: str) -> None: ...

    async def accelerators(self) -> list[FoundAccelerator]:
        """The accelerators that the engine sees in its host, as far as it can tell."""
        ...

    async def attach(self, name: str, devices: Sequence[Device]) -> None:
        """Give a container these devices, all or none, at once if it runs.

        One of the same name is replaced when it is another device. EngineError when the node has
        no such device; for a container that does not run this shows only when it is started.
        """
        ...

    async def detach(self, name: str, devices: Sequence[str]) -> None:
        """Take devices away by name, at once if it runs. Names that it has not are passed over.

        What has one open keeps it open: it is the caller's to end that. And whoever is root
        inside may have put the device's node in a second place: it is the node's agent that
        closes the node itself, before this.
        """
        ...

    async def set_nvidia_driver(self, name: str, wanted: bool) -> None:
        """Have the node's NVIDIA driver libraries put in at each start from the next one on.

        EngineError when the node has not what that takes.
        """
        ...

    async def snapshots(self, name: str) -> list[str]:
        """Names of the container's snapshots, oldest first."""
        ...

    async def snapshot(self, name: str, snapshot: str) -> None: ...

    async def restore(self, name: str, snapshot: str) -> None:
        """Put the disk back to a snapshot. The container must be stopped, and stays so."""
        ...

    async def delete_snapshot(self, name: str, snapshot: str) -> None: ...

    async def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        user: int = 0,
        group: int = 0,
        cwd: str = "/",
        timeout: float = 30.0,
        most_output: int = 1024 * 1024,
    ) -> ExecResult:
        """Run a program inside, without a shell, and wait for it.

        After `timeout` seconds the program is ended and EngineError raised. Output beyond
        `most_output` bytes per stream is read and thrown away.
        """
        ...

    async def read_file(self, name: str, path: str, *, most: int = 1024 * 1024) -> bytes | None:
        """A regular file's content as root, None when there is none; works when it is stopped."""
        ...

    def files(self, name: str) -> AbstractAsyncContextManager[Files]:
        """The files of a container while the block runs, whether the container runs or not.

        Starting, stopping and deleting it may have to wait until the block ends.
        """
        ...

    def terminal(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        columns: int,
        rows: int,
    ) -> AbstractAsyncContextManager[EngineTerminal]:
        """Run a program as root on a terminal of its own; the end of the block ends it."""
        ...

    def connect(self, name: str, port: int) -> AbstractAsyncContextManager[EngineStream]:
        """A TCP connection to a port of the container's own loopback.

        Nothing listens on the node for it, and the container needs no network. The end of the
        block closes it: what was written still arrives, unless the block ended with an exception.
        Raises EnginePortClosedError when nothing listens there.
        """
        ...

    async def usage(self, name: str) -> Usage: ...

    async def wait_for_banner(self, name: str, host: str, port: int, *, timeout: float) -> bool:
        """Whether an SSH server answers at the forwarded port within `timeout` seconds."""
        ...

    def changes(self) -> AsyncIterator[Change]:
        """Changes as they happen, until closed. After a lost connection it reconnects by itself
        and yields one Change with name None."""
        ...

    async def close(self) -> None: ...
