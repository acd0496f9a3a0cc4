"""The person's end: a key pair, the first sign of an SSH server, and a real login."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 90.0
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.05
_CONNECT_WITHIN = 0.2
_GREET_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where to log in, and the host key to expect there."""

    host: str
    port: int
    user: str
    host_key: str


def make_key(path: Path) -> str:
    """A new key pair at `path`; the public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(path)], check=True
    )
    return path.with_name(path.name + ".pub").read_text().strip()


def wait_for_banner(host: str, port: int) -> None:
    """Until an SSH server greets. The pauses are those that hutch itself makes."""
    end = time.monotonic() + PATIENCE
    pause = _FIRST_PAUSE
    while not _greets(host, port):
        if time.monotonic() > end:
            raise RuntimeError(f"no SSH server answered at {host} port {port}")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _greets(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_WITHIN) as connection:
            connection.settimeout(_GREET_WITHIN)
            return connection.recv(4).startswith(b"SSH")
    except OSError:
        return False


def log_in(door: Door, key: Path) -> None:
    """`ssh … true` until it succeeds once."""
    known = key.with_name(f"known-{door.port}")
    known.write_text(f"bench {door.host_key}\n")
    argv = [
        "ssh", "-F", "none", "-i", str(key), "-p", str(door.port),
        "-o", f"UserKnownHostsFile={known}", "-o", "HostKeyAlias=bench",
        "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        f"{door.user}@{door.host}", "true",
    ]  # fmt: skip
    end = time.monotonic() + PATIENCE
    while (done := subprocess.run(argv, capture_output=True, check=False)).returncode != 0:
        if time.monotonic() > end:
            raise RuntimeError(done.stderr.decode())
        time.sleep(_LONGEST_PAUSE)
