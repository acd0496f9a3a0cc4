"""Processes that outlive who started them, known by pid and start time together.

A pid alone is not a name: after a crash or a reboot it may be somebody else's. The start time is
in clock ticks since boot, which no change of the clock moves, and goes with the boot's id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, never mistaken for another that has its pid later."""

    pid: int
    started: int
    """Clock ticks after boot."""
    boot: str


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or it is a zombie."""
    try:
        # The command name in parentheses may hold spaces and parentheses itself.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in {"Z", "X"}:
        return None
    return Identity(pid, int(fields[19]), boot_id())


def alive(identity: Identity | None) -> bool:
    return identity is not None and identify(identity.pid) == identity


def save_identity(path: Path, identity: Identity) -> None:
    """Writes a pid file in one piece, so that a reader never sees half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(asdict(identity)))
    part.replace(path)


def load_identity(path: Path) -> Identity | None:
    """The process a pid file names; None for no file, a damaged one, or a process that is gone."""
    try:
        fields = json.loads(path.read_text())
        identity = Identity(int(fields["pid"]), int(fields["started"]), str(fields["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity if alive(identity) else None


def spawn_detached(
    argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a program that survives its parent and the terminal, its output added to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            cwd="/",
            start_new_session=True,
        )


def end(identity: Identity | None, timeout: float = 10.0) -> None:
    """Asks a process to end, and makes it end after `timeout` seconds. A foreign one that has its
    pid by now is left alone."""
    if identity is None or not _send(identity, signal.SIGTERM):
        return
    if not wait_ended(identity, timeout):
        _send(identity, signal.SIGKILL)
        wait_ended(identity, 5)


def kill(identity: Identity | None) -> None:
    """Ends a process at once, with no chance to clean up."""
    if identity is not None and _send(identity, signal.SIGKILL):
        wait_ended(identity, 5)


def interrupt(identity: Identity | None) -> None:
    """Asks a process to end as at a terminal."""
    if identity is not None:
        _send(identity, signal.SIGINT)


def hang_up(identity: Identity) -> None:
    """Asks a process to make room for a newer one."""
    _send(identity, signal.SIGHUP)


def _send(identity: Identity, number: signal.Signals) -> bool:
    """A pidfd cannot be given to another process between the look and the signal."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait_ended(identity: Identity, timeout: float) -> bool:
    """Whether the process ended within `timeout` seconds. Reaps it where it is a child."""
    until = time.monotonic() + timeout
    while alive(identity):
        reap(identity.pid)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    reap(identity.pid)
    return True


def reap(pid: int) -> None:
    """Collects a child that ended, so that it is no zombie; nothing for who is no child."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def processes() -> Iterator[tuple[int, list[str]]]:
    """Pid and argument list of every process; the list of a kernel thread is empty."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            yield int(folder.name), [word.decode(errors="replace") for word in words if word]


def environment_of(pid: int) -> set[str]:
    """The variables (`NAME=value`) a process was started with; empty when it is gone."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return set()
    return {word.decode(errors="replace") for word in raw.split(b"\0") if word}


def is_of_this_system(pid: int) -> bool:
    """Whether a process is in this one's namespaces. Those inside containers are seen from here
    too, and can call themselves whatever they like."""
    try:
        return all(
            (_PROC / str(pid) / "ns" / kind).readlink() == (_PROC / "self/ns" / kind).readlink()
            for kind in ("pid", "user")
        )
    except OSError:
        return False


def listens(identity: Identity, port: int) -> bool:
    """Whether a process listens on a TCP port, at whatever address."""
    try:
        found = psutil.Process(identity.pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in found)


def user_of(pid: int) -> int | None:
    """The user id that a process acts as; None when it is gone."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    return next(int(line.split()[2]) for line in status.splitlines() if line.startswith("Uid:"))


def children(pid: int) -> list[int]:
    """The direct children of a process, of all its threads."""
    found: list[int] = []
    for path in _PROC.glob(f"{pid}/task/*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return found


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        kill(identify(pid))
