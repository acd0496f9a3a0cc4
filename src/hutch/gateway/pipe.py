"""The two ends of a forwarded connection: the client's channel, and the instance's SSH server."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast

import asyncssh

from hutch.domain.instances import Instance
from hutch.gateway import messages
from hutch.gateway.wire import Connection, Held, Lane

CONNECT_SECONDS = 10.0
_FIRST = 64
"""Arrivals from an instance that are acknowledged at once; a login takes some twenty."""
_SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
"""How a connection ends whose other machine has gone."""


class Pipe(Held, asyncssh.SSHTCPSession[bytes]):
    """Carries bytes to and fro. Each side is read no faster than the other one takes them."""

    def __init__(self, instance: Instance, silence: int) -> None:
        """A way to an instance, given up when its node has not answered for `silence` seconds.

        What runs inside the instance is not asked: a program may say nothing for days.
        """
        super().__init__()
        self.instance = instance
        self._silence = silence
        self._far: asyncio.Transport | None = None
        self._lane: Lane | None = None
        self._connection: Connection | None = None
        self._early: list[bytes] = []
        """What the instance said before there was a channel: its first line, as a rule."""
        self._ends = 0
        self._on_end: Callable[[], None] = lambda: None
        self._on_loss: Callable[[str], None] = _tell_nobody

    async def connect(self, host: str, port: int) -> None:
        """Connect to the instance's SSH server. Raises OSError, TimeoutError among them."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            await loop.create_connection(lambda: _Far(self), host, port)

    def on_end(self, act: Callable[[], None], loss: Callable[[str], None]) -> None:
        """What to do at the end, and first when it is lost: then with a sentence that says why."""
        self._on_end = act
        self._on_loss = loss

    def lose(self, why: str) -> None:
        """End both sides, because the instance can no longer be reached."""
        on_loss, self._on_loss = self._on_loss, _tell_nobody
        text = why.format(name=self.instance.name, node=self.instance.node_name)
        on_loss(text)
        self.close()

    def broken(self, error: Exception) -> None:
        """The instance's side has ended as no program ends it."""
        if isinstance(error, OSError) and error.errno in _SILENT:
            self.lose(messages.GONE_SILENT)
        else:
            reason = getattr(error, "strerror", None) or "it was cut off"
            self.lose(messages.BROKE_OFF.replace("{reason}", reason.lower()))

    def close(self) -> None:
        """End both sides. Harmless when they have ended."""
        lane, far, self._lane, self._far = self._lane, self._far, None, None
        if lane is not None:
            lane.close()
        if far is not None:
            far.close()
        if self._connection is not None:
            self._connection.sources.discard(self)
        on_end, self._on_end = self._on_end, lambda: None
        on_end()

    def _end_of_one(self) -> None:
        """One side has nothing more to say; when neither has, it is over."""
        self._ends += 1
        if self._ends == 2:
            self.close()

    # ---- the client's side --------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        self._lane = cast("Lane", chan)
        if self._far is None:
            self._lane.close()
            return
        self._connection = cast("Connection", self._lane.get_connection())
        self._connection.add_source(self)
        for data in self._early:
            self._lane.give(data)
        self._early.clear()
        self.release("start")

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._far is not None:
            self._far.write(data)

    def eof_received(self) -> bool:
        if self._far is not None:
            self._far.write_eof()
        self._end_of_one()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lane = None
        self.close()

    def pause_writing(self) -> None:
        self.hold("window")

    def resume_writing(self) -> None:
        self.release("window")

    # ---- the instance's side ------------------------------------------------------------------

    def far_made(self, transport: asyncio.Transport) -> None:
        _watch(transport.get_extra_info("socket"), self._silence)
        self._far = transport
        self.hold("start")

    def far_data(self, data: bytes) -> None:
        if self._lane is not None:
            self._lane.give(data)
        else:
            # An event loop may still hand on what it had read when it was told to stop.
            self._early.append(data)

    def far_eof(self) -> None:
        if self._lane is not None:
            self._lane.write_eof()
        self._end_of_one()

    def far_full(self) -> None:
        if self._lane is not None:
            self._lane.pause_reading()

    def far_free(self) -> None:
        if self._lane is not None:
            self._lane.resume_reading()

    def stop_reading(self) -> None:
        if self._far is not None:
            self._far.pause_reading()

    def go_on_reading(self) -> None:
        if self._far is not None:
            self._far.resume_reading()


class _Far(asyncio.Protocol):
    """The instance's side as the event loop sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._socket: socket.socket | None = None
        self._left = _FIRST

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport.get_extra_info("socket")
        self._pipe.far_made(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        if self._left and self._socket is not None:
            # OpenSSH's server waits for it as its client does (`Connection.data_received`): it lets
            # Nagle's algorithm hold back what it says of the channel until a program has begun.
            self._left -= 1
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._pipe.far_data(data)

    def eof_received(self) -> bool:
        self._pipe.far_eof()
        return True

    def pause_writing(self) -> None:
        self._pipe.far_full()

    def resume_writing(self) -> None:
        self._pipe.far_free()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._pipe.broken(exc)
        else:
            self._pipe.close()


def _tell_nobody(_: str) -> None:
    """There is nobody who wants to know."""


def _watch(connection: Any, silence: int) -> None:
    """Send at once, and notice that the other machine is gone."""
    probe = max(1, silence // 6)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, silence - 3 * probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence * 1000),
    ):
        connection.setsockopt(level, option, value)
