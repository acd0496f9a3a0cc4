"""Nobody holds the server's memory or connections without having asked for anything."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from uvicorn.server import ServerState

from hutch.api import protocol
from hutch.api.protocol import LARGEST_HEAD, PatientProtocol


async def _application(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    length = str(len(body)).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(length))],
        }
    )
    await send({"type": "http.response.body", "body": length})


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(_application, http=PatientProtocol, ws="none", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: PatientProtocol(config, state, {}), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_headers_without_end_are_not_listened_to(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n")
    sent = 0
    async with asyncio.timeout(20):
        while not reader.at_eof() and reader.exception() is None:
            writer.write(b"x-more: " + b"y" * 1000 + b"\r\n")
            sent += 1010
            assert sent < 100 * LARGEST_HEAD, "the server goes on listening"
            await asyncio.sleep(0)
    writer.close()


@pytest.mark.parametrize("words", [b"", b"GET / HT"])
async def test_who_says_nothing_or_half_a_request_is_hung_up_on(
    port: int, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()


async def test_large_bodies_and_kept_connections_go_on(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for size in (10 * LARGEST_HEAD, 3):
        writer.write(f"POST / HTTP/1.1\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(3):
            # A body takes the time it takes.
            await asyncio.sleep(0.15)
        writer.write(b"b" * size)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(str(size))) == str(size).encode()
    writer.close()
