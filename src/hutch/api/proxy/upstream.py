"""HTTP to what listens in an instance: one request at a time over connections that are kept.

Written for a proxy. Bodies pass in the pieces that they come in, and whoever is slow is waited
for: at most HIGH_WATER bytes of an answer are held. An answer that cannot be read in one way alone
ends the connection.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import httptools
import structlog

from hutch.api.proxy import inside
from hutch.api.proxy.headers import Header, Headers
from hutch.api.proxy.inside import Inside
from hutch.domain.ports import LOOPBACK
from hutch.errors import AppError, AppTimeoutError, EnginePortClosedError, HutchError

log = structlog.get_logger("hutch.apps")

CONNECT_SECONDS = 5.0
INSIDE_SECONDS = 15.0
"""For a connection through an engine, which starts a program for it."""
HIGH_WATER = 256 * 1024
LARGEST_HEAD = 64 * 1024
"""Bytes of an answer's status line and headers."""
IDLE_SECONDS = 15.0
"""How long a connection that nobody uses is kept."""
IDLE_EACH, IDLE_ALL = 8, 256
"""How many of them to one place, and in all."""

Place = tuple[str, int] | Inside
"""A host and port, or a port inside."""
_LARGE_HEAD = "The head of the app's answer is too large."
_HINT_INSIDE = "Does it run, and does it listen at that port, at 127.0.0.1 or every address?"
_HINT = "Does it run, and does it listen at the instance's address (0.0.0.0) at that port?"


class BrokenAnswerError(AppError):
    """The answer ended before it was whole, or cannot be read."""


class StaleError(AppError):
    """A connection that was kept turns out to have been closed: nothing was answered."""


@dataclass(slots=True)
class Answer:
    """The head of an answer."""

    status: int
    headers: Headers = field(default_factory=list[Header])


class Connection(asyncio.Protocol):
    """One connection to an app."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._writable = asyncio.Event()
        self._writable.set()
        self._changed = asyncio.Event()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._head = 0
        self._answer: Answer | None = None
        self._headers: Headers = []
        self._framed = False
        self._complete = False
        self._surplus = False
        self._keeps = False
        self._busy = False
        self._without_body = False
        self._error: AppError | None = None
        self.used_before = False
        self.idle_since = 0.0

    # -- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but its class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            # Nobody asked: what it says could be taken for the answer to the next request.
            self.abort()
            return
        if self._answer is None:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenAnswerError("The app changes to another protocol unasked."))
        except httptools.HttpParserError:
            self._fail(BrokenAnswerError("The app does not answer as a web server does."))
        if self._answer is None and self._head > LARGEST_HEAD:
            self._fail(BrokenAnswerError(_LARGE_HEAD))
        self._changed.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy and not self._complete and self._error is None:
            if self._answer is None:
                self._error = self._unanswered()
            elif self._framed or exc is not None:
                self._error = BrokenAnswerError("The app closed the connection too early.")
            else:
                # An answer without a length ends with its connection.
                self._complete = True
        self._transport = None
        self._writable.set()
        self._changed.set()

    def _unanswered(self) -> AppError:
        stale = self.used_before and not self._head
        kind = StaleError if stale else BrokenAnswerError
        return kind("The app closed the connection without an answer.", hint=_HINT)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what the parser calls -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers = []
        if self._answer is not None:
            # Another answer, to nothing: it goes nowhere, and nor does anything after it.
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # All of it may have come in one piece, before anyone counted.
        if sum(len(name) + len(value) for name, value in self._headers) > LARGEST_HEAD:
            self._fail(BrokenAnswerError(_LARGE_HEAD))
            return
        status = self._parser.get_status_code()
        if self._surplus or 100 <= status < 200:
            # Said in between; the answer itself is still to come.
            return
        names = {name for name, _ in self._headers}
        self._framed = bool(names & {b"content-length", b"transfer-encoding"})
        # A copy: what comes behind the body (trailers) is found by the same way, and is no head.
        self._answer = Answer(status, list(self._headers))
        if self._without_body:
            self._complete = True

    def on_body(self, body: bytes) -> None:
        if self._answer is None or self._complete or self._surplus:
            return
        self._pieces.append(body)
        self._held += len(body)
        if self._held > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._complete:
            self._complete = True
            self._keeps = self._parser.should_keep_alive()

    # -- what the proxy calls --------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, method: str, target: bytes, headers: Headers) -> None:
        """Send the head of a request."""
        self._busy, self._complete, self._error = True, False, None
        self._answer, self._head, self._framed, self._keeps = None, 0, False, False
        self._without_body = method == "HEAD"
        if not self.is_open:
            # Closed before it was used: nothing will come of it.
            self._error = self._unanswered()
            return
        lines = [method.encode(), b" ", target, b" HTTP/1.1\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self._write(b"".join(lines))

    async def send(self, data: bytes, *, chunked: bool) -> None:
        """Send a piece of the body, and wait while the app does not take it."""
        if chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)
        await self._writable.wait()

    def end_chunks(self) -> None:
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def answer(self) -> Answer:
        """The head of the answer. Raises AppError."""
        while self._answer is None:
            await self._wait()
        return self._answer

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the answer's body. Raises BrokenAnswerError when it ends too early."""
        while True:
            if self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                if self._paused and self._held <= HIGH_WATER // 2:
                    self._paused = False
                    if self._transport is not None:
                        self._transport.resume_reading()
                yield piece
            elif self._complete:
                return
            else:
                await self._wait()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()
        if self._error is not None and not self._pieces:
            raise self._error

    def finish(self) -> bool:
        """After an answer: whether the connection can be used again."""
        self._busy = False
        self.used_before = True
        reusable = (
            self._complete
            and not self._surplus
            and self._framed_or_empty()
            and not self._without_body
            and self._error is None
            and self.is_open
            and self._keeps
        )
        if not reusable:
            self.abort()
        return reusable

    def _framed_or_empty(self) -> bool:
        assert self._answer is not None  # noqa: S101
        return self._framed or self._answer.status in {204, 304}

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: AppError) -> None:
        if self._error is None:
            self._error = error
        self.abort()


