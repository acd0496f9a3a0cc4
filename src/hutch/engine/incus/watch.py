"""The server's stream of events, and the list of containers which it keeps fresh.

One connection serves everyone who listens. An event is a hint: it says which container to look at
again, never what it has become. So an event that comes late or twice does no harm, and one that
is missed is made good when the connection is made again, by looking at everything.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import structlog
from websockets.exceptions import ConnectionClosed

from hutch.domain.ids import ENGINE_PREFIX
from hutch.engine.base import Change, Observed
from hutch.engine.incus.client import Client, Json, cancel
from hutch.engine.incus.spec import observed
from hutch.errors import EngineError, EngineUnavailableError

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_KEEPALIVE = 20.0
_MOST_UNREAD = 1000
"""Changes kept for a listener that does not read them, before they become "look at everything"."""
_FEW = 50
"""Changed containers up to this many are fetched one by one; beyond, the whole list is cheaper."""
_SILENT = {"instance-exec", "instance-file-retrieved", "instance-console", "instance-log-retrieved"}
"""Things done to a container that change nothing about it which hutch shows."""
MISSED = Change(None, "reconnected")

Listener = asyncio.Queue[Change]


class Watcher:
    """Listens to the server's events for as long as anyone wants them."""

    def __init__(self, client: Client, on_change: Callable[[Change], None]) -> None:
        """`on_change` is called for each change before any listener hears of it."""
        self._client = client
        self._on_change = on_change
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._connected_before = False
        self.connected = asyncio.Event()

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="engine events")

    async def close(self) -> None:
        if self._task:
            await cancel(self._task)

    def changes(self) -> AsyncGenerator[Change]:
        """Changes from now on, also from before the first one is waited for."""
        queue: Listener = asyncio.Queue(_MOST_UNREAD)
        self._listeners.add(queue)
        self.start()
        return self._drain(queue)

    async def _drain(self, queue: Listener) -> AsyncGenerator[Change]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._listen()
                pause = _FIRST_PAUSE
            except (EngineError, EngineUnavailableError) as error:
                log.warning("engine events lost", url=self._client.url, reason=error.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> None:
        async with self._client.websocket("/events", keepalive=_KEEPALIVE, type="lifecycle") as ws:
            log.info("engine events connected", url=self._client.url)
            self.connected.set()
            # Even the first time: whoever began to listen before it may have missed something.
            self._tell(MISSED)
            try:
                with contextlib.suppress(ConnectionClosed):
                    async for message in ws:
                        if change := change_of(message):
                            self._tell(change)
            finally:
                self.connected.clear()
        log.warning("engine events lost", url=self._client.url, reason="connection closed")

    def _tell(self, change: Change) -> None:
        self._on_change(change)
        for queue in self._listeners:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(MISSED)
            queue.put_nowait(change)


def change_of(message: str | bytes) -> Change | None:
    """The change that an event announces; None when it is about nothing of hutch's."""
    event = cast("Json", json.loads(message))
    metadata = cast("dict[str, Any]", event.get("metadata") or {})
    action = str(metadata.get("action", ""))
    parts = urlsplit(str(metadata.get("source", ""))).path.split("/")
    # /1.0/instances/NAME, and /1.0/instances/NAME/snapshots/SNAPSHOT
    if len(parts) < 4 or parts[2] != "instances" or action in _SILENT:
        return None
    name = unquote(parts[3])
    return Change(name, action) if name.startswith(ENGINE_PREFIX) else None


class Listing:
    """The list of containers, asked for whole once per connection of the watcher."""

    def __init__(
        self,
        client: Client,
        fetch: Callable[[str], Awaitable[Observed | None]],
    ) -> None:
        self._client = client
        self._fetch = fetch
        self._known: dict[str, Observed] = {}
        self._stale = True
        """Everything has to be looked at."""
        self._dirty: set[str] = set()
        self._lock = asyncio.Lock()
        self.watcher = Watcher(client, self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.name is None:
            self._stale = True
        else:
            self._dirty.add(change.name)

    def touched(self, name: str) -> None:
        """Say that a container is about to change, or has: its event may be long in coming."""
        self._dirty.add(name)

    async def read(self) -> list[Observed]:
        """Every container of hutch's, by name."""
        self.watcher.start()
        async with self._lock:
            # Without events nothing tells what has become stale.
            if self._stale or not self.watcher.connected.is_set() or len(self._dirty) > _FEW:
                await self._read_all()
            elif self._dirty:
                await self._read_dirty()
            return [self._known[name] for name in sorted(self._known)]

    async def _read_all(self) -> None:
        # What is announced from here on is looked at again: the answer may be older than that.
        self._stale = False
        self._dirty.clear()
        try:
            found = cast("list[Json]", await self._client.get("/instances", recursion=1))
        except BaseException:
            self._stale = True
            raise
        self._known = {
            instance["name"]: observed(instance)
            for instance in found
            if instance["name"].startswith(ENGINE_PREFIX)
        }

    async def _read_dirty(self) -> None:
        names, self._dirty = self._dirty, set()
        try:
            found = await asyncio.gather(*(self._fetch(name) for name in names))
        except BaseException:
            self._dirty |= names
            raise
        for name, container in zip(names, found, strict=True):
            if container:
                self._known[name] = container
            else:
                self._known.pop(name, None)
