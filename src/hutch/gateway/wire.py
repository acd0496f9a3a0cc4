"""A connection that carries forwarded bytes by a short way, and holds little of them.

asyncssh takes every packet through a dozen calls and several copies, which costs more than its
encryption does. Here packets with data of a forwarded channel are opened, put together and handed
on where they arrive, and the other way round; whatever else comes, and every other cipher, is left
to asyncssh. Both count in the same places, so that they may follow one another packet by packet.

It also stops reading for a client that does not read: asyncssh would keep what it cannot send.
"""

# asyncssh says nothing of the types that its channels carry.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, MSG_IGNORE
from asyncssh.misc import MACError, ProtocolError

from hutch.gateway.ciphers import LENGTH, TAG, ForgedError, Sealer, sealer

WINDOW = 2 * 1024 * 1024
PACKET = 32 * 1024
"""What a client may send of one channel ahead, and in one packet; OpenSSH's own numbers."""

_HIGH, _LOW = 256 * 1024, 64 * 1024
"""Unsent bytes of a connection above which its sources are held, and below which they go on."""
_MOST_UNSENT = 4 * 1024 * 1024
"""Unsent bytes above which a client is no longer read: it asks, and does not take the answers."""
_MOST_UNREAD = 1024 * 1024
"""Bytes that may arrive while one packet is still thought about."""
_HEAD = 10
"""Padding's length, type, channel and size stand before a channel's data."""
_LEAST_PADDING = 4
_RANDOM = 32
_FAREWELL_SECONDS = 5.0


class Source(Protocol):
    """What a connection's bytes come from."""

    def hold(self, why: str) -> None: ...

    def release(self, why: str) -> None: ...


class Held:
    """Stops reading for as long as there is a reason to; sessions and the wire each have theirs."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    @property
    def is_held(self) -> bool:
        return bool(self._reasons)

    def hold(self, why: str) -> None:
        if not self._reasons:
            self.stop_reading()
        self._reasons.add(why)

    def release(self, why: str) -> None:
        if why in self._reasons:
            self._reasons.discard(why)
            if not self._reasons:
                self.go_on_reading()

    def stop_reading(self) -> None:
        raise NotImplementedError

    def go_on_reading(self) -> None:
        raise NotImplementedError


class Connection(asyncssh.SSHServerConnection):
    """One client's connection. `heard` is when its bytes last moved, by the loop's clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions
    ) -> None:
        super().__init__(loop, options)
        self.heard = loop.time()
        self.sources: set[Source] = set()
        self._opener: tuple[object, Sealer | None] = (None, None)
        self._closer: tuple[object, Sealer | None] = (None, None)
        self._is_full = False
        self._is_deaf = False
        self._socket: socket.socket | None = None

    # ---- the wire, as the event loop sees it ------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=_HIGH, low=_LOW)
        self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        self.heard = self._loop.time()
        if not self._auth_complete and self._socket is not None:
            # ssh sends nothing more before it knows that what it sent last has arrived (it lets
            # Nagle's algorithm wait until it is logged in), and a system that has nothing to send
            # back says so only after 40 ms: two times at each login. It holds for one answer.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super().data_received(data, datatype)
        transport = self._transport
        if transport is None:
            return
        if len(self._inpbuf) > _MOST_UNREAD:
            self.abort()
        elif self._is_full and transport.get_write_buffer_size() > _MOST_UNSENT:
            self._is_deaf = True
            transport.pause_reading()

    def pause_writing(self) -> None:
        self._is_full = True
        for source in self.sources:
            source.hold("wire")

    def resume_writing(self) -> None:
        self._is_full = False
        for source in self.sources:
            source.release("wire")
        if self._is_deaf and self._transport is not None:
            self._is_deaf = False
            self._transport.resume_reading()

    def add_source(self, source: Source) -> None:
        self.sources.add(source)
        if self._is_full:
            source.hold("wire")

    def new_lane(self) -> "Lane":
        """A channel for a connection that is forwarded."""
        return Lane(self, self._loop)

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return len(self._channels)

    def dismiss(self, code: int, reason: str) -> None:
        """End the connection with a reason. A client that does not read it is cut off.

        asyncssh's own way cuts every client off, most of them before they have read it.
        """
        transport = self._transport
        if transport is not None:
            self._send_disconnect(code, reason, "en")
            self._transport = None
            transport.close()
            self._loop.call_later(_FAREWELL_SECONDS, transport.abort)
            self._loop.call_soon(self._cleanup, None)

    async def reload_config(self) -> None:
        """There is no configuration that depends on who comes."""

    # ---- what arrives -----------------------------------------------------------------------

    def _recv_pkthdr(self) -> bool:
        """asyncssh calls this where a packet begins, and again for as long as it answers True."""
        if self._opener[0] is not self._recv_encryption:
            self._opener = (self._recv_encryption, sealer(self._recv_encryption))
        opener = self._opener[1]
        if opener is None or not self._auth_complete or self._decompressor is not None:
            return super()._recv_pkthdr()
        try:
            return self._take_data(opener)
        except ForgedError:
            raise MACError("MAC verification failed") from None

    def _take_data(self, opener: Sealer) -> bool:
        """Hand on the data of as many whole packets as there are, up to one of another kind."""
        buffer, at, parts = self._inpbuf, 0, list[memoryview]()
        view, end = memoryview(buffer), len(buffer)
        lane: Lane | None = None
        whole = True
        while whole and end - at >= LENGTH + TAG:
            size = opener.length(self._recv_seq, view[at : at + LENGTH])
            if size > self._max_recv_pktlen:
                raise ProtocolError("Max packet size exceeded")
            after = at + LENGTH + size + TAG
            if after > end:
                whole = False
                break
            clear = opener.open(self._recv_seq, view[at:after])
            meant = self._lane_of(clear)
            if meant is None:
                break
            if meant is not lane:
                if lane is not None:
                    lane.take(parts)
                lane, parts = meant, []
            parts.append(_data_of(clear))
            opener.advance()
            self._auth_final = True
            self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
            at = after
        self._inpbuf = buffer[at:] if at else buffer
        if lane is not None:
            lane.take(parts)
        # What is left is not whole, or is asyncssh's to read, which opens it once more.
        return whole and end - at >= LENGTH + TAG and super()._recv_pkthdr()

    def _lane_of(self, clear: bytes) -> "Lane | None":
        """The forwarded channel that a packet has data for; None for everything else."""
        if len(clear) < _HEAD or clear[1] != MSG_CHANNEL_DATA:
            return None
        channel = self._channels.get(int.from_bytes(clear[2:6], "big"))
        return channel if isinstance(channel, Lane) and channel.takes else None

    # ---- what leaves ------------------------------------------------------------------------

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        # asyncssh puts an empty packet before each, which protects CBC alone. There is none here.
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def send_data(self, channel: int, data: memoryview, largest: int) -> int:
        """Send data of a channel in packets of at most `largest` bytes; how much of it was sent.

        That is all or nothing: nothing while keys are exchanged, or for another cipher.
        """
        if self._closer[0] is not self._send_encryption:
            self._closer = (self._send_encryption, sealer(self._send_encryption))
        closer = self._closer[1]
        if closer is None or self._transport is None or not self._may_send():
            return 0
        pieces: list[bytes] = []
        number = channel.to_bytes(4, "big")
        noise = os.urandom(_RANDOM)
        for at in range(0, len(data), largest):
            part = data[at : at + largest]
            size = len(part)
            padding = -(_HEAD + size) % closer.block
            if padding < _LEAST_PADDING:
                padding += closer.block
            head = bytes((padding, MSG_CHANNEL_DATA)) + number + size.to_bytes(4, "big")
            clear = b"".join((head, part, noise[:padding]))
            pieces += closer.seal(self._send_seq, clear)
            self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
            self._rekey_bytes_sent += len(clear)
        self._transport.writelines(pieces)
        self.heard = self._loop.time()
        return len(data)

    def _may_send(self) -> bool:
        """Whether data may go out now: not amid an exchange of keys, nor when one is due."""
        is_due = self._rekey_bytes_sent >= self._rekey_bytes or (
            bool(self._rekey_seconds) and time.monotonic() >= self._rekey_time
        )
        return self._kex_complete and self._compressor is None and not is_due


