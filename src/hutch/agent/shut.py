"""Shutting a device of a container before it is taken away: nobody inside opens it anew.

Root inside may have laid the device's node in a second place, where the engine does not remove it
from. It is the same node: made for this container alone, below the engine's folder `devices`. Once
it belongs to the node's root and nobody may open it, no way to it is of use, and no name of it can
be given back its rights from inside.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from hutch.agent import processes
from hutch.agent.holders import Identity
from hutch.agent.processes import PROC, Container
from hutch.domain.accelerators import OpenedDevice

log = structlog.get_logger("hutch.agent")

_MONITOR = "[lxc monitor] "
"""How LXC calls the process that watches over a container: its folder and the name follow."""
_MEMORY_MAJOR = 1


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that the engine made of devices for a container."""

    of_each: tuple[tuple[Path, ...], ...] = ()
    """Those of each device, in the order in which these were asked for."""
    identities: frozenset[Identity] = frozenset()


def nodes_of(container: Container, devices: Sequence[OpenedDevice], proc: Path = PROC) -> Nodes:
    """The nodes of a container that are these devices; those that there still are."""
    folder = _folder(container, proc)
    if folder is None:
        log.warning("the devices of a container were not found", container=container.name)
        return Nodes(tuple(() for _ in devices))
    entries = list(_entries(folder))
    of_each = tuple(
        tuple(path for path, found in entries if _is(path, found, device)) for device in devices
    )
    wanted = {path for each in of_each for path in each}
    return Nodes(
        of_each,
        frozenset((found.st_dev, found.st_ino) for path, found in entries if path in wanted),
    )


def shut(nodes: Nodes) -> bool:
    """Shut these nodes; whether each device had one, and all are shut.

    False as well for a device that the engine has removed: where its node went is not known then.
    """
    shut_of_each = [[_shut(path) for path in each] for each in nodes.of_each]
    return all(found and all(found) for found in shut_of_each)


def _shut(node: Path) -> bool:
    try:
        os.chown(node, 0, 0, follow_symlinks=False)
        node.chmod(0)
    except OSError as error:
        # What has it open is ended all the same.
        log.exception("a device could not be shut", device=node.name, reason=str(error))
        return False
    return True


def _folder(container: Container, proc: Path) -> Path | None:
    """Where the engine has made the device nodes of a container: an Incus or LXD anywhere.

    Told by the parent of the container's first process, which is root's and in no container.
    """
    monitor = processes.parent(container.init, proc)
    title = processes.title(monitor, proc)
    if not title.startswith(_MONITOR) or processes.container_of(monitor, proc) is not None:
        return None
    if not processes.is_roots(monitor, proc):
        return None
    home, _, name = title.removeprefix(_MONITOR).rpartition(" ")
    if name != container.group or not Path(home).is_absolute():
        return None
    # Through its eyes: the agent's own view of the file system may be read-only, or another one.
    return Path(f"{proc}/{monitor}/root{Path(home).parent}/devices/{name}")


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        for path in folder.iterdir():
            if path.name.startswith("unix."):
                with suppress(FileNotFoundError):
                    yield path, path.lstat()
    except OSError:
        return


def _is(path: Path, found: os.stat_result, device: OpenedDevice) -> bool:
    """Whether a node is a device. It is called `unix.<the engine's name>.<its path inside>`."""
    if not stat.S_ISCHR(found.st_mode):
        return False
    if found.st_rdev != os.makedev(device.major, device.minor):
        return False
    inside = device.path.strip("/").replace("-", "--").replace("/", "-")
    return device.major != _MEMORY_MAJOR or path.name.endswith(f".{inside}")
