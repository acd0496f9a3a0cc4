"""The machine that measures: what it is, how busy it is, and waiting until it is quiet."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def facts() -> dict[str, str]:
    """What somebody needs to know to judge the numbers, or to repeat them."""
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores of {_cpu()}, {_memory()} of memory",
        "system": f"{_system()}, Linux {platform.release()}, Python {platform.python_version()}",
        "Incus": _said("incus", "--version") or "not installed",
        "hutch": _said("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD") or "unknown",
        "load at the start": f"{load():.2f}",
    }


def load() -> float:
    """Processes that ran or wanted to, on average over the last minute."""
    return os.getloadavg()[0]


def wait_until_quiet(most: float, patience: float, *, step: float = 2.0) -> None:
    """Until the load is at most `most`, or `patience` seconds have passed."""
    end = time.monotonic() + patience
    while load() > most and time.monotonic() < end:
        time.sleep(step)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GiB"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
