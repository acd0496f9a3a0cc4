"""Connections to apps, kept for a while after use."""

import asyncio
from contextlib import suppress

import pytest

from hutch.api.proxy import upstream
from hutch.api.proxy.upstream import Pool


async def test_a_connection_that_nobody_uses_is_closed_by_the_clock_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An app that is to end when nobody is there would otherwise run on for ever.
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.05)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        place = server.sockets[0].getsockname()
        pool = Pool()
        connection = await pool.take(place)
        connection.begin("GET", b"/", [])
        assert (await connection.answer()).status == 200
        assert [piece async for piece in connection.body()] == []
        pool.give_back(place, connection)
        assert connection.is_open
        await asyncio.wait_for(gone.wait(), 20)
        pool.close()
