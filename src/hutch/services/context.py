"""What every use case needs, put together once by the composition root."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hutch.domain.nodes import Node
from hutch.engine.base import Engine
from hutch.services.held import Held
from hutch.services.rounds import Rounds
from hutch.services.shells import Shells
from hutch.services.slots import Slots
from hutch.services.vault import Vault
from hutch.settings import Settings
from hutch.store.db import Database


def utc_now() -> datetime:
    return datetime.now(UTC)


class Hints:
    """Wake-ups inside one process. Losing one costs time, never correctness."""

    def __init__(self) -> None:
        self.work = asyncio.Event()
        """Set when an operation was added: the runner looks at once instead of at its next pass."""
        self.reconcile = asyncio.Event()
        """Set when the world changed: the reconcilers look at once."""
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def changed(self, watched_id: str) -> None:
        """Wake whoever watches an operation, or a lease."""
        for event in self._watchers.get(watched_id, ()):
            event.set()

    @contextmanager
    def watching(self, watched_id: str) -> Generator[asyncio.Event]:
        """An event that is set whenever that operation or lease changes while the block runs."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(watched_id, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers:
                self._watchers.pop(watched_id, None)


class Engines:
    """The engines of all nodes, opened when first asked for."""

    def __init__(self, open_engine: Callable[[Node], Engine]) -> None:
        self._open = open_engine
        self._engines: dict[str, tuple[tuple[str, ...], Engine]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, node: Node) -> Engine:
        """The engine of a node; another one when the node's address has changed since."""
        where = (node.engine, node.url, node.project, node.pool, node.network)
        known = self._engines.get(node.id)
        if known is not None and known[0] == where:
            return known[1]
        if known is not None:
            task = asyncio.create_task(known[1].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        engine = self._open(node)
        self._engines[node.id] = (where, engine)
        return engine

    async def close(self) -> None:
        for _, engine in self._engines.values():
            await engine.close()
        self._engines.clear()


@dataclass(frozen=True, slots=True)
class Context:
    db: Database
    settings: Settings
    vault: Vault
    engines: Engines
    hints: Hints = field(default_factory=Hints)
    now: Callable[[], datetime] = utc_now
    # A program holds six files of the server open while it runs; a wait looks into the database
    # twice a second.
    programs: Slots = field(default_factory=lambda: Slots("programs", each=8, all_=64))
    waits: Slots = field(default_factory=lambda: Slots("waits", each=32, all_=1024))
    apps: Slots = field(default_factory=lambda: Slots("connections to apps", each=256, all_=4096))
    transfers: Slots = field(default_factory=lambda: Slots("files under way", each=16, all_=128))
    held: Held = field(default_factory=Held)
    shells: Shells = field(default_factory=Shells)
    scheduling: Rounds = field(default_factory=Rounds)
