"""Runs a program inside a container, over the websockets of an exec operation.

The server offers one websocket for each of stdin, stdout and stderr, and one for control: when
that one breaks, the server kills the program. So nothing is left running inside when hutch dies.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import cast

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hutch.engine.base import ExecResult
from hutch.engine.incus.client import Client, Json, OperationLostError, cancel, part, refusal
from hutch.errors import EngineError, EngineUnavailableError

log = structlog.get_logger(__name__)

_CHUNK = 64 * 1024
_KILL = 9
_DEATH_WITHIN = 5.0
"""Seconds that a killed program may take to be gone."""


async def run(
    client: Client,
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
    """As `Engine.exec`. Neither arguments nor environment nor output are ever logged."""
    body: Json = {
        "command": list(argv),
        "environment": dict(environment or {}),
        "user": user,
        "group": group,
        "cwd": cwd,
        "interactive": False,
        "wait-for-websocket": True,
    }
    operation = await client.begin("POST", f"/instances/{part(name)}/exec", body)
    async with AsyncExitStack() as stack:
        sockets = await connected(client, operation, stack)
        program = _Program(client, operation["id"], sockets, most_output)
        try:
            async with asyncio.timeout(timeout):
                return await program.communicate(stdin)
        except TimeoutError:
            await program.kill()
            log.warning("program took too long", container=name, timeout=timeout)
            raise EngineError(
                f"{argv[0]} did not end within {timeout:g} s in {name}.",
                hint="The container may be overloaded: look at its use of CPU and memory.",
                container=name,
            ) from None


async def connected(
    client: Client, operation: Json, stack: AsyncExitStack
) -> dict[str, ClientConnection]:
    """The websockets of a program: `control`, and `0`, `1` and `2` for its streams."""
    path = f"/operations/{part(operation['id'])}/websocket"
    secrets: dict[str, str] = operation["metadata"]["fds"]

    async def one(stream: str) -> ClientConnection:
        return await stack.enter_async_context(client.websocket(path, secret=secrets[stream]))

    # Control comes first: the program starts with the last of the others, and may have ended
    # before one that comes later.
    sockets = {"control": await one("control")}
    streams = ("0", "1", "2")
    opened = await asyncio.gather(*(one(stream) for stream in streams))
    return sockets | dict(zip(streams, opened, strict=True))


class Output:
    """What a program says on one of its streams, as it comes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._has_ended = False

    async def read(self) -> bytes:
        """Empty at the end, and from then on."""
        # The end is told once, by a text message; the server then waits for this side to close.
        while not self._has_ended:
            try:
                message = await self._socket.recv()
            except ConnectionClosed:
                message = ""
            if isinstance(message, str):
                self._has_ended = True
            elif message:
                return message
        return b""


class _Program:
    """One running program."""

    def __init__(
        self, client: Client, operation_id: str, sockets: dict[str, ClientConnection], most: int
    ) -> None:
        self._client = client
        self._operation_id = operation_id
        self._sockets = sockets
        self._most = most

    async def communicate(self, stdin: bytes) -> ExecResult:
        feeding = asyncio.create_task(_feed(self._sockets["0"], stdin))
        try:
            (stdout, cut1), (stderr, cut2), code = await asyncio.gather(
                _collect(self._sockets["1"], self._most),
                _collect(self._sockets["2"], self._most),
                exit_code(self._client, self._operation_id),
            )
        finally:
            # A program may end without having read what it was given.
            await cancel(feeding)
        return ExecResult(code, stdout, stderr, truncated=cut1 or cut2)

    async def kill(self) -> None:
        """End the program and wait until it has, unless it takes too long."""
        signal = json.dumps({"command": "signal", "signal": _KILL})
        with contextlib.suppress(ConnectionClosed, TimeoutError, EngineUnavailableError):
            async with asyncio.timeout(_DEATH_WITHIN):
                await self._sockets["control"].send(signal)
                await self._client.ended(self._operation_id)


async def exit_code(client: Client, operation_id: str) -> int:
    """What a program ended with, once it has. Raises what the server could not run it for."""
    try:
        operation = await client.ended(operation_id)
    except OperationLostError as error:
        raise EngineUnavailableError(
            "The engine forgot a program that it ran; how it ended is unknown.",
            hint="It was probably restarted: try again.",
        ) from error
    # A program that is not there is an error to the server, yet has its code: 127.
    code = cast("Json", operation.get("metadata") or {}).get("return")
    if code is None:
        reason = str(operation.get("err") or operation.get("status"))
        raise refusal(int(operation["status_code"]), reason, path="exec")
    return int(code)


async def _feed(socket: ClientConnection, content: bytes) -> None:
    with contextlib.suppress(ConnectionClosed):
        for start in range(0, len(content), _CHUNK):
            await socket.send(content[start : start + _CHUNK])
        await socket.send("")  # a text message, even an empty one, is the end of the input


async def _collect(socket: ClientConnection, most: int) -> tuple[bytes, bool]:
    """What comes until the stream ends, and whether there was more of it than `most` bytes."""
    kept = bytearray()
    truncated = False
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if isinstance(message, str):
                break
            room = most - len(kept)
            kept += message[:room]
            truncated = truncated or len(message) > room
    return bytes(kept), truncated