class Lane(asyncssh.SSHTCPChannel[bytes]):
    """A forwarded channel whose data takes the short way."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop, None, "strict", WINDOW, PACKET)
        self._wire = connection

    @property
    def takes(self) -> bool:
        """Whether data that arrives can be handed on at once."""
        return (
            self._recv_state == "open"
            and not self._recv_paused
            and not self._recv_buf
            and self._send_state in {"open", "eof_pending", "eof"}
        )

    def take(self, parts: Sequence[memoryview]) -> None:
        """Hand data on that has arrived, and let the client send as much again."""
        self._recv_window -= sum(map(len, parts))
        if self._recv_window < 0:
            raise ProtocolError("Window exceeded")
        if self._recv_window < WINDOW // 2:
            more = WINDOW - self._recv_window
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, more.to_bytes(4, "big"))
            self._recv_window = WINDOW
        if self._session is not None:
            self._session.data_received(parts[0] if len(parts) == 1 else b"".join(parts), None)

    def give(self, data: bytes) -> None:
        """Send data, or keep it until the client wants it: then the session is asked to pause."""
        if self._send_state != "open" or self._send_chan is None:
            return
        sent = 0
        if not self._send_buf and self._send_window:
            fits = memoryview(data)[: self._send_window]
            sent = self._wire.send_data(self._send_chan, fits, self._send_pktsize)
            self._send_window -= sent
        if sent < len(data):
            self.write(data[sent:])


def _data_of(clear: bytes) -> memoryview:
    """The data in an opened packet. Raises ProtocolError when the sizes do not fit together."""
    size = int.from_bytes(clear[6:_HEAD], "big")
    if _HEAD + size + clear[0] != len(clear) or clear[0] < _LEAST_PADDING:
        raise ProtocolError("Incorrect packet size")
    return memoryview(clear)[_HEAD : _HEAD + size]
