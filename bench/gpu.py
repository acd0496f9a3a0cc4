"""Accelerators: hutch against `incus config device`, in turns on the same Incus.

| what        | hutch                                    | by hand                                |
|-------------|------------------------------------------|----------------------------------------|
| take        | POST until the device is there inside    | config device add, until it is there   |
| release     | DELETE until the lease has ended         | config device remove                   |
| hand on     | DELETE until the next in the queue has   | config device remove, then             |
|             | the device inside                        | config device add to another           |

The devices are simulated, but real character devices: what is measured is hutch, the node's agent
and Incus, not a driver. A release by hand asks nobody whether the device is in use.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from bench import machine
from bench.byhand import ByHand, Machine, Size
from bench.figures import Comparison, Report
from bench.lab import Hutch, contest
from bench.lifecycle import Clock, Samples, in_turn
from bench.node import agent

TAKE = RELEASE = 1.5
GPUS = 1
_NAMES = ("first", "second")
_PAUSE = 0.001
_LONG_POLL = 30
_PATIENCE = 30.0
_INSIDE = "dev/hutch-gpu0"


def measure(rounds: int) -> Report:
    report = Report("Accelerators", machine.facts())
    clock = Clock()
    with contest(Size()) as (hutch, by_hand), agent(hutch, GPUS) as devices:
        for name in _NAMES:
            hutch.log_in(hutch.create(name))
        mine = [by_hand.new() for _ in _NAMES]
        for each in mine:
            by_hand.create(each)
        roots = _roots(hutch, by_hand, mine)
        contenders = (
            lambda: _with_hutch(clock, hutch, roots),
            lambda: _by_hand(clock, by_hand, mine, devices / "0", roots),
        )
        for number in range(-1, rounds):
            in_turn(number, *contenders)
            if number < 0:
                # The first time Python and Incus read what they need: nobody's fault.
                clock.samples.clear()
    report.facts["load at the end"] = f"{machine.load():.2f}"
    report.comparisons = _compare(clock.samples)
    return report


def _with_hutch(clock: Clock, hutch: Hutch, roots: dict[str, Path]) -> None:
    client = hutch.client
    with clock("take"):
        lease = client.take(1, instance="first")
        _until_there(roots["first"])
    lease = client.show_lease(lease["id"], wait=_LONG_POLL)
    with clock("release"):
        _release(hutch, lease["id"])
    first = client.show_lease(client.take(1, instance="first")["id"], wait=_LONG_POLL)
    waiting = client.take(1, instance="second")
    with clock("hand on"):
        client.release(lease=first["id"])
        _until_there(roots["second"])
    client.show_lease(waiting["id"], wait=_LONG_POLL)
    _release(hutch, waiting["id"])


def _release(hutch: Hutch, lease_id: str) -> None:
    """As the command line does: until nobody has it open, and the next may have it."""
    [lease] = hutch.client.release(lease=lease_id)
    while lease["state"] != "ended":
        lease = hutch.client.show_lease(lease_id, wait=_LONG_POLL, seen=lease["version"])


def _by_hand(
    clock: Clock, by_hand: ByHand, machines: list[Machine], device: Path, roots: dict[str, Path]
) -> None:
    first, second = (each.name for each in machines)
    with clock("take by hand"):
        _add(by_hand, first, device)
        _until_there(roots[first])
    with clock("release by hand"):
        _remove(by_hand, first)
    _add(by_hand, first, device)
    with clock("hand on by hand"):
        _remove(by_hand, first)
        _add(by_hand, second, device)
        _until_there(roots[second])
    _remove(by_hand, second)


def _add(by_hand: ByHand, name: str, device: Path) -> None:
    by_hand.run(
        "incus", "config", "device", "add", name, "gpu", "unix-char", "--quiet",
        f"source={device}", f"path=/{_INSIDE}", "mode=0666",
    )  # fmt: skip


def _remove(by_hand: ByHand, name: str) -> None:
    by_hand.run("incus", "config", "device", "remove", name, "gpu", "--quiet")


def _roots(hutch: Hutch, by_hand: ByHand, machines: list[Machine]) -> dict[str, Path]:
    """Where the node sees what each machine sees as its `/`, by the name of the machine."""
    listed = json.loads(by_hand.run("incus", "list", "--format=json"))
    named = {hutch.client.show_instance(name)["id"]: name for name in _NAMES}
    named |= {each.name: each.name for each in machines}
    return {
        named[name]: Path(f"/proc/{each['state']['pid']}/root")
        for each in listed
        if (name := each["config"].get("user.hutch.instance", each["name"])) in named
    }


def _until_there(root: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while not (root / _INSIDE).exists():
        if time.monotonic() > end:
            raise RuntimeError(f"no device came into {root}")
        time.sleep(_PAUSE)


def _compare(s: Samples) -> list[Comparison]:
    return [
        Comparison("take, until the device is there inside", s["take"], s["take by hand"], TAKE),
        Comparison("release, nothing holds it", s["release"], s["release by hand"], RELEASE),
        Comparison("release, until the next in the queue has it", s["hand on"],
                   s["hand on by hand"], None, "by hand two commands"),
    ]  # fmt: skip
