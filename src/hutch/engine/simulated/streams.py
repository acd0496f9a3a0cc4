"""Connections into a simulated machine: what listens there is a function of this process."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from hutch.engine.streams import LINGER_SECONDS

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What listens at a port, as `asyncio.start_server` takes it."""
_PIECE = 64 * 1024


@asynccontextmanager
async def opened(handler: Handler) -> AsyncGenerator["Stream"]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours, limit=_PIECE)
    serving = asyncio.create_task(_serve(handler, theirs))
    try:
        stream = Stream(reader, writer)
        yield stream
        await stream.finish()
    finally:
        writer.transport.abort()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _serve(handler: Handler, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        await handler(reader, writer)
        # What it said last is still to arrive.
        writer.close()
        await writer.wait_closed()
    finally:
        writer.transport.abort()


class Stream:
    """As `hutch.engine.streams.EngineStream` says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        with suppress(OSError):
            return await self._reader.read(_PIECE)
        return b""

    async def write(self, content: bytes) -> None:
        with suppress(OSError):
            self._writer.write(content)
            await self._writer.drain()

    async def finish(self) -> None:
        """Say that nothing more comes, and wait until what came has been taken."""
        with suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(LINGER_SECONDS):
                self._writer.write_eof()
                while await self._reader.read(_PIECE):
                    pass
