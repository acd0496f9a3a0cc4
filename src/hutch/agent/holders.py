"""Who has a device open: by the open files and the mappings of processes, as the kernel has them.

A device is known by its numbers, whatever the path by which it was opened, and also when that path
is gone: after a device was taken out of a container, `/dev/hutch-gpu0` reads `/ (deleted)` there.
"""

# ruff: noqa: PTH115, PTH123, PTH116, PTH208 - a node has a hundred thousand open files, and a Path for each takes too long

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hutch.agent import processes
from hutch.agent.processes import PROC
from hutch.domain.accelerators import OpenedDevice

_MEMORY_MAJOR = 1
"""The major number of `/dev/null` and its like. Simulated accelerators all have the same numbers,
and so has what every process has open: those are told apart by name."""
_DELETED = " (deleted)"
_MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .* (/dev/.*|/ \(deleted\))$", re.MULTILINE)


def has_open(pid: int, devices: Iterable[OpenedDevice], proc: Path = PROC) -> bool:
    """Whether a process, or one thread of it alone, has one of the devices open or mapped."""
    wanted = tuple(devices)
    return any(
        _is(opened, link, device)
        for link, opened in (*_files_of_threads(pid, proc), *_mappings(pid, proc))
        for device in wanted
    )


def by_device(devices: Mapping[OpenedDevice, str], proc: Path = PROC) -> dict[str, list[int]]:
    """Every process of the node, inside or outside of containers, that has a device open.

    A quick look, for people to see: at the open files of each process, not at its threads'. The
    processes are by what the devices are called in `devices`.
    """
    found: dict[str, list[int]] = {}
    for pid in processes.pids(proc):
        for link, opened in _files(f"{proc}/{pid}/fd"):
            for device, name in devices.items():
                if _is(opened, link, device, also_deleted=False):
                    held = found.setdefault(name, [])
                    if pid not in held:
                        held.append(pid)
    return found


def _files_of_threads(pid: int, proc: Path) -> Iterator[tuple[str, os.stat_result]]:
    """A thread may have open files of its own, and outlive the process's first thread."""
    folder = f"{proc}/{pid}/task"
    try:
        threads = os.listdir(folder)
    except OSError:
        return
    for thread in threads:
        yield from _files(f"{folder}/{thread}/fd")


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """The open files that may be devices: what each is called, and what it is."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        try:
            link = os.readlink(path)
            # Sockets and pipes are no paths, and most files are elsewhere.
            if link.startswith("/dev/") or link.endswith(_DELETED):
                yield link, os.stat(path)
        except OSError:
            continue


def _mappings(pid: int, proc: Path) -> Iterator[tuple[str, os.stat_result]]:
    """What is mapped into memory: that stays when its file was closed."""
    try:
        with open(f"{proc}/{pid}/maps", "rb", buffering=0) as maps:
            told = maps.read()
    except OSError:
        return
    if b" /dev/" not in told and b" / (deleted)" not in told:
        return  # nearly all
    for first, last, link in _MAPPED.findall(told.decode(errors="replace")):
        try:
            path = proc / str(pid) / "map_files" / f"{int(first, 16):x}-{int(last, 16):x}"
            yield link, path.stat()
        except OSError:
            continue


def _is(
    opened: os.stat_result, link: str, device: OpenedDevice, *, also_deleted: bool = True
) -> bool:
    if not stat.S_ISCHR(opened.st_mode):
        return False
    if opened.st_rdev != os.makedev(device.major, device.minor):
        return False
    if device.major != _MEMORY_MAJOR:
        return True
    if link.removesuffix(_DELETED).rpartition("/")[2] == device.path.rpartition("/")[2]:
        return True
    # The node's own `/dev/null` is never deleted: this is one that was taken away.
    return also_deleted and opened.st_nlink == 0
