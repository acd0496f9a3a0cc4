"""The web terminal: how much it carries, and what others notice of somebody who prints without end.

One instance prints `yes` without end into a terminal that takes all of it; another person's shell,
in a second instance through the same server, echoes one key at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect

from bench import machine
from bench.byhand import Size
from bench.figures import Measure, Report, percentile
from bench.lab import Hutch, contest

KEYS = 200
FLOOD_SECONDS = 5.0
ECHO = 0.1
WINDOW = 1024 * 1024


def measure(rounds: int) -> Report:
    report = Report("The web terminal", machine.facts())
    with contest(Size()) as (hutch, _):
        for name in ("flooding", "typing"):
            hutch.log_in(hutch.create(name))
            # tmux draws a flood at a pace of its own: without it the terminal itself is measured.
            hutch.client.execute(name, ["rm", "/usr/bin/tmux"], root=True)
        alone, beside, speeds = asyncio.run(_measure(hutch, rounds))
        memory = hutch.server.memory()
    report.facts["load at the end"] = f"{machine.load():.2f}"
    report.measures = [
        Measure("bytes per second, one terminal", max(speeds) / 1e6, "MB/s"),
        Measure("echo of a key, alone, median", 1000 * percentile(alone, 0.5), "ms"),
        Measure("the same, 99 of 100", 1000 * percentile(alone, 0.99), "ms"),
        Measure(
            "echo while another prints without end, median", 1000 * percentile(beside, 0.5), "ms"
        ),
        Measure("the same, 99 of 100", 1000 * percentile(beside, 0.99), "ms", most=1000 * ECHO),
        Measure("the server's memory at its peak", memory[1], "MB"),
    ]
    return report


async def _measure(hutch: Hutch, rounds: int) -> tuple[list[float], list[float], list[float]]:
    alone: list[float] = []
    beside: list[float] = []
    speeds: list[float] = []
    async with _terminal(hutch, "typing") as typing:
        for _ in range(rounds):
            alone += await _echoes(typing, KEYS)
            async with _terminal(hutch, "flooding", window=WINDOW) as flooding:
                await flooding.send(b"yes the-quick-brown-fox-jumps-over-the-lazy-dog\r")
                taking = asyncio.create_task(_take(flooding))
                await asyncio.sleep(1)
                beside += await _echoes(typing, KEYS)
                speeds.append(await taking)
    return alone, beside, speeds


@asynccontextmanager
async def _terminal(hutch: Hutch, name: str, **query: int) -> AsyncGenerator[ClientConnection]:
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    url = f"{hutch.server.url.replace('http', 'ws')}/api/v1/instances/{name}/terminal?{asked}"
    headers = {"Authorization": f"Bearer {hutch.token}"}
    async with connect(url, additional_headers=headers, compression=None) as socket:
        # A plain one, which prints no more than the key that is typed.
        await socket.send(b"exec env -i TERM=xterm PS1= sh -i\r")
        await asyncio.sleep(1.5)
        await _quiet(socket)
        yield socket


async def _quiet(socket: ClientConnection) -> None:
    try:
        while True:
            async with asyncio.timeout(0.5):
                await socket.recv()
    except TimeoutError:
        return


async def _echoes(socket: ClientConnection, count: int) -> list[float]:
    found: list[float] = []
    for number in range(count):
        key = b"abcdefghij"[number % 10 : number % 10 + 1]
        began = time.perf_counter()
        await socket.send(key)
        async with asyncio.timeout(20):
            came = b""
            while key not in came:
                message = await socket.recv()
                came += message if isinstance(message, bytes) else b""
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    await socket.send(b"\x15")  # nothing of it is to be run
    await _quiet(socket)
    return found


async def _take(socket: ClientConnection) -> float:
    """Bytes per second of what is taken as fast as it comes."""
    came = told = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < FLOOD_SECONDS:
        message = await socket.recv()
        came += len(message)
        if came - told >= WINDOW // 4:
            told = came
            await socket.send(json.dumps({"type": "ack", "bytes": came}))
    await socket.send(b"\x03")
    return came / (now - began)
