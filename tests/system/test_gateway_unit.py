"""What systemd makes of the gateway's unit, inside a machine that systemd runs.

In the gateway's place is a program of its manner: a first process, and one that holds sessions.
"""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.site import Person

pytestmark = pytest.mark.incus

UNIT = Path(__file__).parents[2] / "deploy/hutch-gateway.service"
GATEWAY = """#!/usr/bin/python3
import signal, subprocess, sys
if sys.argv[1] == "session":
    signal.pause()
signal.signal(signal.SIGHUP, lambda *_: sys.exit(0))
subprocess.Popen([sys.executable, __file__, "session"], start_new_session=True)
while True:
    signal.pause()
"""
SET_UP = """set -e
useradd --system --home /var/lib/hutch hutch
mkdir -p /var/lib/hutch/venv/bin
cat > /var/lib/hutch/venv/bin/hutch
chmod 755 /var/lib/hutch/venv/bin/hutch
"""


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    await root(alice, SET_UP, GATEWAY.encode())
    install = "cat > /etc/systemd/system/hutch-gateway.service"
    await root(alice, install, UNIT.read_bytes())
    await root(alice, "systemctl daemon-reload; systemctl enable --now hutch-gateway")
    return "box"


async def root(alice: Person, script: str, stdin: bytes = b"") -> str:
    argv = ("exec", "box", "--", "sudo", "sh", "-c", script)
    return (await alice.ok(*argv, stdin=stdin)).out.strip()


async def first(alice: Person) -> str:
    """The unit's first process, once there is one."""
    async with asyncio.timeout(30):
        while True:
            shown = await root(alice, "systemctl show -P MainPID hutch-gateway")
            if shown != "0":
                return shown


async def sessions(alice: Person, least: int) -> set[str]:
    """The processes that hold sessions, once there are so many."""
    async with asyncio.timeout(30):
        while True:
            found = set((await root(alice, "pgrep -f '[h]utch session' || true")).split())
            if len(found) >= least:
                return found


@pytest.mark.parametrize("verb", ["reload", "restart"])
async def test_a_newer_one_comes_and_sessions_stay(alice: Person, box: str, verb: str) -> None:
    old, held = await first(alice), await sessions(alice, 1)
    await root(alice, f"systemctl {verb} hutch-gateway")
    async with asyncio.timeout(30):
        while await first(alice) == old:
            pass
    assert held < await sessions(alice, len(held) + 1)


async def test_one_that_is_killed_comes_back(alice: Person, box: str) -> None:
    old, held = await first(alice), await sessions(alice, 1)
    await root(alice, f"kill -9 {old}")
    async with asyncio.timeout(30):
        while await first(alice) == old:
            pass
    assert held < await sessions(alice, len(held) + 1)


async def test_sessions_outlive_a_stop_until_they_are_told(alice: Person, box: str) -> None:
    held = await sessions(alice, 1)
    await root(alice, "systemctl stop hutch-gateway")
    assert await root(alice, "systemctl is-active hutch-gateway || true") == "inactive"
    assert await sessions(alice, 0) == held
    await root(alice, "systemctl kill --signal=INT hutch-gateway")
    async with asyncio.timeout(30):
        while await sessions(alice, 0):
            pass
    assert await root(alice, "systemctl is-active hutch-gateway || true") == "inactive"
