"""Shutting a device of a container before it is taken away: nobody inside opens it anew.

Root inside may have laid the device's node in a second place, where the engine does not remove it
from. It is the same node: made for this container alone, below the engine's folder `devices`. Once
it belongs to the node's root and nobody may open it, no way to it is of use, and no name of it can
be given back its rights from inside.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from hutch.agent import processes
from hutch.agent.processes import PROC, Container
from hutch.domain.accelerators import OpenedDevice

log = structlog.get_logger("hutch.agent")

_MONITOR = "[lxc monitor] "
"""How LXC calls the process that watches over a container: its folder and the name follow."""
_MEMORY_MAJOR = 1


def shut(container: Container, devices: Iterable[OpenedDevice], proc: Path = PROC) -> bool:
    """Shut the nodes of a container that are these devices; whether it has each, and all are shut.

    False as well for one that the engine has removed: where its node went is not known then.
    """
    folder = _folder(container, proc)
    if folder is None:
        log.warning("the devices of a container were not found", container=container.name)
        return False
    entries = _entries(folder)
    shut_of_each = [[_shut(each) for each in entries if _is(each, device)] for device in devices]
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


def _entries(folder: Path) -> list[Path]:
    try:
        return [each for each in folder.iterdir() if each.name.startswith("unix.")]
    except OSError:
        return []


def _is(node: Path, device: OpenedDevice) -> bool:
    """Whether a node is a device. It is called `unix.<the engine's name>.<its path inside>`."""
    found = node.lstat()
    if not stat.S_ISCHR(found.st_mode):
        return False
    if found.st_rdev != os.makedev(device.major, device.minor):
        return False
    inside = device.path.strip("/").replace("-", "--").replace("/", "-")
    return device.major != _MEMORY_MAJOR or node.name.endswith(f".{inside}")
