"""How much of a root disk is in use, and how a full or shrunk one is kept usable.

Three things that Incus leaves to its caller:

- On btrfs it reports only what a container shares with neither its image nor its snapshots: next
  to nothing after a snapshot. What the limit counts can be read from the file system alone, which
  takes root on the node itself.
- On btrfs a limit below what is in use is taken, and then nothing can be written or set any more,
  not even a larger limit. So it must never be asked for.
- It keeps a description of the container on the container's own disk. When that is full, nothing
  about the container can be changed, and it cannot even be started for its owner to tidy up. A
  little more room, hidden from the owner, lets it.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import structlog

from hutch.domain.sizes import MiB, format_size
from hutch.engine.incus.client import Json
from hutch.errors import EngineError

log = structlog.get_logger(__name__)

SLACK_KEY = "user.hutch-slack"
"""Bytes by which a root disk is larger than its owner was promised."""
SLACK = 32 * MiB
MOST_SLACK = 8 * SLACK
"""Who fills the disk again and again has to tidy up or ask for more."""
_MARGIN = 16 * MiB
_FOLDERS = ("/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd")
_FULL = re.compile(r"quota exceeded|no space left", re.IGNORECASE)


def is_full(error: EngineError) -> bool:
    """Whether the server failed because the container's disk is full."""
    return bool(_FULL.search(error.message))


def slack_of(instance: Json) -> int:
    value = str(instance["config"].get(SLACK_KEY) or "0")
    return int(value) if value.isdigit() else 0


def volume_path(socket: str | None, project: str, pool: str, name: str) -> Path | None:
    """Where a container's volume lies, when that is on this machine and may be looked at."""
    if socket is None or os.geteuid() != 0:
        return None
    volume = name if project == "default" else f"{project}_{name}"
    for folder in (str(Path(socket).parent), *_FOLDERS):
        path = Path(folder) / "storage-pools" / pool / "containers" / volume
        if path.is_dir():
            return path
    return None


async def referenced(path: Path) -> int | None:
    """Bytes that the limit of a btrfs volume counts; None where that cannot be told."""
    try:
        process = await asyncio.create_subprocess_exec(
            "btrfs", "qgroup", "show", "--raw", "--sync", "-f", str(path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        log.info("disk use not measured", reason=str(error))
        return None
    output, _ = await process.communicate()
    rows = [line.split() for line in output.decode(errors="replace").splitlines()]
    numbers = [row[1] for row in rows if len(row) >= 3 and "/" in row[0] and row[1].isdigit()]
    return int(numbers[0]) if numbers else None


def fits(used: int | None, size: int) -> bool:
    """Whether what is in use surely fits onto a disk of that size, with a little to spare."""
    return used is not None and used + _MARGIN <= size


def check_shrink(name: str, wanted: int, used: int | None) -> None:
    """Refuse a disk on btrfs that is smaller than before, unless what is in use surely fits."""
    if used is None:
        raise EngineError(
            f"The disk of {name} cannot be made smaller: how much of it is in use is not known.",
            hint="Make a new instance with a smaller disk and copy what is needed.",
            container=name,
        )
    if not fits(used, wanted):
        raise EngineError(
            f"The disk cannot be made smaller than {format_size(used + _MARGIN)}: "
            f"{format_size(used)} of it are in use.",
            hint="Delete files inside, or choose a larger size.",
            container=name,
        )


def widened(instance: Json, root: dict[str, Any]) -> Json:
    """What to PATCH so that a full disk has a little room. EngineError when it had enough."""
    slack = slack_of(instance) + SLACK
    ((name, device),) = root.items()
    if slack > MOST_SLACK or not str(device.get("size", "")).isdigit():
        raise EngineError(
            f"The disk of {instance['name']} is full.",
            hint="Give it a larger disk: `hutch set NAME --disk SIZE`.",
            container=instance["name"],
        )
    log.warning("full disk given some room", container=instance["name"], slack=slack)
    return {
        "config": {SLACK_KEY: str(slack)},
        "devices": {name: {**device, "size": str(int(device["size"]) + SLACK)}},
    }
