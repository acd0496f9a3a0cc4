"""The Incus daemon and lxcfs where no systemd runs them, and where to find them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from hutch.setup.commands import CommandError, run
from hutch.setup.incus_api import IncusApi
from hutch.setup.processes import Identity, identify, spawn_detached

LXCFS_FOLDER = Path("/var/lib/lxcfs")
_DAEMONS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd")
#: Unix sockets of an engine that is on the machine already, the likeliest first.
SOCKETS = (
    Path("/var/lib/incus/unix.socket"),
    Path("/run/incus/unix.socket"),
    Path("/var/snap/lxd/common/lxd/unix.socket"),
    Path("/var/lib/lxd/unix.socket"),
)


def daemon_path() -> str:
    """Where incusd lies.

    Raises:
        CommandError: it is not installed.
    """
    found = _find_daemon()
    if found is None:
        raise CommandError(["incusd"], "could not be started: Incus is not installed")
    return found


def is_installed() -> bool:
    return _find_daemon() is not None


def _find_daemon() -> str | None:
    """Distributions keep it where no PATH leads."""
    known = (path for path in _DAEMONS if os.access(path, os.X_OK))
    return next(known, None) or shutil.which("incusd")


def daemon_argv() -> list[str]:
    return [daemon_path(), "--group", "incus-admin"]


def is_daemon(words: list[str]) -> bool:
    """Whether these arguments are a daemon's. Its helpers have a command as the second one."""
    return len(words) > 1 and Path(words[0]).name == "incusd" and words[1].startswith("--")


def make_folders(folder: Path) -> None:
    """What the daemon expects to be there; with systemd its unit makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in ("/run/incus", "/var/log/incus"):
        Path(path).mkdir(exist_ok=True)


def lxcfs_argv() -> list[str]:
    return ["lxcfs", str(LXCFS_FOLDER)]


def lxcfs_mounted() -> bool:
    """Whether lxcfs answers: one that died leaves a mount behind which does not."""
    try:
        return (LXCFS_FOLDER / "proc").is_dir()
    except OSError:
        return False


def clear_lxcfs() -> None:
    """Removes the mounts of every lxcfs that died: they are in the way, and nobody can use them.

    There may be several: one that was started while a dead one's mount was still there lies on
    top of it, and uncovers it when it goes.
    """
    while not lxcfs_mounted() and _is_mount_point(LXCFS_FOLDER):
        run(["umount", "-l", str(LXCFS_FOLDER)])
    LXCFS_FOLDER.mkdir(parents=True, exist_ok=True)


def _is_mount_point(path: Path) -> bool:
    """Also for a mount that answers nothing but errors any more."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(row.split()[4] == str(path) for row in rows)


def ensure_lxcfs(log: Path) -> Identity | None:
    """Starts the machine's one lxcfs if it is not there; its identity if it was started now."""
    if lxcfs_mounted():
        return None
    clear_lxcfs()
    process = spawn_detached(lxcfs_argv(), log)
    until = time.monotonic() + 10
    while not lxcfs_mounted():
        if process.poll() is not None or time.monotonic() > until:
            raise CommandError(lxcfs_argv(), f"did not come up; see {log}")
        time.sleep(0.05)
    return identify(process.pid)


def start_daemon(folder: Path, log: Path, timeout: float = 60) -> Identity:
    """Starts an incusd that works in `folder` and waits until it answers.

    Raises:
        CommandError: it ended, or did not answer within `timeout` seconds.
    """
    make_folders(folder)
    argv = daemon_argv()
    process = spawn_detached(argv, log, {"INCUS_DIR": str(folder)})
    identity = identify(process.pid)
    until = time.monotonic() + timeout
    with IncusApi(folder / "unix.socket") as api:
        while process.poll() is None and time.monotonic() < until:
            if api.answers():
                break
            time.sleep(0.05)
        else:
            raise CommandError(argv, f"did not answer within {timeout:.0f} s; see {log}")
    if identity is None:
        raise CommandError(argv, f"ended at once; see {log}")
    run([argv[0], "waitready", "--timeout=60"], env={"INCUS_DIR": str(folder)})
    return identity
