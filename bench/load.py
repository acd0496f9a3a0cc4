"""The load generator, a process of its own: `python -m bench.load PLAN.json`.

The plan lists phases, each with its requests, connections and bounds; the answer on standard output
lists the latencies by kind. It speaks just enough HTTP to cost little beside what it measures, and
only to loopback.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

MOST_REQUESTS = 100_000
MOST_SECONDS = 60.0
MOST_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Request:
    kind: str
    method: str
    path: str
    token: str
    body: str = ""

    def as_bytes(self) -> bytes:
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.token}",
        ]
        if self.body:
            lines.append("Content-Type: application/json")
        if self.body or self.method != "GET":
            lines.append(f"Content-Length: {len(self.body.encode())}")
        return "\r\n".join([*lines, "", self.body]).encode()


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    connections: int
    count: int
    """Requests, at most."""
    seconds: float
    """At most."""
    requests: list[Request]
    """Sent one after the other, from the beginning again when they are used up."""

    def check(self) -> Phase:
        if not (
            0 < self.count <= MOST_REQUESTS
            and 0 < self.seconds <= MOST_SECONDS
            and 0 < self.connections <= MOST_CONNECTIONS
        ):
            raise ValueError(f"phase {self.name} is not bounded as it must be")
        return self


@dataclass
class Result:
    name: str
    seconds: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds from sending a request to the last byte of its answer, by kind."""
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Answers that were not 2xx, by kind and status."""


async def run(port: int, phase: Phase) -> Result:
    """One phase: every connection sends its next request when it has the answer to the last."""
    result = Result(phase.name)
    began = time.perf_counter()
    end = began + phase.seconds
    pending = itertools.islice(itertools.cycle(phase.requests), phase.count)
    async with asyncio.TaskGroup() as group:
        for _ in range(phase.connections):
            group.create_task(_drive(port, pending, end, result))
    result.seconds = time.perf_counter() - began
    return result


async def _drive(port: int, pending: Iterator[Request], end: float, result: Result) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        for request in pending:
            began = time.perf_counter()
            if began >= end:
                return
            writer.write(request.as_bytes())
            status = await _answer(reader)
            result.latencies[request.kind].append(time.perf_counter() - began)
            if not 200 <= status < 300:
                result.refused[f"{request.kind} {status}"] += 1
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    for line in head[1:]:
        name, _, value = line.partition(":")
        if name == "content-length":
            await reader.readexactly(int(value))
    return int(head[0].split()[1])


def loopback_port(url: str) -> int:
    """The port in `url`. ValueError for anything but a server on loopback: no other is loaded."""
    parts = urlsplit(url)
    if parts.hostname != "127.0.0.1" or parts.port is None:
        raise ValueError(f"{url} is not a port of 127.0.0.1")
    return parts.port


def read_phase(given: dict[str, Any]) -> Phase:
    """A phase of a plan. ValueError when it is not bounded."""
    return Phase(
        name=given["name"],
        connections=given["connections"],
        count=given["count"],
        seconds=given["seconds"],
        requests=[Request(*each) for each in given["requests"]],
    ).check()


def main() -> int:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    port = loopback_port(str(plan["url"]))
    phases = [read_phase(phase) for phase in plan["phases"]]
    answers: list[dict[str, Any]] = []
    for phase in phases:
        spent = time.process_time()
        result = uvloop.run(run(port, phase))
        answers.append(
            {
                "name": result.name,
                "seconds": result.seconds,
                "latencies": result.latencies,
                "refused": result.refused,
                "processor": (time.process_time() - spent) / result.seconds,
            }
        )
    json.dump(answers, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
