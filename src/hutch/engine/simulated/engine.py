"""The engine protocol over the simulated state."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.ids import ENGINE_PREFIX
from hutch.domain.limits import Limits
from hutch.domain.nodes import Capacity
from hutch.domain.sizes import MiB, TiB
from hutch.engine.base import (
    Change,
    ContainerSpec,
    Device,
    ExecResult,
    Forward,
    NodeStatus,
    Observed,
    Power,
    Usage,
)
from hutch.engine.simulated import programs, streams, terminals
from hutch.engine.simulated.database import Database
from hutch.engine.simulated.faults import Faults, FaultsFile, Gate
from hutch.engine.simulated.files import SimulatedFiles
from hutch.engine.simulated.provision import HOST_KEY
from hutch.engine.simulated.state import State
from hutch.errors import EngineError, EnginePortClosedError, EngineUnavailableError

ROOMY = Capacity(cpus=4096, memory=64 * TiB, disk=1024 * TiB)
"""Large enough that thousands of instances fit; a test of fullness gives its own."""

_IDLE_MEMORY = 12 * MiB
_IDLE_PROCESSES = 9
_POLL = 0.25
"""Seconds until a change made by another process is noticed without being looked for."""


class SimulatedEngine:
    """An engine without machines. Several may share one `path`, in one process or in many."""

    def __init__(
        self,
        path: Path,
        *,
        faults: Faults | None = None,
        capacity: Capacity = ROOMY,
        images: Iterable[str] = ("base",),
    ) -> None:
        """Open the state at `path`, making it with `images` if it is not there."""
        self.faults = faults or Faults()
        self.capacity = capacity
        self._gate = Gate(self.faults, FaultsFile(path.with_name(path.name + ".faults.json")))
        self._watchers: set[asyncio.Event] = set()
        self._listening: dict[tuple[str, int], streams.Handler] = {}
        try:
            self._database = Database(path, images)
        except sqlite3.Error as error:
            raise EngineUnavailableError(f"The simulated engine's state: {error}.") from error
        self._database.on_change = self._wake
        self._state = State(self._database)

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()

    @asynccontextmanager
    async def _call(self, method: str) -> AsyncGenerator[State]:
        await self._gate.enter(method)
        try:
            yield self._state
        except sqlite3.Error as error:
            raise EngineUnavailableError(f"The simulated engine's state: {error}.") from error
        self._gate.leave(method)

    # -- the protocol --------------------------------------------------------------------------

    async def status(self) -> NodeStatus:
        async with self._call("status") as state:
            return NodeStatus(
                version="simulated",
                boot_id=state.boot_id(),
                cpus=self.capacity.cpus,
                memory=self.capacity.memory,
                disk=self.capacity.disk,
                disk_used=state.pool_used(),
            )

    async def images(self) -> list[str]:
        async with self._call("images") as state:
            return state.images()

    async def containers(self) -> list[Observed]:
        async with self._call("containers") as state:
            return state.containers()

    async def get(self, name: str) -> Observed | None:
        async with self._call("get") as state:
            return state.get(name)

    async def create(self, spec: ContainerSpec, *, start: bool = False) -> None:
        async with self._call("create") as state:
            state.create(spec, self.capacity.disk)
            if start:
                state.set_power(spec.name, Power.RUNNING)

    async def start(self, name: str) -> None:
        async with self._call("start") as state:
            state.set_power(name, Power.RUNNING)

    async def stop(self, name: str, *, timeout: float = 30.0) -> None:
        async with self._call("stop") as state:
            state.set_power(name, Power.STOPPED)

    async def delete(self, name: str) -> None:
        async with self._call("delete") as state:
            state.delete(name)

    async def set_limits(self, name: str, limits: Limits) -> None:
        async with self._call("set_limits") as state:
            state.set_limits(name, limits)

    async def prepare(
        self, name: str, *, limits: Limits, forward: Forward, labels: Mapping[str, str]
    ) -> None:
        async with self._call("prepare") as state:
            state.prepare(name, limits, forward, labels)

    async def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        async with self._call("set_labels") as state:
            state.set_labels(name, labels)

    async def set_forward(self, name: str, forward: Forward) -> None:
        async with self._call("set_forward") as state:
            state.set_forward(name, forward)

    async def remove_forward(self, name: str, forward_name: str) -> None:
        async with self._call("remove_forward") as state:
            state.remove_forward(name, forward_name)

    async def accelerators(self) -> list[FoundAccelerator]:
        async with self._call("accelerators") as state:
            return state.devices.accelerators()

    async def attach(self, name: str, devices: Sequence[Device]) -> None:
        async with self._call("attach") as state:
            state.attach(name, devices)

    async def detach(self, name: str, devices: Sequence[str]) -> None:
        async with self._call("detach") as state:
            state.detach(name, devices)

    async def set_nvidia_driver(self, name: str, wanted: bool) -> None:
        async with self._call("set_nvidia_driver") as state:
            state.set_nvidia_driver(name, wanted)

    async def snapshots(self, name: str) -> list[str]:
        async with self._call("snapshots") as state:
            return state.snapshots(name)

    async def snapshot(self, name: str, snapshot: str) -> None:
        async with self._call("snapshot") as state:
            state.snapshot(name, snapshot)

    async def restore(self, name: str, snapshot: str) -> None:
        async with self._call("restore") as state:
            state.restore(name, snapshot)

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        async with self._call("delete_snapshot") as state:
            state.delete_snapshot(name, snapshot)

    async def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        user: int = 0,
        group: int = 0,
        cwd: str = "/",
        timeout: float = 30.0,
        most_output: int = 1024 * 1024,
    ) -> ExecResult:
        async with self._call("exec") as state:
            if state.power(name) is not Power.RUNNING:
                raise EngineError(f"Container {name} is not running.", container=name)
            known = {**programs.ENVIRONMENT, **(environment or {})}
            process = programs.Process(state, name, argv, stdin, known, user, group, cwd)
            try:
                async with asyncio.timeout(timeout):
                    result = await programs.run(process)
            except TimeoutError:
                raise EngineError(
                    f"{argv[0]} did not end within {timeout:g} s in {name}.", container=name
                ) from None
            return _cut(result, most_output)

    async def read_file(self, name: str, path: str, *, most: int = 1024 * 1024) -> bytes | None:
        async with self._call("read_file") as state:
            content = programs.read_file(state, name, path)
            return None if content is None else content[:most]

    @asynccontextmanager
    async def files(self, name: str) -> AsyncGenerator[SimulatedFiles]:
        async with self._call("files") as state:
            state.power(name)  # raises when there is no such container
            yield SimulatedFiles(state, name, self._gate.check_alive)

    @asynccontextmanager
    async def terminal(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        columns: int,
        rows: int,
    ) -> AsyncGenerator[terminals.Terminal]:
        async with self._call("terminal") as state:
            if state.power(name) is not Power.RUNNING:
                raise EngineError(f"Container {name} is not running.", container=name)
            opened = terminals.opened(
                state, name, self._gate.check_alive, columns=columns, rows=rows
            )
            async with opened as terminal:
                yield terminal

    @asynccontextmanager
    async def connect(self, name: str, port: int) -> AsyncGenerator[streams.Stream]:
        async with self._call("connect") as state:
            if state.power(name) is not Power.RUNNING:
                raise EngineError(f"Container {name} is not running.", container=name)
            handler = self._listening.get((name, port))
            if handler is None:
                raise EnginePortClosedError(port)
            async with streams.opened(handler) as stream:
                yield stream

    async def usage(self, name: str) -> Usage:
        async with self._call("usage") as state:
            disk = state.disk_used(name)
            started_at = state.started_at(name)
            if started_at is None:
                return Usage(cpu_seconds=0.0, memory=0, disk=disk, processes=0)
            # An idle system uses about a hundredth of a processor.
            busy = max(0.0, time.time() - started_at) / 100
            return Usage(busy, _IDLE_MEMORY, disk, _IDLE_PROCESSES)

    async def wait_for_banner(self, name: str, host: str, port: int, *, timeout: float) -> bool:
        async with self._call("wait_for_banner") as state:
            end = time.monotonic() + timeout
            while not (_leads(state.get(name), host, port) and _has_host_key(state, name)):
                if time.monotonic() >= end:
                    return False
                await asyncio.sleep(0.02)
                self._gate.check_alive()
            return True

    def changes(self) -> AsyncIterator[Change]:
        # The place from which to listen is taken now, not when the first change is waited for.
        return self._listen(self._database.last_change())

    async def _listen(self, seen: int) -> AsyncIterator[Change]:
        woken = asyncio.Event()
        self._watchers.add(woken)
        away = False
        try:
            # Incus's stream begins so too: what was before it is not known.
            yield Change(None, "connected")
            while True:
                if self._gate.dead:
                    away = True
                elif away:
                    away, seen = False, self._database.last_change()
                    yield Change(None, "reconnected")
                else:
                    woken.clear()
                    seen, changes = self._database.changes_since(seen)
                    for change in changes:
                        if change.name is None or change.name.startswith(ENGINE_PREFIX):
                            yield change
                await _wait(woken, _POLL)
        finally:
            self._watchers.discard(woken)

    async def close(self) -> None:
        self._database.close()

    # -- what happens to real nodes, by other hands than hutch's --------------------------------

    def reboot(self, *, restore: bool = True) -> None:
        """Restart the node. What ran is started again, as Incus does, unless told otherwise."""
        self._state.reboot(restore=restore)

    def add_image(self, alias: str) -> None:
        self._state.add_image(alias)

    def remove_image(self, alias: str) -> None:
        self._state.remove_image(alias)

    def add_accelerator(self, found: FoundAccelerator) -> None:
        """Put an accelerator into the node, or another at its address."""
        self._state.devices.add_accelerator(found)

    def lose_accelerator(self, address: str) -> None:
        """Take an accelerator out of the node, with its device nodes."""
        self._state.devices.lose_accelerator(address)

    def listen(self, name: str, port: int, handler: streams.Handler) -> None:
        """Have a container listen at a port of its loopback, for those who come by this object."""
        self._listening[name, port] = handler

    def freeze(self, name: str) -> None:
        """Leave a container in a state that hutch never asks for."""
        self._state.set_power(name, Power.OTHER)

    def lose_limits(self, name: str) -> None:
        """Take a container's limits away, as an administrator by hand might."""
        self._state.set_limits(name, None)


def _cut(result: ExecResult, most: int) -> ExecResult:
    return ExecResult(
        result.code,
        result.stdout[:most],
        result.stderr[:most],
        truncated=len(result.stdout) > most or len(result.stderr) > most,
    )


def _has_host_key(state: State, name: str) -> bool:
    return programs.read_file(state, name, HOST_KEY) is not None


def _leads(seen: Observed | None, host: str, port: int) -> bool:
    return (
        seen is not None
        and seen.power is Power.RUNNING
        and any(
            (each.listen_address, each.listen_port, each.target_port) == (host, port, 22)
            for each in seen.forwards
        )
    )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
