"""Limits of the kernel that a machine full of containers runs into, raised where they are lower.

The kernel's own defaults are for one system. What all containers use together counts against the
host's root as well: with 128 inotify instances some twenty containers start, and the next one's
systemd fails in strange ways. The values are those that Incus recommends for production, and as
many processes and neighbours as 2,000 instances have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WANTED: Mapping[str, int] = {
    "fs.aio-max-nr": 524_288,
    "fs.inotify.max_queued_events": 1_048_576,
    "fs.inotify.max_user_instances": 1_048_576,
    "fs.inotify.max_user_watches": 1_048_576,
    "kernel.keys.maxbytes": 2_000_000,
    "kernel.keys.maxkeys": 2_000,
    "kernel.pid_max": 4_194_304,
    "net.ipv4.neigh.default.gc_thresh2": 4_096,
    "net.ipv4.neigh.default.gc_thresh3": 8_192,
    "vm.max_map_count": 262_144,
}
FILE = Path("/etc/sysctl.d/60-hutch.conf")
_TREE = Path("/proc/sys")


def too_low(tree: Path = _TREE) -> dict[str, int]:
    """The limits that are lower than wanted now, with what is wanted. One that this kernel does
    not have, or does not let us see, is left out."""
    low: dict[str, int] = {}
    for name, wanted in WANTED.items():
        try:
            current = int(_path(tree, name).read_text())
        except (OSError, ValueError):
            continue
        if current < wanted:
            low[name] = wanted
    return low


def raise_limits(tree: Path = _TREE) -> list[str]:
    """Raises them until the next boot; the names of those that were raised."""
    low = too_low(tree)
    for name, wanted in low.items():
        _path(tree, name).write_text(f"{wanted}\n")
    return list(low)


def keep_limits(file: Path = FILE, tree: Path = _TREE) -> list[str]:
    """Raises them now and at every boot; the names of those that were raised. Only these are
    written down, so that nothing an administrator set higher is ever lowered."""
    written = _kept(file)
    raised = too_low(tree)
    raise_limits(tree)
    lines = [f"{name} = {value}" for name, value in sorted({**written, **raised}.items())]
    file.parent.mkdir(exist_ok=True)
    file.write_text("# Made by hutch: room for many containers.\n" + "\n".join(lines) + "\n")
    return list(raised)


def _kept(file: Path) -> dict[str, int]:
    try:
        pairs = [line.split("=") for line in file.read_text().splitlines() if "=" in line]
        return {name.strip(): int(value) for name, value in pairs}
    except (OSError, ValueError):
        return {}


def _path(tree: Path, name: str) -> Path:
    return tree / name.replace(".", "/")
