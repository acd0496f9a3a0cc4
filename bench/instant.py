"""An engine that takes no time, so that what is measured is everything around it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.limits import Limits
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
from hutch.engine.files import Files
from hutch.engine.streams import EngineStream
from hutch.engine.terminals import EngineTerminal


class InstantEngine:
    """Answers at once that all is done, and remembers which containers and devices there are."""

    def __init__(self) -> None:
        self._containers: dict[str, Observed] = {}

    async def status(self) -> NodeStatus:
        return NodeStatus("instant", "first", 4096, 2**46, 2**50, 0)

    async def images(self) -> list[str]:
        return ["base"]

    async def containers(self) -> list[Observed]:
        return list(self._containers.values())

    async def get(self, name: str) -> Observed | None:
        return self._containers.get(name)

    async def create(self, spec: ContainerSpec, *, start: bool = False) -> None:
        power = Power.RUNNING if start else Power.STOPPED
        self._containers[spec.name] = Observed(
            spec.name, power, spec.address, spec.limits, spec.forwards, spec.labels
        )

    async def start(self, name: str) -> None: ...

    async def stop(self, name: str, *, timeout: float = 30.0) -> None: ...

    async def delete(self, name: str) -> None:
        self._containers.pop(name, None)

    async def set_limits(self, name: str, limits: Limits) -> None: ...

    async def prepare(
        self, name: str, *, limits: Limits, forward: Forward, labels: Mapping[str, str]
    ) -> None: ...

    async def set_labels(self, name: str, labels: Mapping[str, str]) -> None: ...

    async def set_forward(self, name: str, forward: Forward) -> None: ...

    async def remove_forward(self, name: str, forward_name: str) -> None: ...

    async def accelerators(self) -> list[FoundAccelerator]:
        return []

    async def attach(self, name: str, devices: Sequence[Device]) -> None:
        kept = [each.name for each in devices]
        self._give(name, (*self._devices_but(name, kept), *devices))

    async def detach(self, name: str, devices: Sequence[str]) -> None:
        self._give(name, self._devices_but(name, devices))

    def _devices_but(self, name: str, devices: Sequence[str]) -> tuple[Device, ...]:
        seen = self._containers.get(name)
        return tuple(each for each in (seen.devices if seen else ()) if each.name not in devices)

    def _give(self, name: str, devices: tuple[Device, ...]) -> None:
        if name in self._containers:
            self._containers[name] = dataclasses.replace(self._containers[name], devices=devices)

    async def set_nvidia_driver(self, name: str, wanted: bool) -> None: ...

    async def snapshots(self, name: str) -> list[str]:
        return []

    async def snapshot(self, name: str, snapshot: str) -> None: ...

    async def restore(self, name: str, snapshot: str) -> None: ...

    async def delete_snapshot(self, name: str, snapshot: str) -> None: ...

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
        return ExecResult(0, b"", b"")

    async def read_file(self, name: str, path: str, *, most: int = 1024 * 1024) -> bytes | None:
        return None

    def files(self, name: str) -> AbstractAsyncContextManager[Files]:
        raise NotImplementedError("nothing that is measured here has files")

    def terminal(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        columns: int,
        rows: int,
    ) -> AbstractAsyncContextManager[EngineTerminal]:
        raise NotImplementedError("nothing that is measured here has a terminal")

    def connect(self, name: str, port: int) -> AbstractAsyncContextManager[EngineStream]:
        raise NotImplementedError("nothing that is measured here listens")

    async def usage(self, name: str) -> Usage:
        return Usage(0.0, 0, 0, 0)

    async def wait_for_banner(self, name: str, host: str, port: int, *, timeout: float) -> bool:
        return True

    def changes(self) -> AsyncIterator[Change]:
        return _silence()

    async def close(self) -> None: ...


async def _silence() -> AsyncGenerator[Change]:
    yield Change(None, "connected")
    await asyncio.Event().wait()
