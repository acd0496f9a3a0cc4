"""Connections to ports of containers' loopbacks, through the engine's own API.

For each container that has any, an exec operation runs `relay.py` inside, whose input and output
carry all of them. When hutch goes away, the websocket for control breaks, and the server kills
that program.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hutch.engine.incus import programs
from hutch.engine.incus.client import Client, Json, part
from hutch.engine.incus.relay import HEAD, PIECE, WINDOW
from hutch.engine.streams import LINGER_SECONDS
from hutch.errors import EngineError, EnginePortClosedError, EngineUnavailableError, HutchError

log = structlog.get_logger(__name__)

IDLE_SECONDS = 15.0
"""For how long a program is kept that carries nothing."""
_NOBODY = 65534
_NO_PYTHON = 127
_REFUSED = 111
_START_SECONDS = 10.0
"""Within which the program inside has to say that it is there."""
_MOST_CLOSING = 1024
"""Connections that it may leave unforgotten: many end at once where a server or a browser goes."""
_ERRNOS = 4096
"""Above all error numbers of Linux."""
_LOOK_AFTER = 256
"""Frames in one message after which others get as much time as these took."""
_FULL = 1024 * 1024
"""Bytes on their way to a program, of all connections, from which on who writes has to wait."""

_LOADER = "import os;n={};t=b''\nwhile len(t)<n:t+=os.read(0,n-len(t))\nexec(t)"
"""What is seen in a list of processes inside: all of the program would fill pages of it."""


@cache
def _program() -> bytes:
    return Path(__file__).with_name("relay.py").read_bytes()


class Streams:
    """The connections into the containers of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._relays: dict[str, _Relay] = {}
        """The one to use, by the container's name."""
        self._all: set[_Relay] = set()
        """Those that have ended a little ago among them."""

    @asynccontextmanager
    async def opened(self, name: str, port: int) -> AsyncGenerator["Stream"]:
        """As `Engine.connect`."""
        stream = await self._connect(name, port)
        try:
            yield stream
            await stream.finish()
        finally:
            stream.close()

    async def _connect(self, name: str, port: int) -> "Stream":
        known = self._relays.get(name)
        if known is not None and not known.is_over:
            # It may end before it is asked, with its container for one, which may run again.
            with suppress(_RelayLostError):
                return await known.connect(port)
        relay = self._relays.get(name)
        if relay is None or relay.is_over:
            relay = self._relays[name] = _Relay(self._client, name, self._forget)
            self._all.add(relay)
        return await relay.connect(port)

    def _forget(self, relay: "_Relay") -> None:
        self._all.discard(relay)
        if self._relays.get(relay.name) is relay:
            del self._relays[relay.name]

    async def close(self) -> None:
        for relay in list(self._all):
            await relay.end()


class _RelayLostError(EngineUnavailableError):
    """The program inside ended before it answered."""


