"""One look at everything: what the node has, what it does, who has it open."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hutch.agent import amd, discovery, holders, jetson, processes
from hutch.agent.nvml import Nvml
from hutch.agent.processes import PROC, Container
from hutch.agent.simulated import Simulated
from hutch.domain.accelerators import (
    FoundAccelerator,
    Health,
    OpenedDevice,
    Process,
    Reading,
    Vendor,
)
from hutch.domain.sizes import LARGEST

DISCOVER_SECONDS = 10.0
"""How often the buses are looked at for what was put in or has gone."""
BREATHER = 20.0
"""After a look through every process, none for this many times what it took."""
LONGEST_REASON = 300
MOST_PROCESSES = 64
"""Processes that are told of one accelerator."""

Look = tuple[list[FoundAccelerator], list[Reading]]


class Watch:
    """The node's accelerators. For one thread at a time, which a broken device may hold up."""

    def __init__(
        self,
        simulated: Simulated | None = None,
        *,
        root: Path = Path("/"),
        proc: Path = PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._simulated = simulated
        self._root = root
        self._proc = proc
        self._clock = clock
        self._nvml = Nvml(clock)
        self._on_board: list[FoundAccelerator] = []
        self._discover_at = 0.0
        self._open: dict[str, list[int]] = {}
        """The processes that have each accelerator open, as last looked, by its address."""
        self._look_for_open_at = 0.0
        self._described: dict[tuple[int, str], Process] = {}
        """By process id and start, so that nobody is described twice."""

    @property
    def has_nvidia_driver(self) -> bool:
        """Whether the engine can bring the libraries of the node's driver into an instance."""
        return (self._root / "proc/driver/nvidia/version").exists() and (
            shutil.which("nvidia-container-cli") is not None
        )

    def look(self) -> Look:
        """What there is and what it does; both by address, and in agreement about its health."""
        if self._clock() >= self._discover_at:
            self._on_board = discovery.discover(self._root)
            self._discover_at = self._clock() + DISCOVER_SECONDS
        told = [self._read(each) for each in self._on_board]
        if self._simulated is not None:
            told += _simulated(self._simulated)
        self._look_for_open([found for found, _, _ in told])
        described: dict[tuple[int, str], Process] = {}
        readings = [
            replace(reading, processes=self._processes(reading.address, memory, described))
            for _, reading, memory in told
        ]
        self._described = described
        return [found for found, _, _ in told], readings

    def _read(self, each: FoundAccelerator) -> "_Told":
        memory_of: dict[int, int] = {}
        if each.vendor is Vendor.NVIDIA:
            told = self._nvml.read(each)
            found, reading, memory_of = told.found, told.reading, told.memory_of
        elif each.vendor is Vendor.JETSON:
            found, reading = each, jetson.read(each, self._root)
        else:
            found, reading = each, amd.read(each, self._root)
        if each.health is not Health.OK and reading.health is Health.OK:
            reading = replace(reading, health=each.health, reason=each.reason)
        reading = _plausible(reading)
        return replace(found, health=reading.health, reason=reading.reason), reading, memory_of

    def _look_for_open(self, found: Iterable[FoundAccelerator]) -> None:
        """Look through the open files of every process, if that is not too soon again."""
        devices = {device: each.address for each in found for device in _opened(each)}
        began = self._clock()
        if not devices:
            self._open = {}
        elif began >= self._look_for_open_at:
            self._open = holders.by_device(devices, self._proc)
            self._look_for_open_at = began + BREATHER * (self._clock() - began)

    def _processes(
        self, address: str, memory_of: dict[int, int], described: dict[tuple[int, str], Process]
    ) -> tuple[Process, ...]:
        told: list[Process] = []
        pids = dict.fromkeys([*memory_of, *self._open.get(address, ())])
        for pid in pids:
            start = processes.started(pid, self._proc)
            if start is None:
                continue
            key = (pid, start)
            if key not in described:
                described[key] = self._described.get(key) or self._describe(pid)
            told.append(replace(described[key], memory=memory_of.get(pid, 0)))
        return tuple(told[:MOST_PROCESSES])

    def _describe(self, pid: int) -> Process:
        name = processes.container_of(pid, self._proc)
        container: Container | None = None
        if name is not None:
            inside = processes.members(name, self._proc)
            container = processes.find_container(name, inside, self._proc)
        return processes.describe(pid, container, proc=self._proc)


def _plausible(reading: Reading) -> Reading:
    """Without what cannot be: a sensor that is broken says anything, and is not believed."""
    memory, warmth, power = reading.memory_used, reading.temperature, reading.power
    return replace(
        reading,
        memory_used=memory if memory is not None and 0 <= memory <= LARGEST else None,
        temperature=warmth if warmth is not None and -100 <= warmth <= 500 else None,
        power=power if power is not None and 0 <= power <= 10_000 else None,
        reason=reading.reason[:LONGEST_REASON],
    )


_Told = tuple[FoundAccelerator, Reading, dict[int, int]]


def _simulated(simulated: Simulated) -> list[_Told]:
    found = {each.address: each for each in simulated.find()}
    readings = {each.address: each for each in simulated.read()}
    return [
        (replace(each, health=reading.health, reason=reading.reason), reading, {})
        for address, each in found.items()
        # The steering file may have been changed in between.
        if (reading := readings[address]).health is not Health.MISSING
    ]


def _opened(found: FoundAccelerator) -> list[OpenedDevice]:
    """The devices of an accelerator as processes open them, on the node and inside."""
    devices = [OpenedDevice(each.major, each.minor, each.path) for each in found.nodes]
    if found.vendor is Vendor.SIMULATED:
        inside = [f"/dev/hutch-gpu{each.path.rpartition('/')[2]}" for each in found.nodes]
        devices = [replace(each, path=path) for each, path in zip(devices, inside, strict=True)]
    return devices
