"""A command's streams, as files that must never be waited for."""

import asyncio
import os
from collections.abc import Callable

_CHUNK = 64 * 1024
_HIGH, _LOW = 64 * 1024, 16 * 1024
"""Bytes not yet taken above which the writer is to pause, and below which it may go on."""


class Source:
    """Reads a file and hands on what comes, until it ends. The file is closed then."""

    def __init__(self, number: int, hand_on: Callable[[bytes], None]) -> None:
        self._number: int | None = number
        self._hand_on = hand_on
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(number, self._read)

    async def ended(self) -> None:
        await self._ended

    def pause(self) -> None:
        if self._number is not None:
            self._loop.remove_reader(self._number)

    def resume(self) -> None:
        if self._number is not None:
            self._loop.add_reader(self._number, self._read)

    def close(self) -> None:
        if self._number is not None:
            self._loop.remove_reader(self._number)
            os.close(self._number)
            self._number = None
        if not self._ended.done():
            self._ended.set_result(None)

    def _read(self) -> None:
        if self._number is None:
            return
        try:
            data = os.read(self._number, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            # Of a pseudo-terminal: nobody has its other side any more.
            data = b""
        if data:
            self._hand_on(data)
        else:
            self.close()


class Target:
    """Writes to a file what it takes, and keeps the rest; tells when that is too much."""

    def __init__(self, number: int, want: Callable[[bool], None]) -> None:
        self._number: int | None = number
        self._want = want
        self._rest = bytearray()
        self._is_full = False
        self._is_ending = False
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        if self._number is None or self._is_ending:
            return
        if not self._rest:
            data = data[self._put(data) :]
            if data:
                self._loop.add_writer(self._number, self._go_on)
        self._rest += data
        if len(self._rest) > _HIGH and not self._is_full:
            self._is_full = True
            self._want(False)

    def end(self) -> None:
        """Close the file once everything is written."""
        self._is_ending = True
        if not self._rest:
            self.close()

    def close(self) -> None:
        if self._number is not None:
            self._loop.remove_writer(self._number)
            os.close(self._number)
            self._number = None
            self._rest.clear()

    def _put(self, data: bytes | bytearray) -> int:
        if self._number is None:
            return len(data)
        try:
            return os.write(self._number, data)
        except BlockingIOError:
            return 0
        except OSError:
            # The command reads no more: there is nobody to keep it for.
            self.close()
            return len(data)

    def _go_on(self) -> None:
        del self._rest[: self._put(self._rest)]
        if not self._rest and self._number is not None:
            self._loop.remove_writer(self._number)
            if self._is_ending:
                self.close()
        if len(self._rest) <= _LOW and self._is_full:
            self._is_full = False
            self._want(True)
