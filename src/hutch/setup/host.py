"""Whether this host can run system containers: each check tries it, rather than guess from names.

All checks undo what they try.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hutch.domain.sizes import GiB
from hutch.setup.commands import CommandError, run, succeeds

LEAST_FREE = 8 * GiB
_PROBE = "hutchprobe0"
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that failed: what is missing, and what to do about it."""

    check: str
    problem: str
    advice: str


def check_host(data: Path) -> list[Finding]:
    """Everything that keeps this host from running containers; empty where nothing does."""
    if os.geteuid() != 0:
        advice = "Run it as root: sudo ./quickstart"
        return [Finding("root", "You are not root", advice)]
    checks: list[Callable[[], Finding | None]] = [
        _distribution,
        _user_namespaces,
        _cgroups,
        _network_devices,
        _loop_devices,
        _file_system,
        lambda: _disk(data),
    ]
    return [finding for check in checks if (finding := check()) is not None]


def _distribution() -> Finding | None:
    if shutil.which("apt-get") and shutil.which("dpkg-query"):
        return None
    return Finding(
        "distribution",
        "This is neither Debian nor Ubuntu: there is no apt-get",
        "Use Debian 12, Debian 13 or Ubuntu 24.04",
    )


def _user_namespaces() -> Finding | None:
    if succeeds(["unshare", "--user", "--map-root-user", "true"]):
        return None
    return Finding(
        "user namespaces",
        "The kernel refuses to make a user namespace",
        "Set the sysctl user.max_user_namespaces to 15000 or more; inside another container,"
        " allow nesting there",
    )


def _cgroups() -> Finding | None:
    missing = missing_controllers(_CGROUPS)
    if not missing:
        return None
    return Finding(
        "control groups",
        f"No control group controller for {', '.join(missing)} is mounted at {_CGROUPS}",
        f"Mount them: mount -t cgroup2 none {_CGROUPS}",
    )


def missing_controllers(root: Path) -> list[str]:
    """The controllers needed for limits that neither version of control groups offers."""
    try:
        unified = set((root / "cgroup.controllers").read_text().split())
    except OSError:
        unified = set[str]()
    return [name for name in _CONTROLLERS if name not in unified and not (root / name).is_dir()]


def _network_devices() -> Finding | None:
    try:
        run(["ip", "link", "add", _PROBE, "type", "bridge"])
        run(["ip", "link", "delete", _PROBE])
    except CommandError as error:
        return Finding(
            "network bridge",
            f"A bridge cannot be made: {error}",
            "Load the kernel module `bridge`; inside another container, it needs CAP_NET_ADMIN",
        )
    return None


def _loop_devices() -> Finding | None:
    succeeds(["modprobe", "loop"])
    if Path("/dev/loop-control").exists():
        return None
    return Finding(
        "loop devices",
        "/dev/loop-control is missing, so the storage pool's file cannot be mounted",
        "Load the kernel module `loop`; inside another container, pass the device through",
    )


def _file_system() -> Finding | None:
    if any(supports_file_system(name) for name in ("zfs", "btrfs")):
        return None
    return Finding(
        "file system",
        "The kernel has neither ZFS nor btrfs, which limit and copy disks cheaply",
        "Install a kernel with btrfs, or accept plain folders with no disk limits: --pool dir",
    )


def supports_file_system(name: str) -> bool:
    """Whether the kernel knows a file system, after loading its module if that is possible."""
    known = Path("/proc/filesystems")
    if name not in known.read_text().split():
        succeeds(["modprobe", name])
    return name in known.read_text().split()


def _disk(data: Path) -> Finding | None:
    place = next(path for path in (data, *data.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free >= LEAST_FREE:
        return None
    return Finding(
        "disk space",
        f"{place} has {free / GiB:.1f} GiB free; {LEAST_FREE // GiB} GiB are the least",
        "Free some space, or name another folder: --data DIR",
    )


def port_in_use(host: str, port: int) -> bool:
    """Whether some program listens on a TCP port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def has_systemd() -> bool:
    """Whether systemd is the init that runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def host_address() -> str:
    """The address at which others reach this machine: that of its default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket only picks the route. The address is
            # of the block kept for documentation (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def own_addresses() -> set[str]:
    """Every IPv4 address that this machine has, on whatever interface."""
    links = cast("list[dict[str, Any]]", json.loads(run(["ip", "-j", "-4", "address"])))
    return {str(found["local"]) for link in links for found in link["addr_info"]}
