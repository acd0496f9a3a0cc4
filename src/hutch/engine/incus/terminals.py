"""A program on a terminal inside a container: an exec operation that is interactive.

One websocket carries what is typed and printed, another the size. When they break, the server ends
the program.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hutch.engine.incus import programs
from hutch.engine.incus.client import Client, Json, part


@asynccontextmanager
async def opened(
    client: Client,
    name: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    columns: int,
    rows: int,
) -> AsyncGenerator["Terminal"]:
    body: Json = {
        "command": list(argv),
        "environment": dict(environment),
        "interactive": True,
        "wait-for-websocket": True,
        "width": columns,
        "height": rows,
    }
    operation = await client.begin("POST", f"/instances/{part(name)}/exec", body)
    path = f"/operations/{part(operation['id'])}/websocket"
    secrets: dict[str, str] = operation["metadata"]["fds"]
    async with (
        client.websocket(path, secret=secrets["control"]) as control,
        client.websocket(path, secret=secrets["0"]) as stream,
    ):
        yield Terminal(control, stream)


class Terminal:
    """As `hutch.engine.terminals.EngineTerminal` says."""

    def __init__(self, control: ClientConnection, stream: ClientConnection) -> None:
        self._control = control
        self._stream = stream
        self._output = programs.Output(stream)

    async def read(self) -> bytes:
        return await self._output.read()

    async def write(self, content: bytes) -> None:
        with suppress(ConnectionClosed):
            await self._stream.send(content)

    async def resize(self, columns: int, rows: int) -> None:
        arguments = {"width": str(columns), "height": str(rows)}
        with suppress(ConnectionClosed):
            await self._control.send(json.dumps({"command": "window-resize", "args": arguments}))