class Pool:
    """Connections to apps, kept for a while after use."""

    def __init__(self) -> None:
        self._idle: dict[Place, list[Connection]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, place: Place, *, fresh: bool = False) -> Connection:
        """A connection that nobody else uses. Raises AppError when nothing listens there."""
        kept = [] if fresh else self._idle.get(place, [])
        while kept:
            connection = kept.pop()
            self._count -= 1
            if connection.is_open:
                return connection
        return await connect(place)

    def give_back(self, place: Place, connection: Connection) -> None:
        """After use; it is closed unless it can serve once more."""
        if not connection.finish():
            return
        kept = self._idle.setdefault(place, [])
        if len(kept) >= IDLE_EACH or self._count >= IDLE_ALL:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        kept.append(connection)
        self._count += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._forget_old)

    def _forget_old(self) -> None:
        """By the clock, not at the next use: what ends when nobody is there waits for this."""
        limit = time.monotonic() - IDLE_SECONDS
        for place, kept in list(self._idle.items()):
            while kept and (kept[0].idle_since <= limit or not kept[0].is_open):
                kept.pop(0).abort()
                self._count -= 1
            if not kept:
                del self._idle[place]
        self._timer = None
        if self._idle:
            oldest = min(kept[0].idle_since for kept in self._idle.values())
            wait = max(0.0, oldest - limit)
            self._timer = asyncio.get_running_loop().call_later(wait, self._forget_old)

    def close(self) -> None:
        for kept in self._idle.values():
            for connection in kept:
                connection.abort()
        self._idle.clear()
        self._count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def connect(place: Place) -> Connection:
    """A new connection. Raises AppError when nothing listens there."""
    loop = asyncio.get_running_loop()
    async with connecting(place):
        if isinstance(place, Inside):
            connection = Connection()
            await inside.connect(place, lambda: connection)
        else:
            _, connection = await loop.create_connection(Connection, *place)
    return connection


@asynccontextmanager
async def connecting(place: Place) -> AsyncGenerator[None]:
    """Connect within: what that raises leaves as an AppError."""
    is_inside = isinstance(place, Inside)
    # What listens at loopback alone is reached from there, and through the node's own.
    at_loopback = isinstance(place, Inside) or place[0] == LOOPBACK
    hint = _HINT_INSIDE if at_loopback else _HINT
    try:
        async with asyncio.timeout(INSIDE_SECONDS if is_inside else CONNECT_SECONDS):
            yield
    except TimeoutError:
        raise AppTimeoutError("The app's port does not answer.", hint=hint) from None
    except (OSError, EnginePortClosedError):
        raise AppError("Nothing listens at the app's port.", hint=hint) from None
    except HutchError as error:
        # The engine's own words are its node's administrator's: they are in the log.
        log.warning("no way into an instance", code=error.code, reason=error.message)
        raise AppError(
            "The app's instance cannot be reached.",
            hint=error.hint or "Does it run? `hutch show` tells.",
        ) from None