class _Relay:
    """The program inside one container, from its start to its end."""

    def __init__(self, client: Client, name: str, gone: Callable[["_Relay"], None]) -> None:
        self.name = name
        self._gone = gone
        self.is_over = False
        self._client = client
        self._streams: dict[int, Stream] = {}
        """Until the program inside has forgotten them too."""
        self._last = 0
        self._used = 0
        """How many are open or asked for."""
        self._closing = 0
        """How many the program inside has been told to forget, and has not answered."""
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        # Whoever waits for it may have gone away.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._going = bytearray()
        self._work, self._room, self._unused = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run())

    async def connect(self, port: int) -> "Stream":
        """Raises EnginePortClosedError, and _RelayLostError when the program ends meanwhile."""
        self._use(1)
        stream: Stream | None = None
        try:
            await asyncio.shield(self._ready)
            stream = self._begin(port)
            await stream.is_open
        except BaseException:
            if stream is None:
                self._use(-1)
            else:
                stream.close()
            raise
        return stream

    def _begin(self, port: int) -> "Stream":
        if self.is_over:
            raise self._lost()
        self._last += 1
        stream = self._streams[self._last] = Stream(self, self._last, port)
        self.send(b"O", stream.number, port)
        return stream

    def send(self, letter: bytes, number: int, value: int = 0, content: bytes = b"") -> None:
        self._going += letter + number.to_bytes(4, "big") + value.to_bytes(4, "big")
        self._going += content
        self._work.set()

    async def room(self) -> None:
        """Wait until what is on its way has become less."""
        while len(self._going) > _FULL and not self.is_over:
            self._room.clear()
            await self._room.wait()

    def close(self, number: int) -> None:
        if not self.is_over:
            self.send(b"C", number)
            self._closing += 1
            if self._closing > _MOST_CLOSING:
                log.warning("connections are not closed inside", container=self.name)
                self._retire()
        self._use(-1)

    def _use(self, change: int) -> None:
        self._used += change
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._used and not self.is_over:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(IDLE_SECONDS, self._retire)

    def _retire(self) -> None:
        # From now on nobody begins anything with it.
        self.is_over = True
        self._unused.set()
        if not self._ready.done():
            self._task.cancel()

    async def end(self) -> None:
        self.is_over = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._ready.done():
            # It had not begun yet.
            self._ready.set_exception(self._lost())

    def _lost(self) -> _RelayLostError:
        return _RelayLostError(
            f"The connections into {self.name} broke.", hint="Try again.", container=self.name
        )

    # -- its life -------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._live()
        except HutchError as error:
            if self._ready.done():
                log.info("connections broke", container=self.name, reason=str(error))
            else:
                self._ready.set_exception(error)
        except Exception:
            log.exception("Connections met an unexpected error", container=self.name)
        finally:
            self._finish()
            if not self._ready.done():
                self._ready.set_exception(self._lost())
            self._gone(self)

    def _finish(self) -> None:
        """Nothing passes any more."""
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self._streams.values()):
            stream.lose(self._lost())
        self._room.set()

    async def _live(self) -> None:
        body: Json = {
            # Without the modules that every Python begins with, it is there in half of the time.
            "command": ["python3", "-ISE", "-c", _LOADER.format(len(_program()))],
            "user": _NOBODY,
            "group": _NOBODY,
            "cwd": "/",
            "interactive": False,
            "wait-for-websocket": True,
        }
        operation = await self._client.begin("POST", f"/instances/{part(self.name)}/exec", body)
        async with AsyncExitStack() as stack:
            sockets = await programs.connected(self._client, operation, stack)
            output = programs.Output(sockets["1"])
            try:
                async with asyncio.timeout(_START_SECONDS):
                    # It may have ended before it was given anything.
                    with suppress(ConnectionClosed):
                        await sockets["0"].send(_program())
                    said = await output.read()
                    if said[:1] != b"+":
                        code = await programs.exit_code(self._client, operation["id"])
                        raise self._not_there(code)
            except TimeoutError:
                raise self.nonsense() from None
            self._ready.set_result(None)
            await self._carry(sockets["0"], output, said[1:])

    def _not_there(self, code: int) -> EngineError:
        hint = "The container may be short of memory or processes."
        if code == _NO_PYTHON:
            hint = "There is no python3 in it, which this takes: install it there."
        return EngineError(
            f"The way into {self.name} ended with code {code}.", hint=hint, container=self.name
        )

    async def _carry(self, stdin: ClientConnection, output: programs.Output, first: bytes) -> None:
        """Until the program ends, or nobody has used it for long."""
        tasks = [
            asyncio.create_task(each)
            for each in (self._write(stdin), self._read(output, first), self._unused.wait())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in tasks:
                if each.done():
                    each.result()
        finally:
            # Before the sockets are closed, which may take seconds.
            self._finish()
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, stdin: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._work.wait()
                self._work.clear()
                while self._going:
                    piece = bytes(self._going[:PIECE])
                    del self._going[:PIECE]
                    await stdin.send(piece)
                    if len(self._going) <= _FULL // 2:
                        self._room.set()

    async def _read(self, output: programs.Output, piece: bytes) -> None:
        """Hand out what comes. Frames begin and end anywhere in it.

        Whoever is root inside may have it come from a program of their own. So all that may come
        is an answer to what was sent, and anything else the end.
        """
        rest, left = b"", 0
        goal: Stream | None = None
        while True:
            view = memoryview(rest + piece if rest else piece)
            at, frames, began = 0, 0, time.perf_counter()
            while at < len(view):
                if left and goal is not None:
                    content = view[at : at + left]
                    at += len(content)
                    left -= len(content)
                    goal.take(content)
                elif len(view) - at >= HEAD:
                    letter = bytes(view[at : at + 1])
                    goal = self._streams.get(int.from_bytes(view[at + 1 : at + 5], "big"))
                    value = int.from_bytes(view[at + 5 : at + HEAD], "big")
                    at += HEAD
                    if goal is None:
                        raise self.nonsense()
                    if letter == b"D":
                        goal.expect(value)
                        left = value
                    elif letter == b"C" and goal.is_closed:
                        del self._streams[goal.number]
                        self._closing -= 1
                    else:
                        goal.hear(letter, value)
                    frames += 1
                    if frames % _LOOK_AFTER == 0:
                        # So many small ones come of ill will: others are not to wait for them.
                        await asyncio.sleep(time.perf_counter() - began)
                        began = time.perf_counter()
                else:
                    break
            rest = bytes(view[at:])
            piece = await output.read()
            if not piece:
                return

    def nonsense(self) -> EngineError:
        return EngineError(
            f"What carries connections into {self.name} answered what makes no sense.",
            hint="Is `python3` in it the one of its system?",
            container=self.name,
        )


class Stream:
    """As `hutch.engine.streams.EngineStream` says."""

    def __init__(self, relay: _Relay, number: int, port: int) -> None:
        self.number = number
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_answered = False
        self._relay = relay
        self._port = port
        self._came = bytearray()
        self._taken = 0
        """What was read since the other side was last told so."""
        self._may_come = WINDOW
        self._may_go = WINDOW
        self._has_ended = False
        """The other side has said that nothing more comes."""
        self._is_lost = False
        """Nothing passes any more."""
        self.is_closed = False
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    async def read(self) -> bytes:
        while not self._came:
            if self._has_ended or self._is_lost:
                return b""
            self._readable.clear()
            await self._readable.wait()
        piece, self._came = bytes(self._came), bytearray()
        self._taken += len(piece)
        if self._taken >= WINDOW // 2 and not (self._has_ended or self._is_lost):
            self._may_come += self._taken
            self._relay.send(b"W", self.number, self._taken)
            self._taken = 0
        return piece

    async def write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            await self._relay.room()
            while not self._may_go and not self._is_lost:
                self._writable.clear()
                await self._writable.wait()
            if self._is_lost:
                return
            piece = bytes(rest[: min(PIECE, self._may_go)])
            self._may_go -= len(piece)
            self._relay.send(b"D", self.number, len(piece), piece)
            rest = rest[len(piece) :]

    async def finish(self) -> None:
        """Say that nothing more comes, and wait until what came has been taken."""
        if self._is_lost:
            return
        self._relay.send(b"E", self.number)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.read():
                    pass

    def close(self) -> None:
        self.is_closed = self._is_lost = True
        self._came = bytearray()
        self._relay.close(self.number)

    # -- what the other side says -----------------------------------------------------------------

    def expect(self, count: int) -> None:
        """So many bytes come next."""
        self._may_come -= count
        if not count or self._may_come < 0 or self._has_ended or not self._is_answered:
            raise self._relay.nonsense()

    def take(self, content: memoryview) -> None:
        if not self._is_lost:
            self._came += content
            self._readable.set()

    def hear(self, letter: bytes, value: int) -> None:
        is_answer = letter == b"O" or (letter == b"R" and 0 < value < _ERRNOS)
        if is_answer and not self._is_answered:
            self._is_answered = True
            if self.is_open.done():
                pass  # whoever asked did not wait
            elif letter == b"O":
                self.is_open.set_result(None)
            else:
                self.is_open.set_exception(self._refusal(value))
        elif letter == b"W" and 0 < value <= WINDOW - self._may_go:
            self._may_go += value
            self._writable.set()
        elif letter == b"E" and self._is_answered and not self._has_ended:
            self._has_ended = True
            self._readable.set()
        else:
            raise self._relay.nonsense()

    def _refusal(self, code: int) -> EngineError:
        if code == _REFUSED:
            return EnginePortClosedError(self._port)
        return EngineError(
            f"Port {self._port} inside {self._relay.name} was not reached: {os.strerror(code)}.",
            hint="The container may be short of memory or processes.",
            container=self._relay.name,
        )

    def lose(self, error: HutchError) -> None:
        """The program that carries it is gone."""
        self._is_lost = True
        if not self.is_open.done():
            self.is_open.set_exception(error)
        self._readable.set()
        self._writable.set()
