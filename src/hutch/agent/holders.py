"""Who has a device open: by the open files and the mappings of processes, as the kernel has them.

A device is known by its numbers, whatever the path by which it was opened, and also when that path
is gone: after a device was taken out of a container, `/dev/hutch-gpu0` reads `/ (deleted)` there.
"""

# ruff: noqa: PTH115, PTH123, PTH208 - a node has a hundred thousand open files, and a Path for each takes too long

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hutch.agent import processes
from hutch.agent.processes import PROC
from hutch.agent.statx import CharacterDevice, character_device
from hutch.domain.accelerators import OpenedDevice

_MEMORY_MAJOR = 1
"""The major number of `/dev/null` and its like. Simulated accelerators all have the same numbers,
and so has what every process has open: those are told apart by the node, or by name."""
_DELETED = " (deleted)"
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ ([0-9]+) +(\S.*)$", re.MULTILINE)
"""Of proc_pid_maps(5): from, to, the file's number in its file system, its path."""

Identity = tuple[int, int]
"""Which node of a file system something is: `st_dev` and `st_ino`."""


def has_open(
    pid: int,
    devices: Iterable[OpenedDevice],
    nodes: frozenset[Identity] = frozenset(),
    proc: Path = PROC,
) -> bool:
    """Whether a process, or one thread of it alone, has one of the devices open or mapped.

    `nodes` are those that the engine made of the devices: who opened one has the device open,
    whatever it was called.
    """
    wanted = tuple(devices)
    if not wanted:
        return False
    return any(
        _is(opened, path, device, nodes)
        for path, opened in (*_files_of_threads(pid, proc), *_mappings(pid, nodes, proc))
        for device in wanted
    )


def by_device(devices: Mapping[OpenedDevice, str], proc: Path = PROC) -> dict[str, list[int]]:
    """Every process of the node, inside or outside of containers, that has a device open.

    A quick look, for people to see: at the open files of each process, not at its threads'. The
    processes are by what the devices are called in `devices`.
    """
    found: dict[str, list[int]] = {}
    for pid in processes.pids(proc):
        for path in _files(f"{proc}/{pid}/fd"):
            link = _link(path)
            # Sockets and pipes are no paths, and most files are elsewhere.
            if not (link.startswith("/dev/") or link.endswith(_DELETED)):
                continue
            if (opened := character_device(path)) is None:
                continue
            for device, name in devices.items():
                if _is(opened, path, device, also_deleted=False):
                    held = found.setdefault(name, [])
                    if pid not in held:
                        held.append(pid)
    return found


def _files_of_threads(pid: int, proc: Path) -> Iterator[tuple[str, CharacterDevice]]:
    """A thread may have open files of its own, and outlive the process's first thread."""
    folder = f"{proc}/{pid}/task"
    try:
        threads = os.listdir(folder)
    except OSError:
        return
    for thread in threads:
        for path in _files(f"{folder}/{thread}/fd"):
            if (opened := character_device(path)) is not None:
                yield path, opened


def _files(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        yield f"{folder}/{name}"


def _link(path: str) -> str:
    """What an open file is called; empty when it was closed."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _mappings(
    pid: int, nodes: frozenset[Identity], proc: Path
) -> Iterator[tuple[str, CharacterDevice]]:
    """What is mapped into memory: that stays when its file was closed."""
    try:
        with open(f"{proc}/{pid}/maps", "rb", buffering=0) as maps:
            told = maps.read()
    except OSError:
        return
    numbers = {str(number).encode() for _, number in nodes}
    if not any(b" %b" % each in told for each in (b"/dev/", b"/ (deleted)", *numbers)):
        return  # nearly all
    for first, last, number, link in _MAPPED.findall(told):
        if number in numbers or link.startswith(b"/dev/") or link == b"/ (deleted)":
            path = f"{proc}/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"
            if (opened := character_device(path)) is not None:
                yield path, opened


def _is(
    opened: CharacterDevice,
    path: str,
    device: OpenedDevice,
    nodes: frozenset[Identity] = frozenset(),
    *,
    also_deleted: bool = True,
) -> bool:
    if opened.rdev != os.makedev(device.major, device.minor):
        return False
    if device.major != _MEMORY_MAJOR or opened.identity in nodes:
        return True
    # The node's own `/dev/null` is never deleted: one that is was taken away.
    if also_deleted and opened.is_deleted:
        return True
    link = _link(path).removesuffix(_DELETED)
    return link.rpartition("/")[2] == device.path.rpartition("/")[2]
