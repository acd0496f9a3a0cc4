"""Twenty creations at once: hutch against as many chains of `incus` commands, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench import machine, ssh
from bench.byhand import ByHand, Machine, Size
from bench.figures import Comparison, Measure, Report, median
from bench.lab import Hutch, contest
from hutch.client.client import Client

AT_ONCE = 20
MOST = 1.1
_SIZE = Size(memory=384 * 1024**2)


def measure(rounds: int, at_once: int = AT_ONCE) -> Report:
    report = Report(f"{at_once} creations at once", machine.facts())
    by_hutch: list[list[float]] = []
    by_hand: list[list[float]] = []
    with contest(_SIZE) as (hutch, hand), ThreadPoolExecutor(at_once) as threads:
        _warm_up(hutch, hand)
        turns: list[Callable[[], None]] = [
            lambda: by_hutch.append(_with_hutch(hutch, threads, at_once)),
            lambda: by_hand.append(_by_hand(hand, threads, at_once)),
        ]
        for number in range(rounds):
            for position in range(len(turns)):
                turns[(number + position) % len(turns)]()
    report.facts["load at the end"] = f"{machine.load():.2f}"
    report.comparisons = [
        Comparison(
            "until the last of them greets", [max(t) for t in by_hutch], [max(t) for t in by_hand],
            MOST,
        ),
        Comparison(
            "half of them greet", [median(t) for t in by_hutch], [median(t) for t in by_hand]
        ),
        Comparison(
            "until the first of them greets", [min(t) for t in by_hutch], [min(t) for t in by_hand]
        ),
    ]  # fmt: skip
    report.measures = [Measure("rounds", rounds, "")]
    return report


def _warm_up(hutch: Hutch, by_hand: ByHand) -> None:
    hutch.create("warm")
    hutch.delete("warm")
    machine_ = by_hand.new()
    by_hand.create(machine_)
    by_hand.delete(machine_)


def _with_hutch(hutch: Hutch, threads: ThreadPoolExecutor, at_once: int) -> list[float]:
    """Seconds until each greets, from the moment when all were asked for."""
    names = [f"many-{number}" for number in range(at_once)]
    began = time.perf_counter()

    def create(name: str) -> float:
        with Client(hutch.server.url, hutch.token) as client:
            one = Hutch(hutch.server, hutch.administrator, client, hutch.key, hutch.token)
            place = one.create(name)
            ssh.wait_for_banner(place.host, place.port)
            return time.perf_counter() - began

    times = list(threads.map(create, names))
    for operation in [hutch.client.delete_instance(name)["operation"] for name in names]:
        hutch.finish(operation)
    return times


def _by_hand(by_hand: ByHand, threads: ThreadPoolExecutor, at_once: int) -> list[float]:
    machines = [by_hand.new() for _ in range(at_once)]
    began = time.perf_counter()

    def create(it: Machine) -> float:
        by_hand.create(it)
        return time.perf_counter() - began

    times = list(threads.map(create, machines))
    for it in machines:
        by_hand.delete(it)
    return times
