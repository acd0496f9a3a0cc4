"""The scheduler alone: one pass over a large lab, how it grows, and what plainness would cost.

A lab of one size has for each thousand nodes 8,000 accelerators, 5,000 leases that hold some of
them, 1,000 that wait, 50 groups and 1,000 people. It is made by chance from a fixed seed, and is
the same in every run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from bench import machine
from bench.figures import Measure, Report, median
from bench.plain_scheduler import PlainScheduler
from hutch.domain.leases import LeaseState
from hutch.domain.scheduler import Device, GroupShare, Plan, Policy, Request, Situation, decide

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SIZES = (100, 1_000, 10_000)
"""Nodes."""
SMALL = 20
"""Nodes of the lab on which the plain scheduler runs as well: it would take hours for a large."""


def measure(rounds: int, sizes: tuple[int, ...] = SIZES, small: int = SMALL) -> Report:
    report = Report("The scheduler alone", machine.facts())
    per_lease: list[float] = []
    for nodes in sizes:
        busy = make_lab(nodes)
        settled = carried_out(busy, decide(busy))
        passes = [_timed(partial(decide, settled)) for _ in range(rounds)]
        granting = [_timed(partial(decide, busy)) for _ in range(rounds)]
        wall, processor = zip(*passes, strict=True)
        leases = len(settled.requests)
        per_lease.append(min(processor) / leases)
        what = f"{nodes:,} nodes, {len(settled.devices):,} accelerators, {leases:,} leases"
        aim = 50 if nodes == 1_000 else None
        report.measures += [
            Measure(what, median(wall) * 1e3, "ms", most=aim),
            Measure("the same, processor time of the fastest", min(processor) * 1e3, "ms"),
            Measure(
                f"the same, with {len(decide(busy).grants)} grants",
                median([seconds for seconds, _ in granting]) * 1e3,
                "ms",
            ),
        ]
    growth = per_lease[-1] / per_lease[-2]
    report.measures.append(
        Measure(f"time per lease, {sizes[-1]:,} to {sizes[-2]:,} nodes", growth, "times", most=2)
    )
    report.measures += _compared(small)
    report.facts["load at the end"] = f"{machine.load():.2f}"
    return report


def _compared(nodes: int) -> list[Measure]:
    """The real and the plain scheduler, in turns, on the same small lab."""
    lab = make_lab(nodes)
    verdicts = PlainScheduler(lab).decide()
    plan = decide(lab)
    if {g.request_id: g.devices for g in plan.grants} != {
        id_: verdict.devices for id_, verdict in verdicts.items() if verdict.devices
    }:
        raise AssertionError("the two do not grant the same: there is nothing to compare")
    pairs = [
        (_timed(lambda: decide(lab))[1], _timed(lambda: PlainScheduler(lab).decide())[1])
        for _ in range(3)
    ]
    ours, plain = (min(times) for times in zip(*pairs, strict=True))
    return [
        Measure(f"{nodes} nodes, {len(lab.requests)} leases: hutch", ours * 1e3, "ms"),
        Measure("the same rules written plainly", plain * 1e3, "ms"),
        Measure("so much longer does plainness take", plain / ours, "times"),
    ]


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    began, began_working = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - began_working


def make_lab(nodes: int, seed: int = 1) -> Situation:
    """A lab in which more is asked for than there is, as it is found before a pass."""
    chance = random.Random(seed)
    models = ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", "Tesla V100-SXM2-32GB")
    free = {f"node{n}": [f"node{n}-gpu{i}" for i in range(8)] for n in range(nodes)}
    devices = [
        Device(id_, node_id, models[number % 3], 1, is_grantable=chance.random() > 0.01)
        for number, (node_id, ids) in enumerate(free.items())
        for id_ in ids
    ]
    groups = max(1, nodes // 20)
    requests: list[Request] = []
    while len(requests) < 5 * nodes:
        node_id, count = f"node{chance.randrange(nodes)}", chance.choice((1, 1, 1, 2, 2))
        if len(free[node_id]) >= count:
            held = tuple(free[node_id].pop() for _ in range(count))
            requests.append(
                _holding(_asked(chance, len(requests), nodes, node_id, count), held, chance)
            )
    for number in range(len(requests), len(requests) + nodes):
        node_id, count = f"node{chance.randrange(nodes)}", chance.choice((1, 1, 2, 2, 4, 8))
        requests.append(_asked(chance, number, nodes, node_id, count))
    usage = {f"group:group{n}": chance.uniform(0, 1e6) for n in range(groups)}
    usage |= {f"user:person{n}": chance.uniform(0, 1e5) for n in range(nodes)}
    return Situation(
        now=NOW,
        devices=devices,
        requests=requests,
        groups={
            f"group{n}": GroupShare(chance.randrange(300), None, chance.choice((1.0, 2.0)))
            for n in range(groups)
        },
        maximum={f"person{n}": 64 for n in range(nodes)},
        usage=usage,
        policy=Policy(protection=60 * MINUTE, reclaim_warning=10 * MINUTE),
    )


def _asked(chance: random.Random, number: int, nodes: int, node_id: str, count: int) -> Request:
    person = chance.randrange(nodes)
    return Request(
        id=f"{number:08x}",
        instance_id=f"box{number}",
        owner_id=f"person{person}",
        group_id=f"group{person % max(1, nodes // 20)}" if person % 10 else None,
        node_id=node_id,
        count=count,
        model=None,
        duration=chance.randrange(30, 2_000) * MINUTE,
        state=LeaseState.QUEUED,
        requested_at=NOW - chance.randrange(1, 600) * MINUTE,
    )


def _holding(request: Request, devices: tuple[str, ...], chance: random.Random) -> Request:
    return replace(
        request,
        state=LeaseState.ACTIVE,
        granted_at=request.requested_at,
        expires_at=NOW + chance.randrange(1, 2_000) * MINUTE,
        devices=devices,
    )


def carried_out(lab: Situation, plan: Plan) -> Situation:
    """The lab once what a plan grants and announces has been carried out."""
    granted = {grant.request_id: grant.devices for grant in plan.grants}
    return replace(
        lab,
        requests=[
            replace(
                each,
                state=LeaseState.ACTIVE,
                granted_at=lab.now,
                expires_at=lab.now + each.duration,
                devices=granted[each.id],
            )
            if each.id in granted
            else replace(each, reclaim_due=plan.warn.get(each.id))
            for each in lab.requests
        ],
    )
