"""Three ways in which Incus leads a host port to a container, each set up and taken down in turns.

| way     | what it is                                                                            |
|---------|---------------------------------------------------------------------------------------|
| helper  | a proxy device: a process of Incus per container and port carries every byte          |
| nat     | a proxy device with nat=true: rules in the kernel's firewall                          |
| forward | a port of a network forward of the bridge: such rules too, kept with the network      |

Through the REST API, so that the start of the `incus` command is no part of it. Measured from the
request until an SSH server greets at the port.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.ports import claimed

from bench import machine, ssh
from bench.byhand import ByHand, Machine, Size
from bench.figures import Measure, Report, median
from bench.lab import node_address
from hutch.setup.commands import run
from hutch.setup.incus_api import IncusApi
from hutch.setup.private import PrivateIncus

_ADDRESS = "203.0.113.77"
"""For the network forward, which refuses one that a network card or a proxy has. It is of a network
that is for documentation: nobody has it."""
_DEVICE = "measured"


def measure(rounds: int) -> Report:
    report = Report("Three ways to lead a host port to a container", machine.facts())
    host = node_address()
    incus = PrivateIncus()
    incus.start()
    try:
        with (
            claimed() as ports,
            tempfile.TemporaryDirectory(prefix="hutch-bench-") as folder,
            incus.api() as api,
        ):
            by_hand = ByHand(incus, host, Size(), ports.first)
            by_hand.make_image(Path(folder), ssh.make_key(Path(folder) / "key"))
            target = by_hand.new()
            by_hand.create(target)
            # It goes when the bridge goes.
            run(["ip", "address", "add", f"{_ADDRESS}/32", "dev", incus.network])
            report.measures = _measure(_Ways(api, incus.network, target, host), rounds, target.port)
    finally:
        incus.remove()
    report.facts["load at the end"] = f"{machine.load():.2f}"
    return report


class _Ways:
    """Sets each kind of forward up and takes it down again."""

    def __init__(self, api: IncusApi, network: str, target: Machine, host: str) -> None:
        self._api = api
        self._instance = f"/instances/{target.name}"
        self._address = target.address
        self.host = host
        self._forward = f"/networks/{network}/forwards/{_ADDRESS}"
        api.call("POST", f"/networks/{network}/forwards", {"listen_address": _ADDRESS})

    def add_helper(self, port: int) -> None:
        self._add_device(port, {"connect": "tcp:127.0.0.1:22"})

    def add_nat(self, port: int) -> None:
        self._add_device(port, {"connect": f"tcp:{self._address}:22", "nat": "true"})

    def _add_device(self, port: int, keys: dict[str, str]) -> None:
        device = {"type": "proxy", "listen": f"tcp:{self.host}:{port}", **keys}
        self._api.call("PATCH", self._instance, {"devices": {_DEVICE: device}})

    def remove_device(self) -> None:
        instance: dict[str, Any] = self._api.get(self._instance)
        del instance["devices"][_DEVICE]
        self._api.call("PUT", self._instance, instance)

    def add_forward(self, port: int) -> None:
        self._set_forwards(
            [{
                "protocol": "tcp",
                "listen_port": str(port),
                "target_address": self._address,
                "target_port": "22",
            }]
        )  # fmt: skip

    def remove_forward(self) -> None:
        self._set_forwards([])

    def _set_forwards(self, ports: list[dict[str, str]]) -> None:
        self._api.call("PUT", self._forward, {"config": {}, "description": "", "ports": ports})


def _measure(ways: _Ways, rounds: int, last_port: int) -> list[Measure]:
    kinds: dict[str, tuple[str, Callable[[int], None], Callable[[], None]]] = {
        "helper proxy": (ways.host, ways.add_helper, ways.remove_device),
        "nat proxy": (ways.host, ways.add_nat, ways.remove_device),
        "network forward": (_ADDRESS, ways.add_forward, ways.remove_forward),
    }
    up: dict[str, list[float]] = {kind: [] for kind in kinds}
    down: dict[str, list[float]] = {kind: [] for kind in kinds}
    greeting: dict[str, list[float]] = {kind: [] for kind in kinds}
    port = last_port
    for _ in range(rounds):
        for kind, (host, add, remove) in kinds.items():
            port += 1
            up[kind].append(_timed(partial(_stand, host, add, port)))
            greeting[kind].append(_timed(partial(ssh.wait_for_banner, host, port)))
            down[kind].append(_timed(remove))
    return [
        *(Measure(f"{kind}: until SSH greets", median(up[kind]) * 1000, "ms") for kind in kinds),
        *(Measure(f"{kind}: another connection", median(greeting[kind]) * 1000, "ms")
          for kind in kinds),
        *(Measure(f"{kind}: taken down", median(down[kind]) * 1000, "ms") for kind in kinds),
    ]  # fmt: skip


def _stand(host: str, add: Callable[[int], None], port: int) -> None:
    add(port)
    ssh.wait_for_banner(host, port)


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
