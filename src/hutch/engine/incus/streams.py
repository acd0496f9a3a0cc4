"""A connection to a port of a container's loopback, through the engine's own API.

An exec operation runs `relay.py` inside, whose input and output are the connection. When hutch
goes away, the websocket for control breaks, and the server kills that program.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hutch.engine.incus import programs
from hutch.engine.incus.client import Client, Json, part
from hutch.engine.incus.relay import REFUSED
from hutch.engine.streams import LINGER_SECONDS
from hutch.errors import EngineError, EnginePortClosedError

_PIECE = 64 * 1024
_NOBODY = 65534
_NO_PYTHON = 127


@cache
def _relay() -> str:
    return Path(__file__).with_name("relay.py").read_text()


@asynccontextmanager
async def opened(client: Client, name: str, port: int) -> AsyncGenerator["Stream"]:
    """As `Engine.connect`."""
    body: Json = {
        # Without the modules that every Python begins with, it is there in half of the time.
        "command": ["python3", "-ISE", "-c", _relay(), str(int(port))],
        "user": _NOBODY,
        "group": _NOBODY,
        "cwd": "/",
        "interactive": False,
        "wait-for-websocket": True,
    }
    operation = await client.begin("POST", f"/instances/{part(name)}/exec", body)
    async with AsyncExitStack() as stack:
        sockets = await programs.connected(client, operation, stack)
        stream = Stream(sockets["0"], sockets["1"])
        if not await stream.begins():
            code = await programs.exit_code(client, operation["id"])
            raise _not_connected(name, port, code)
        yield stream
        await stream.finish()


def _not_connected(name: str, port: int, code: int) -> EngineError:
    if code == REFUSED:
        return EnginePortClosedError(port)
    hint = "The container may be short of memory or processes."
    if code == _NO_PYTHON:
        hint = "There is no python3 in it, which this takes: install it there."
    return EngineError(
        f"The way to port {port} inside {name} ended with code {code}.", hint=hint, container=name
    )


class Stream:
    """As `hutch.engine.streams.EngineStream` says."""

    def __init__(self, stdin: ClientConnection, stdout: ClientConnection) -> None:
        self._stdin = stdin
        self._output = programs.Output(stdout)
        self._rest = b""

    async def begins(self) -> bool:
        """Whether the program inside says that it is connected."""
        said = await self._output.read()
        self._rest = said[1:]
        return said[:1] == b"+"

    async def read(self) -> bytes:
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return await self._output.read()

    async def write(self, content: bytes) -> None:
        with suppress(ConnectionClosed):
            for start in range(0, len(content), _PIECE):
                await self._stdin.send(content[start : start + _PIECE])

    async def finish(self) -> None:
        """Say that nothing more comes, and wait until what came has been taken."""
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._stdin.send("")
                while await self._output.read():
                    pass
