"""Keeps the limits of disks enforced on btrfs.

btrfs counts what each container has, and enforces limits by these counts. When it finds that it
cannot keep them right cheaply it marks them as inconsistent, counts no more, and from then on
enforces no limit at all, silently, until somebody has them counted anew (Linux 6.18, `qgroup.c`;
shown by `tests/agent/test_quotas.py`). Removing containers and snapshots does that. One container
could then fill the disk of all.

So the agent, which is root on the node, looks at the pools again and again. It has inconsistent
counts taken anew, and asks the kernel to follow deletions however large they are.
"""

import asyncio
import fcntl
import os
import subprocess
import uuid
from pathlib import Path

import structlog

from hutch.agent.threads import in_thread

log = structlog.get_logger("hutch.agent")

EVERY_SECONDS = 5.0
OFF = 8
"""The largest height of a tree: no deletion is too large to be counted."""
_FS_INFO = 0x8400941F
"""BTRFS_IOC_FS_INFO of <linux/btrfs.h>: 1024 bytes, of which 16 are the identity, from 16 on."""
_SYS = Path("/sys/fs/btrfs")


async def keep() -> None:
    """Look again and again, until cancelled."""
    while True:
        try:
            await in_thread(look)
        except Exception:
            log.exception("a look at the limits of disks failed")
        await asyncio.sleep(EVERY_SECONDS)


def look() -> list[Path]:
    """Look at every pool once; those whose counts were inconsistent, which are right again now."""
    return [pool for pool in _pools() if _mend(pool)]


def _pools() -> list[Path]:
    """Where the pools of Incus or LXD that are on btrfs are mounted."""
    found: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        path = before.split()[4].encode().decode("unicode_escape")
        if after.split()[0] == "btrfs" and Path(path).parent.name == "storage-pools":
            found.append(Path(path))
    return found


def _mend(pool: Path) -> bool:
    try:
        state = _SYS / _identity(pool) / "qgroups"
        if _number(state / "enabled") != 1:
            return False
        _follow_deletions(state / "drop_subtree_threshold")
        if _number(state / "inconsistent") != 1:
            return False
    except (OSError, ValueError) as error:
        # A pool without counts, or without limits; or one that has just gone.
        log.debug("the limits of a pool cannot be looked at", pool=pool.name, reason=str(error))
        return False
    log.warning(
        "the limits of disks were not enforced: btrfs had lost count, and counts anew",
        pool=pool.name,
    )
    try:
        counted = subprocess.run(
            ["btrfs", "quota", "rescan", "-w", str(pool)],
            capture_output=True,
            check=False,
        )
    except OSError as error:
        log.warning("the limits of disks are not enforced", pool=pool.name, reason=str(error))
        return False
    if counted.returncode != 0:
        reason = counted.stderr.decode(errors="replace").strip()
        log.error("the limits of disks are not enforced", pool=pool.name, reason=reason)
    return counted.returncode == 0


def _follow_deletions(threshold: Path) -> None:
    try:
        if threshold.exists() and _number(threshold) < OFF:
            threshold.write_text(str(OFF))
    except OSError as error:
        # It is enough to have them counted anew, if more often.
        log.debug("btrfs may lose count of a large deletion", reason=str(error))


def _identity(pool: Path) -> str:
    told = bytearray(1024)
    at = os.open(pool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(at, _FS_INFO, told)
    finally:
        os.close(at)
    return str(uuid.UUID(bytes=bytes(told[16:32])))


def _number(file: Path) -> int:
    return int(file.read_text())
