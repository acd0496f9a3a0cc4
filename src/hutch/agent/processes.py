"""The processes of the node: which container each is in, as whom, and what it is called.

A container says nothing about itself here that is believed. Which one a process is in is told by
the control group that the engine put it into, the outermost one: below it a container may make
groups of any name. Who it runs as is told by the numbers that the engine gave to the container.
"""

# ruff: noqa: PTH123, PTH208 - every process of a node is looked at, and a Path for each takes too long

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hutch.domain.accelerators import Process

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
_PAYLOAD = re.compile(r"^[^:]*:[^:]*:(?:/[^/\n]+)*?/lxc\.payload\.([^/\n]+)", re.MULTILINE)
_PAYLOAD_FOLDER = re.compile(r"(?:/[^/\n]+)*?/lxc\.payload\.[^/\n]+")
_COUNTED = re.compile(r"(?<=_hutch-[0-9a-f]{8})-[0-9]+$")
"""What LXC adds to the name when a group of that name was left behind by a crash."""
_MOST_GROUPS = 500
_LARGEST_PASSWD = 1024 * 1024
_INTERPRETERS = re.compile(r"(?:python|pypy|perl|ruby|node|bash|sh|java)[\d.]*")
LONGEST_COMMAND, LONGEST_USER = 64, 32


@dataclass(frozen=True, slots=True)
class Range:
    """User ids of a container, from its user namespace's map (user_namespaces(7))."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs."""

    name: str
    group: str
    """What LXC calls it: the engine's project and the name."""
    init: int
    """The id of its first process on the node."""
    users: tuple[Range, ...]

    def uid_inside(self, uid: int) -> int | None:
        """What a user id of the node is inside; None when it is none of the container's."""
        for each in self.users:
            if each.outside <= uid < each.outside + each.count:
                return each.inside + uid - each.outside
        return None


def pids(proc: Path = PROC) -> Iterator[int]:
    for name in os.listdir(proc):
        if name.isdecimal():
            yield int(name)


def container_of(pid: int, proc: Path = PROC) -> str | None:
    """The engine's name of the container that a process is in; None for one of the node itself.

    An Incus or LXD names the group `lxc.payload.<project>_<name>`; names have no underscore.
    """
    group = _group(pid, proc)
    return None if group is None else group.rpartition("_")[2]


def _group(pid: int, proc: Path) -> str | None:
    told = _read(f"{proc}/{pid}/cgroup")
    # Most processes of a node are in no container.
    found = set(_PAYLOAD.findall(told)) if "/lxc.payload." in told else set[str]()
    return _COUNTED.sub("", found.pop()) if len(found) == 1 else None


def members(name: str, proc: Path = PROC, groups: Path = GROUPS) -> list[int]:
    """The processes in a container, by its control group alone."""
    folder = _folders.get((proc, name))
    if folder is not None and (told := _listed(folder)):
        return told
    found = [pid for pid in pids(proc) if container_of(pid, proc) == name]
    folder = _group_folder(found[0], proc, groups) if found else None
    if folder is None:
        _folders.pop((proc, name), None)
    else:
        _folders[proc, name] = folder
    return found


_folders: dict[tuple[Path, str], Path] = {}
"""Where the control groups of containers were found. To ask one of them costs what the container
has in it; to find it, a look at every process of the node."""


