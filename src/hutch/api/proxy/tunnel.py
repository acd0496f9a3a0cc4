"""A WebSocket led to an app as bytes: whatever it says, extensions and all, is between the two."""

import asyncio
from contextlib import suppress

import httptools

from hutch.api.proxy.asked import joined, phrase
from hutch.api.proxy.headers import BadHeaderError, Header, Headers, Way, to_browser
from hutch.api.proxy.inside import Inside, open_stream
from hutch.api.proxy.upstream import LARGEST_HEAD, BrokenAnswerError, Place, connecting

PIECE = 64 * 1024
"""Bytes that are read at once, and about what is held for each way when the other end is slow."""
HANDSHAKE_SECONDS = 30.0
LINGER_SECONDS = 5.0


class Tunnel:
    """One connection of a browser, from the moment at which it asks for a WebSocket."""

    def __init__(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=PIECE, loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        self._app: asyncio.StreamWriter | None = None
        self._answered = False
        self.status = 0

    async def run(self, place: Place, target: bytes, headers: Headers, way: Way) -> int:
        """Returns the app's status when the connection has ended. Raises AppError before."""
        async with connecting(place):
            if isinstance(place, Inside):
                reader, self._app = await open_stream(place, PIECE)
            else:
                reader, self._app = await asyncio.open_connection(*place, limit=PIECE)
        self._app.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, joined(headers)))
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                status, answer, rest = await _handshake(reader)
        except (OSError, TimeoutError):
            raise BrokenAnswerError("The app does not answer.") from None
        if status != 101:
            self.refuse(status if 200 <= status < 600 else 502)
            return status
        try:
            sent = to_browser(answer, way)
        except BadHeaderError:
            raise BrokenAnswerError("The app's answer has a header that is not valid.") from None
        sent += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        self._answered = True
        self._writer.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % joined(sent) + rest)
        self.status = 101
        await self._pump_both(reader, self._app)
        return 101

    async def _pump_both(self, reader: asyncio.StreamReader, app: asyncio.StreamWriter) -> None:
        ways = [
            asyncio.create_task(_pump(self._reader, app)),
            asyncio.create_task(_pump(reader, self._writer)),
        ]
        try:
            # A WebSocket says itself when it ends: one end that is gone is the end of both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def refuse(self, status: int) -> None:
        """Answer that there is no WebSocket, unless something was answered already."""
        if self._answered:
            return
        self._answered = True
        self.status = status
        head = f"HTTP/1.1 {status} {phrase(status)}\r\ncontent-length: 0\r\nconnection: close\r\n"
        with suppress(OSError, RuntimeError):
            self._writer.write(f"{head}\r\n".encode())

    def end(self) -> None:
        """Close both ends, whatever they are at."""
        for writer in (self._writer, self._app):
            if writer is not None:
                with suppress(OSError, RuntimeError):
                    writer.close()
                # What is still to be sent holds it open: who never reads is not waited for.
                asyncio.get_running_loop().call_later(LINGER_SECONDS, writer.transport.abort)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            # Who is slow to read is waited for, and so is who sends to them.
            await writer.drain()


class _Head:
    """What the parser finds in the head of an answer."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.whole = True


async def _handshake(reader: asyncio.StreamReader) -> tuple[int, Headers, bytes]:
    """The status and headers of the answer, and what came after them."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await reader.read(PIECE)
        if not piece or len(head) > LARGEST_HEAD:
            raise BrokenAnswerError("The app does not answer as a web server does.")
        head += piece
    head, rest = head.split(b"\r\n\r\n", 1)
    found = _Head()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(head + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise BrokenAnswerError("The app does not answer as a web server does.") from None
    return parser.get_status_code(), found.headers, rest
