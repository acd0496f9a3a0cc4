"""What a pipe does on the instance's side."""

import asyncio
import asyncio.trsock
import socket
from typing import cast

import pytest

from hutch.domain.instances import Instance
from hutch.gateway import pipe as pipes
from hutch.gateway.pipe import Pipe

HOST = "127.0.0.1"


async def test_the_first_that_an_instance_says_is_acknowledged_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    through = asyncio.trsock.TransportSocket.setsockopt

    def ask(connection: asyncio.trsock.TransportSocket, *option: int) -> None:
        if option == (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1):
            asked.append(connection)
        through(connection, *option)  # pyright: ignore

    monkeypatch.setattr(asyncio.trsock.TransportSocket, "setsockopt", ask)
    monkeypatch.setattr(pipes, "_FIRST", 2)
    arrived = asyncio.Queue[bytes]()
    monkeypatch.setattr(Pipe, "far_data", lambda _, data: arrived.put_nowait(data))
    # Nothing is read until there is a channel, and there is none here.
    monkeypatch.setattr(Pipe, "hold", lambda *_: None)
    words = asyncio.Queue[bytes]()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while word := await words.get():
            writer.write(word)
        writer.close()

    server = await asyncio.start_server(speak, HOST, 0)
    pipe = Pipe(cast("Instance", None), 60)
    await pipe.connect(HOST, server.sockets[0].getsockname()[1])
    for count, word in enumerate((b"one", b"two", b"three", b"four"), start=1):
        words.put_nowait(word)
        assert await arrived.get() == word
        assert len(asked) == min(count, 2)
    words.put_nowait(b"")
    pipe.close()
    server.close()
    await server.wait_closed()
