"""What a server does besides answering: kept alive while it runs, ended in order when it stops."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, runtime_checkable

import structlog

log = structlog.get_logger("hutch.background")

AGAIN_SECONDS = 1.0
"""Pause before a worker that broke is started again."""


class Worker(Protocol):
    async def run(self) -> None:
        """Work until cancelled."""
        ...


@runtime_checkable
class Drainable(Protocol):
    async def drain(self, timeout: float) -> None:
        """Begin nothing new, and let what is in hand come to a good place to stop."""
        ...


class Background:
    """Runs workers, each in a task of its own, and starts one that broke again."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: set[str] = set()
        self._stopping = False

    @property
    def broken(self) -> list[str]:
        """The workers that do not work at the moment, in lower case."""
        return sorted(self._broken)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    async def stop(self, timeout: float) -> None:
        """End all workers; those that can be drained get `timeout` seconds."""
        self._stopping = True
        draining = [each.drain(timeout) for each in self._workers if isinstance(each, Drainable)]
        for failure in await asyncio.gather(*draining, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.error("Draining failed", exc_info=failure)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, worker: Worker) -> None:
        name = type(worker).__name__.lower()
        while not self._stopping:
            with suppress(Exception):
                await self._run_once(worker, name)
            if not self._stopping:
                self._broken.add(name)
                await asyncio.sleep(AGAIN_SECONDS)
                self._broken.discard(name)

    async def _run_once(self, worker: Worker, name: str) -> None:
        try:
            await worker.run()
        except Exception:
            log.exception("A worker broke and is started again", worker=name)
            raise