def _group_folder(pid: int, proc: Path, groups: Path) -> Path | None:
    """The control group of the container that a process is in, of the hierarchy that counts
    processes, or the only one (cgroups(7))."""
    for line in _read(f"{proc}/{pid}/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        root = groups if number == "0" else groups / controllers
        top = _PAYLOAD_FOLDER.match(path)
        if top and (number == "0" or controllers == "pids"):
            folder = root / top.group().lstrip("/")
            if (folder / "cgroup.procs").exists():
                return folder
    return None


def _listed(folder: Path) -> list[int] | None:
    """The processes of a control group and of those below it. None when somebody inside has made
    so many groups that a look at every process of the node is faster."""
    found: list[int] = []
    waiting, seen = [str(folder)], 0
    while waiting:
        group = waiting.pop()
        seen += 1
        if seen > _MOST_GROUPS:
            return None
        # One that is gone had nobody left; a group of threads names none, as the one above it does.
        with suppress(OSError), open(f"{group}/cgroup.procs", "rb") as told:
            found += [int(line) for line in told]
        with suppress(OSError), os.scandir(group) as entries:
            waiting += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    return found


def find_container(name: str, inside: Iterable[int], proc: Path = PROC) -> Container | None:
    """A container that has these `members`, if it runs.

    Its first process is the one that is number 1 inside it, and not deeper.
    """
    for pid in inside:
        numbers = _status(pid, proc).get("NSpid", "").split()
        if len(numbers) == 2 and numbers[1] == "1":
            return Container(name, _group(pid, proc) or name, pid, _users(pid, proc))
    return None


def _users(pid: int, proc: Path) -> tuple[Range, ...]:
    lines = (line.split() for line in _read(f"{proc}/{pid}/uid_map").splitlines())
    return tuple(Range(*(int(part) for part in line)) for line in lines if len(line) == 3)


def belongs_to(pid: int, container: Container, proc: Path = PROC) -> bool:
    """Whether a process is in a container by both signs, its control group and its users."""
    if container_of(pid, proc) != container.name:
        return False
    uids = _status(pid, proc).get("Uid", "").split()
    return bool(uids) and all(container.uid_inside(int(uid)) is not None for uid in uids)


def started(pid: int, proc: Path = PROC) -> str | None:
    """When a process was started, in ticks since the node's boot: two of one id differ by it."""
    # The name in brackets may hold anything, brackets and blanks too (proc(5)).
    fields = _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else None


def parent(pid: int, proc: Path = PROC) -> int:
    """The process that a process is the child of; 0 when there is none."""
    told = _status(pid, proc).get("PPid", "0")
    return int(told) if told.isdecimal() else 0


def title(pid: int, proc: Path = PROC) -> str:
    """The command line that a process shows, which it may have written itself."""
    return _read(f"{proc}/{pid}/cmdline").replace("\0", " ").strip()


def is_roots(pid: int, proc: Path = PROC) -> bool:
    """Whether a process is the node's root in every respect."""
    return _status(pid, proc).get("Uid", "").split() == ["0"] * 4


def describe(
    pid: int, container: Container | None = None, memory: int = 0, proc: Path = PROC
) -> Process:
    """What people are told of a process; of one that has just ended, what is left."""
    uid = (_status(pid, proc).get("Uid", "").split() or [""])[0]
    user = uid
    if container is not None and uid:
        inside = container.uid_inside(int(uid))
        user = uid if inside is None else _user_name(container, inside, proc) or str(inside)
    name = None if container is None else container.name
    return Process(pid, _command(pid, proc), name, user[:LONGEST_USER], memory)


def _command(pid: int, proc: Path) -> str:
    """The program's name, and the script's. Never the arguments: they may be secret."""
    words = [word for word in _read(f"{proc}/{pid}/cmdline").split("\0") if word]
    name = words[0].rpartition("/")[2] if words else _read(f"{proc}/{pid}/comm").strip()
    if _INTERPRETERS.fullmatch(name) and len(words) > 1 and not words[1].startswith("-"):
        name = f"{name} {words[1].rpartition('/')[2]}"
    return _printable(name)[:LONGEST_COMMAND] or "?"


def _user_name(container: Container, uid: int, proc: Path) -> str | None:
    """The name of an account, from the container's own list.

    The container may put anything in the list's place: no link of its own is followed, nothing
    but a plain file is read, and no more than so much of it.
    """
    for line in _passwd(proc / str(container.init) / "root").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return _printable(fields[0])
    return None


def _passwd(root: Path) -> str:
    plain = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        etc = os.open("etc", os.O_PATH | os.O_DIRECTORY | plain, dir_fd=top)
        try:
            file = os.open("passwd", os.O_RDONLY | os.O_NONBLOCK | plain, dir_fd=etc)
        finally:
            os.close(etc)
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return ""
            return opened.read(_LARGEST_PASSWD).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(top)


def _status(pid: int, proc: Path) -> dict[str, str]:
    lines = _read(f"{proc}/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(file: str) -> str:
    """A file of /proc; nothing of a process that has ended."""
    try:
        with open(file, "rb", buffering=0) as opened:
            return opened.read().decode(errors="replace")
    except OSError:
        return ""


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
