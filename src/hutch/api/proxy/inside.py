"""Connections through an instance's engine, for what is used to those of a network.

Where nothing on a node listens for an app, the engine itself carries the connection into the
instance. What speaks over it sees a transport of asyncio, and cannot tell the difference.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from hutch.engine.base import Engine
from hutch.engine.streams import EngineStream
from hutch.errors import HutchError

log = structlog.get_logger("hutch.apps")

HIGH_WATER, LOW_WATER = 256 * 1024, 64 * 1024
"""Bytes that wait to be taken inside: above the one writers are asked to wait, until the other."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A port of the loopback of a container, reached through its engine."""

    engine: Engine
    container: str
    port: int


async def connect(
    place: Inside, make_protocol: Callable[[], asyncio.Protocol]
) -> tuple["Transport", asyncio.Protocol]:
    """As `loop.create_connection`. Raises what `Engine.connect` raises."""
    protocol = make_protocol()
    transport = Transport(protocol)
    await transport.begin(place)
    return transport, protocol


class Transport(asyncio.Transport):
    """One connection; a task of its own holds it open."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._is_full = False
        self._work = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self, place: Inside) -> None:
        self._task = asyncio.create_task(self._run(place))
        try:
            await asyncio.shield(self._begun)
        except BaseException:
            self._task.cancel()
            raise

    async def _run(self, place: Inside) -> None:
        error: Exception | None = None
        try:
            async with place.engine.connect(place.container, place.port) as stream:
                self._begun.set_result(None)
                self._protocol.connection_made(self)
                await self._carry(stream)
        except asyncio.CancelledError:
            if not self._begun.done():
                self._begun.cancel()
        except Exception as caught:
            if not self._begun.done():
                self._begun.set_exception(caught)
                return
            if not isinstance(caught, HutchError | OSError):
                log.exception("A connection into an instance met an unexpected error")
            error = caught
        finally:
            self._closing = True
            if self._begun.done() and not self._begun.cancelled() and not self._begun.exception():
                self._protocol.connection_lost(error)

    async def _carry(self, stream: EngineStream) -> None:
        """Until either side closes; what was written before this side closed is still sent."""
        reading = asyncio.create_task(self._read(stream))
        writing = asyncio.create_task(self._write(stream))
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            for each in (reading, writing):
                if each.done():
                    each.result()
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, stream: EngineStream) -> None:
        while True:
            await self._reads.wait()
            piece = await stream.read()
            # Asked to wait meanwhile, or to go: it is handed over when that is over, or never.
            await self._reads.wait()
            protocol = self.get_protocol()
            assert isinstance(protocol, asyncio.Protocol)  # noqa: S101
            if not piece:
                protocol.eof_received()
                return
            if not self._closing:
                protocol.data_received(piece)

    async def _write(self, stream: EngineStream) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                piece = self._waiting.popleft()
                await stream.write(piece)
                self._size -= len(piece)
                if self._is_full and self._size <= LOW_WATER:
                    self._is_full = False
                    self._protocol.resume_writing()
            if self._closing:
                return

    # -- what protocols call ---------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        self._waiting.append(bytes(data))
        self._size += len(data)
        self._work.set()
        if self._size > HIGH_WATER and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They stay as they are."""

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._reads.clear()

    def resume_reading(self) -> None:
        self._reads.set()

    def is_reading(self) -> bool:
        return self._reads.is_set()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Nothing more is read; what was written is still sent."""
        self._closing = True
        self._work.set()

    def abort(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def open_stream(
    place: Inside, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`. Raises what `Engine.connect` raises."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await connect(place, lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
