"""The server as a lab uses it: 2,000 simulated instances, 500 people, one process, both databases.

The load comes from a second process on the same machine, so the two share its processors; how much
the generator took is in the notes.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

from bench import databases, machine
from bench.figures import Measure, Report, median, percentile
from bench.load import Phase, Request
from bench.machine import REPOSITORY
from bench.population import Person, Population, settle, write_plan
from bench.server import Server
from hutch.api.app import open_context
from hutch.settings import Settings

PEOPLE, INSTANCES = 500, 2000
LIST_P95, RATE, MEMORY, READY = 50.0, 500.0, 200.0, 3.0
_MIX = {"own list": 50, "one instance": 25, "me": 10, "operations": 6, "keys": 4, "page of all": 4,
        "change": 1}  # fmt: skip
"""What a hundred requests of a working day are made of, roughly: mostly the list."""


def measure(rounds: int) -> Report:
    """The load once for each database, the restart in as many rounds."""
    report = Report("The server under load", machine.facts())
    for kind in databases.available():
        _measure(report, kind, rounds)
    report.facts["load at the end"] = f"{machine.load():.2f}"
    if "postgresql" not in databases.available():
        report.notes.append("PostgreSQL is not installed here: only SQLite was measured.")
    return report


def _measure(report: Report, kind: str, rounds: int) -> None:
    with databases.fresh(kind) as (folder, url):
        lab = asyncio.run(_settle(folder, url))
        server = Server(folder, database_url=url)
        server.start()
        try:
            idle, _ = server.memory()
            answers = _load(server, lab)
            resident, peak = server.memory()
            report.measures += _latencies(kind, answers)
            report.measures += [
                Measure(f"{kind}: memory of the server, at rest", idle, "MB", MEMORY),
                Measure(f"{kind}: memory after the load", resident, "MB", MEMORY),
                Measure(f"{kind}: memory at most", peak, "MB"),
                Measure(f"{kind}: ready after kill -9", _ready(server, rounds), "s", READY),
            ]
            report.notes += _notes(kind, answers)
        finally:
            server.stop()


async def _settle(folder: Path, url: str) -> Population:
    context = open_context(Settings(data=folder, database_url=url))
    try:
        return await settle(context, folder / "engine.db", PEOPLE, INSTANCES)
    finally:
        await context.engines.close()
        await context.db.close()


def _load(server: Server, lab: Population) -> list[dict[str, Any]]:
    plan = server.data / "plan.json"
    phases = plan_phases(lab)
    write_plan(plan, {"url": server.url, "phases": [_as_json(phase) for phase in phases]})
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(plan)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _as_json(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "connections": phase.connections,
        "count": phase.count,
        "seconds": phase.seconds,
        "requests": [astuple(request) for request in phase.requests],
    }


def plan_phases(lab: Population) -> list[Phase]:
    """What is asked, in which order. The same in every run: chance is seeded."""
    chance = random.Random(7)
    own = [_of_kind("own list", person, lab, chance) for person in lab.members]
    page = [_of_kind("page of all", lab.administrator, lab, chance)]
    whole = [Request("whole list", "GET", "/api/v1/instances?all=true", lab.administrator.token)]
    kinds = chance.choices(list(_MIX), weights=list(_MIX.values()), k=20_000)
    mixed = [_of_kind(kind, chance.choice(lab.members), lab, chance) for kind in kinds]
    return [
        Phase("warm-up", 8, 1000, 10, own),
        Phase("own list, alone", 1, 1000, 10, own),
        Phase("own list, 8 at once", 8, 4000, 10, own),
        Phase("page of 100 of all, alone", 1, 200, 10, page),
        Phase("all 2,000 at once, alone", 1, 40, 20, whole),
        Phase("mixed, 16 at once", 16, 20_000, 20, mixed),
    ]


def _of_kind(kind: str, person: Person, lab: Population, chance: random.Random) -> Request:
    one = f"/api/v1/instances/{chance.choice(person.instances)}" if person.instances else ""
    match kind:
        case "own list":
            return Request(kind, "GET", "/api/v1/instances", person.token)
        case "one instance":
            return Request(kind, "GET", one, person.token)
        case "me":
            return Request(kind, "GET", "/api/v1/me", person.token)
        case "operations":
            return Request(kind, "GET", "/api/v1/operations", person.token)
        case "keys":
            return Request(kind, "GET", "/api/v1/keys", person.token)
        case "page of all":
            path = "/api/v1/instances?all=true&limit=100"
            return Request(kind, "GET", path, lab.administrator.token)
        case _:
            memory = chance.choice(["2GiB", "3GiB", "4GiB"])
            return Request("change", "PATCH", one, person.token, json.dumps({"memory": memory}))


def _latencies(kind: str, answers: list[dict[str, Any]]) -> list[Measure]:
    found: list[Measure] = []
    for answer in answers[1:]:
        name = f"{kind}: {answer['name']}"
        everything = [each for some in answer["latencies"].values() for each in some]
        if answer["name"].startswith("mixed"):
            rate = len(everything) / answer["seconds"]
            found.append(Measure(f"{name}, rate", rate, "requests/s", least=RATE))
        aim = None if answer["name"].startswith("all") else LIST_P95
        found += [
            Measure(f"{name}, median", percentile(everything, 0.5) * 1000, "ms"),
            Measure(f"{name}, 95 %", percentile(everything, 0.95) * 1000, "ms", aim),
        ]
    return found


def _notes(kind: str, answers: list[dict[str, Any]]) -> list[str]:
    refused = {key: n for answer in answers for key, n in answer["refused"].items()}
    count = sum(len(some) for answer in answers for some in answer["latencies"].values())
    shares = ", ".join(f"{a['name']} {a['processor']:.0%}" for a in answers[1:])
    note = f"{kind}: {count:,} requests, not answered with success: {refused or 'none'}."
    return [f"{note} The generator took of one core: {shares}."]


def _ready(server: Server, rounds: int) -> float:
    """Seconds until ready after a kill -9."""
    times: list[float] = []
    for _ in range(rounds):
        server.kill()
        times.append(server.start())
    return median(times)
