"""One instance's life: hutch against the `incus` command, in turns on the same Incus.

| what     | hutch                               | by hand                                  |
|----------|-------------------------------------|------------------------------------------|
| create   | POST until `ssh … true` succeeds    | init, device add, start, until SSH greets|
| start    | POST until done, when SSH answers   | start, until SSH greets                  |
| stop     | POST until done                     | stop                                     |
| snapshot | POST until done                     | snapshot create                          |
| restore  | POST until SSH greets: it keeps the | snapshot restore, until SSH greets;      |
|          | present, stops, restores, starts    | and the same four commands               |
| delete   | DELETE of a running one until done  | delete --force                           |
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager

from bench import machine, ssh
from bench.byhand import ByHand, Size
from bench.figures import Comparison, Measure, Report, median
from bench.lab import Hutch, contest

COLD, POOLED, OTHER = 1.15, 0.3, 1.2
POOL = 3

Samples = dict[str, list[float]]


class Clock:
    """Stopwatches by name: `with clock("start"): …`."""

    def __init__(self) -> None:
        self.samples: Samples = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        began = time.perf_counter()
        yield
        self.samples[name].append(time.perf_counter() - began)


def measure(rounds: int) -> Report:
    report = Report("One instance's life", machine.facts())
    clock = Clock()
    with contest(Size()) as (hutch, by_hand):
        _warm_up(hutch, by_hand)
        for number in range(rounds):
            in_turn(number, *_cold(clock, hutch, by_hand, number))
        for number in range(rounds):
            in_turn(number, *_pooled(clock, hutch, by_hand, number))
    report.facts["load at the end"] = f"{machine.load():.2f}"
    report.comparisons = _compare(clock.samples)
    report.measures = _details(clock.samples)
    return report


def in_turn(number: int, *contenders: Callable[[], None]) -> None:
    """Each once, another one first in each round: whoever is first meets the colder machine."""
    for position in range(len(contenders)):
        contenders[(number + position) % len(contenders)]()


def _warm_up(hutch: Hutch, by_hand: ByHand) -> None:
    """The first container of an image waits until Incus has unpacked it: nobody's fault."""
    hutch.log_in(hutch.create("warm"))
    hutch.delete("warm")
    machine_ = by_hand.new()
    by_hand.create(machine_)
    by_hand.delete(machine_)


def _cold(
    clock: Clock, hutch: Hutch, by_hand: ByHand, number: int
) -> tuple[Callable[[], None], ...]:
    return (
        lambda: _life_with_hutch(clock, hutch, f"api-{number}"),
        lambda: _create_by_command(clock, hutch, f"cli-{number}", "cold"),
        lambda: _life_by_hand(clock, hutch, by_hand),
        lambda: _create_by_hand(clock, hutch, by_hand, "cold by hand, helper", nat=False),
    )


def _pooled(
    clock: Clock, hutch: Hutch, by_hand: ByHand, number: int
) -> tuple[Callable[[], None], ...]:
    def through_the_api() -> None:
        hutch.set_pool(POOL)
        _create_with_hutch(clock, hutch, f"pool-api-{number}", "pooled")
        hutch.delete(f"pool-api-{number}")

    def by_command() -> None:
        hutch.set_pool(POOL)
        _create_by_command(clock, hutch, f"pool-cli-{number}", "pooled")

    def by_hand_() -> None:
        # Full, so that nothing is made in the background meanwhile.
        hutch.set_pool(POOL)
        _create_by_hand(clock, hutch, by_hand, "beside the pool by hand", nat=True)

    return through_the_api, by_command, by_hand_


def _create_with_hutch(clock: Clock, hutch: Hutch, name: str, kind: str) -> ssh.Door:
    with clock(f"{kind} until login"):
        with clock(f"{kind} until SSH"):
            place = hutch.create(name)
            ssh.wait_for_banner(place.host, place.port)
        hutch.log_in(place)
    return place


def _create_by_command(clock: Clock, hutch: Hutch, name: str, kind: str) -> None:
    with clock(f"{kind} by command until login"):
        hutch.log_in(hutch.create_by_command(name))
    hutch.delete(name)


def _create_by_hand(clock: Clock, hutch: Hutch, by_hand: ByHand, kind: str, *, nat: bool) -> None:
    machine_ = by_hand.new()
    with clock(kind):
        by_hand.create(machine_, nat=nat)
    with clock("login by hand"):
        hutch.log_in(by_hand.door(machine_))
    by_hand.delete(machine_)


def _life_with_hutch(clock: Clock, hutch: Hutch, name: str) -> None:
    place = _create_with_hutch(clock, hutch, name, "cold")
    client = hutch.client
    with clock("stop"):
        hutch.finish(client.stop_instance(name)["operation"])
    with clock("start"):
        hutch.finish(client.start_instance(name)["operation"])
    with clock("snapshot"):
        hutch.finish(client.create_snapshot(name, "one")["operation"])
    with clock("restore"):
        hutch.finish(client.restore_snapshot(name, "one")["operation"])
        ssh.wait_for_banner(place.host, place.port)
    with clock("delete"):
        hutch.delete(name)


def _life_by_hand(clock: Clock, hutch: Hutch, by_hand: ByHand) -> None:
    it = by_hand.new()
    with clock("cold by hand until login"):
        with clock("cold by hand"):
            by_hand.create(it)
        hutch.log_in(by_hand.door(it))
    with clock("stop by hand"):
        by_hand.stop(it)
    with clock("start by hand"):
        by_hand.start(it)
    with clock("snapshot by hand"):
        by_hand.snapshot(it, "one")
    with clock("restore by hand"):
        by_hand.restore(it, "one")
        by_hand.wait(it)
    with clock("restore by hand, as hutch does"):
        by_hand.snapshot(it, "before")
        by_hand.stop(it)
        by_hand.restore(it, "one")
        by_hand.start(it)
    with clock("delete by hand"):
        by_hand.delete(it)


def _compare(s: Samples) -> list[Comparison]:
    cold, pool = s["cold by hand"], s["beside the pool by hand"]
    helper = s["cold by hand, helper"]
    return [
        Comparison("create, cold, until login", s["cold until login"], cold, COLD,
                   "by hand until SSH greets: nobody logs in"),
        Comparison("the same, both until SSH greets", s["cold until SSH"], cold),
        Comparison("the same, both until login", s["cold until login"],
                   s["cold by hand until login"]),
        Comparison("the same, `hutch create`", s["cold by command until login"], cold, None,
                   "the start of the program included"),
        Comparison("the same, by hand with a helper's port", s["cold until login"], helper),
        Comparison("create, from the pool, until login", s["pooled until login"], pool, POOLED),
        Comparison("the same, both until SSH greets", s["pooled until SSH"], pool),
        Comparison("the same, `hutch create`", s["pooled by command until login"], pool),
        *(Comparison(what, s[what], s[f"{what} by hand"], OTHER)
          for what in ("start", "stop", "snapshot", "delete")),
        Comparison("restore", s["restore"], s["restore by hand"], OTHER,
                   "hutch keeps the present and shuts down cleanly; by hand neither"),
        Comparison("restore, like for like", s["restore"], s["restore by hand, as hutch does"],
                   None, "by hand the same steps"),
    ]  # fmt: skip


def _details(s: Samples) -> list[Measure]:
    return [Measure("one login by `ssh … true`, by hand", median(s["login by hand"]), "s")]
