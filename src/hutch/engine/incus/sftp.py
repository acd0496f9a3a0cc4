"""The files of a container over the SFTP server that Incus starts inside its root.

Incus runs that server with the container's root as its own, in its user namespace, whether the
container runs or not: no path and no link leads out, and no race can change that. It speaks version
3 of the protocol (draft-ietf-secsh-filexfer-02) with OpenSSH's posix-rename and hardlink.

A client of our own, since content goes through here: many requests are under way at once, and what
is held of a file of any size is a few megabytes.
"""

import asyncio
import stat as modes
import struct
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from hutch.engine.files import PIECE, Attributes, Entry, FileKind, missing, shown
from hutch.engine.incus.client import Client, cancel, part
from hutch.errors import (
    DiskFullError,
    EngineUnavailableError,
    FileRefusedError,
    FileTakenError,
    FolderNotEmptyError,
    HutchError,
    WrongFileTypeError,
)

T = TypeVar("T")

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT = 1, 2, 3, 4, 5, 6, 7, 8
_FSETSTAT, _OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _STAT = 10, 11, 12, 13, 14, 15, 17
_SETSTAT, _READLINK, _SYMLINK, _EXTENDED = 9, 19, 20, 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_OK, _END, _NO_SUCH_FILE, _DENIED = 0, 1, 2, 3
_READ_FLAG, _WRITE_FLAG, _CREATE, _EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 1, 2, 4, 8, 0x80000000

_READ_SIZE = 32 * 1024
"""The most that the server answers with at once."""
_WRITE_SIZE = 128 * 1024
"""It refuses packets of more than 256 KiB, and drops the connection."""
_READS_AHEAD = 32
_WRITES_AHEAD = 8
_LARGEST_PACKET = 1024 * 1024
_ANSWER_WITHIN = 30.0
"""Seconds for one answer: a pipe in the container's file system would never give one."""

_WORDS: tuple[tuple[str, type[HutchError], str], ...] = (
    ("no space left on device", DiskFullError, "The disk of the instance is full"),
    ("disk quota exceeded", DiskFullError, "The disk of the instance is full"),
    ("file exists", FileTakenError, "There is something of that name already"),
    ("directory not empty", FolderNotEmptyError, "The folder is not empty"),
    ("not a directory", WrongFileTypeError, "That, or a part of the path, is not a folder"),
    ("is a directory", WrongFileTypeError, "That is a folder"),
)
"""The server's words by which it tells what its numbers do not."""


def _text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


@asynccontextmanager
async def opened(client: Client, name: str) -> AsyncGenerator["SftpFiles"]:
    """A connection to the files of a container."""
    async with client.upgraded(f"/instances/{part(name)}/sftp", "sftp") as (reader, writer):
        connection = _Connection(reader, writer)
        await connection.greet()
        receiving = asyncio.create_task(connection.receive())
        try:
            yield SftpFiles(connection)
        finally:
            await cancel(receiving)


class _Connection:
    """Requests out, answers back by their number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._last = 0
        self._is_lost = False

    async def greet(self) -> None:
        self._writer.write(struct.pack(">IBI", 5, _INIT, 3))
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                kind, _ = await self._packet()
        except (OSError, EOFError, TimeoutError) as error:
            raise _lost() from error
        if kind != _VERSION:
            raise _lost()

    async def receive(self) -> None:
        """Hand answers to those who wait for them, until the connection ends."""
        try:
            while True:
                kind, body = await self._packet()
                waiting = self._waiting.pop(int.from_bytes(body[:4], "big"), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result((kind, body))
        except (OSError, EOFError):
            pass
        finally:
            self._is_lost = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(_lost())
                    waiting.exception()  # whoever waited for it may have gone
            self._waiting.clear()

    async def _packet(self) -> tuple[int, bytes]:
        head = await self._reader.readexactly(5)
        length = int.from_bytes(head[:4], "big")
        if not 5 <= length <= _LARGEST_PACKET:
            raise EOFError
        return head[4], await self._reader.readexactly(length - 1)

    def send(self, kind: int, *parts: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Ask; the answer comes to the future. What is sent waits in memory: see `drain`."""
        if self._is_lost:
            raise _lost()
        self._last = (self._last + 1) & 0xFFFFFFFF
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = waiting
        length = 5 + sum(len(each) for each in parts)
        self._writer.writelines((struct.pack(">IBI", length, kind, self._last), *parts))
        return waiting

    async def drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            raise _lost() from error

    async def ask(self, path: bytes, kind: int, *parts: bytes) -> tuple[int, bytes]:
        """Ask and wait; raises what the server refuses with. `path` is what the error names."""
        kind, body = await patiently(self.send(kind, *parts))
        if kind == _STATUS:
            _raise_refusal(path, body)
        return kind, body


async def patiently(answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return await answer
    except TimeoutError:
        raise EngineUnavailableError(
            f"The files of the instance did not answer within {_ANSWER_WITHIN:g} s.",
            hint="The node may be overloaded, or what is at that path never answers.",
        ) from None


def _lost() -> EngineUnavailableError:
    return EngineUnavailableError(
        "The connection to the files of the instance was lost.",
        hint="It was probably started, stopped or restored just now: try again.",
    )


def _raise_refusal(path: bytes, body: bytes) -> None:
    """Raise what a status says unless it is OK."""
    code = int.from_bytes(body[4:8], "big")
    if code == _OK:
        return
    length = int.from_bytes(body[8:12], "big")
    said = body[12 : 12 + length].decode("utf-8", "replace")
    if code == _NO_SUCH_FILE:
        raise missing(path)
    where = shown(path)
    for words, kind, meaning in _WORDS:
        if said.endswith(words):
            raise kind(f"{meaning}: {where}.", path=where)
    # Go begins with the call and the path: what matters follows the last colon.
    reason = "permission denied" if code == _DENIED else said.rpartition(": ")[2] or "it failed"
    raise FileRefusedError(where, reason[:200])


def _attributes(body: bytes, at: int) -> tuple[Attributes, int]:
    """What a packet tells of a file from `at` on, and where that ends."""
    (flags,) = struct.unpack_from(">I", body, at)
    at += 4
    size = uid = gid = mode = modified = 0
    if flags & _HAS_SIZE:
        (size,) = struct.unpack_from(">Q", body, at)
        at += 8
    if flags & _HAS_OWNER:
        uid, gid = struct.unpack_from(">II", body, at)
        at += 8
    if flags & _HAS_MODE:
        (mode,) = struct.unpack_from(">I", body, at)
        at += 4
    if flags & _HAS_TIMES:
        _, modified = struct.unpack_from(">II", body, at)
        at += 8
    if flags & _HAS_MORE:
        (count,) = struct.unpack_from(">I", body, at)
        at += 4
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", body, at)
            at += 4 + length
    return Attributes(_kind(mode), size, modified, modes.S_IMODE(mode), uid, gid), at


def _kind(mode: int) -> FileKind:
    kinds = {
        modes.S_IFREG: FileKind.FILE,
        modes.S_IFDIR: FileKind.FOLDER,
        modes.S_IFLNK: FileKind.LINK,
    }
    return kinds.get(modes.S_IFMT(mode), FileKind.OTHER)


def _described(
    mode: int | None, owner: tuple[int, int] | None, modified: int | None = None
) -> list[bytes]:
    """What to set, one thing at a time: of several the server takes one for the other."""
    found: list[bytes] = []
    if owner is not None:
        found.append(struct.pack(">III", _HAS_OWNER, *owner))
    if mode is not None:
        # After the owner, whose change takes some of the bits away.
        found.append(struct.pack(">II", _HAS_MODE, mode))
    if modified is not None:
        found.append(struct.pack(">III", _HAS_TIMES, modified, modified))
    return found


class _Reading:
    def __init__(self, connection: _Connection, path: bytes, handle: bytes) -> None:
        self._connection = connection
        self._path = path
        self._handle = handle

    async def stat(self) -> Attributes:
        _, body = await self._connection.ask(self._path, _FSTAT, self._handle)
        return _attributes(body, 4)[0]

    async def read(self, offset: int, size: int) -> AsyncIterator[bytes]:
        ahead: deque[tuple[int, asyncio.Future[tuple[int, bytes]]]] = deque()
        end = offset + size
        gathered: list[bytes] = []
        length = 0
        try:
            while offset < end or ahead:
                while offset < end and len(ahead) < _READS_AHEAD:
                    wanted = min(_READ_SIZE, end - offset)
                    ahead.append((wanted, self._ask(offset, wanted)))
                    offset += wanted
                wanted, answer = ahead.popleft()
                content = self._content(*await patiently(answer))
                gathered.append(content)
                length += len(content)
                if len(content) < wanted:
                    # Here it ends; or the server read less than was there, which it tells nobody.
                    for _, unwanted in ahead:
                        unwanted.cancel()
                    offset -= wanted - len(content) + sum(each for each, _ in ahead)
                    ahead.clear()
                    if not content:
                        break
                if length >= PIECE:
                    yield b"".join(gathered)
                    gathered, length = [], 0
            if gathered:
                yield b"".join(gathered)
        finally:
            for _, unwanted in ahead:
                unwanted.cancel()

    def _ask(self, offset: int, wanted: int) -> "asyncio.Future[tuple[int, bytes]]":
        return self._connection.send(_READ, self._handle, struct.pack(">QI", offset, wanted))

    def _content(self, kind: int, body: bytes) -> bytes:
        if kind == _DATA:
            return body[8:]
        if int.from_bytes(body[4:8], "big") != _END:
            _raise_refusal(self._path, body)
        return b""


class _Writing:
    def __init__(self, connection: _Connection, path: bytes, handle: bytes, offset: int) -> None:
        self._connection = connection
        self._path = path
        self._handle = handle
        self._offset = offset
        self._ahead: deque[asyncio.Future[tuple[int, bytes]]] = deque()

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), _WRITE_SIZE):
            piece = content[start : start + _WRITE_SIZE]
            if len(self._ahead) >= _WRITES_AHEAD:
                await self._settle_one()
            head = self._handle + struct.pack(">QI", self._offset, len(piece))
            self._ahead.append(self._connection.send(_WRITE, head, piece))
            self._offset += len(piece)
            await self._connection.drain()

    async def flush(self) -> None:
        while self._ahead:
            await self._settle_one()

    async def _settle_one(self) -> None:
        _, body = await patiently(self._ahead.popleft())
        _raise_refusal(self._path, body)

    async def describe(
        self,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        modified: int | None = None,
    ) -> None:
        # By the handle: whatever has been put at the path meanwhile is left alone. But for the
        # time, which the server sets by the name that it has opened.
        for each in _described(mode, owner, modified):
            await self._connection.ask(self._path, _FSETSTAT, self._handle, each)


class SftpFiles:
    """As `hutch.engine.files.Files` says."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def stat(self, path: bytes, *, follow: bool = True) -> Attributes:
        kind = _STAT if follow else _LSTAT
        _, body = await self._connection.ask(path, kind, _text(path))
        return _attributes(body, 4)[0]

    async def entries(self, path: bytes) -> AsyncIterator[Entry]:
        async with self._handle(path, _OPENDIR, _text(path)) as handle:
            while True:
                kind, body = await patiently(self._connection.send(_READDIR, handle))
                if kind != _NAME:
                    if int.from_bytes(body[4:8], "big") != _END:
                        _raise_refusal(path, body)
                    return
                for entry in _names(body):
                    if entry.name not in {b".", b".."}:
                        yield entry

    async def read_link(self, path: bytes) -> bytes:
        _, body = await self._connection.ask(path, _READLINK, _text(path))
        return next(iter(_names(body))).name

    @asynccontextmanager
    async def reading(self, path: bytes) -> AsyncGenerator[_Reading]:
        opening = _text(path) + struct.pack(">II", _READ_FLAG, 0)
        async with self._handle(path, _OPEN, opening) as handle:
            yield _Reading(self._connection, path, handle)

    @asynccontextmanager
    async def writing(self, path: bytes, *, offset: int | None) -> AsyncGenerator[_Writing]:
        flags = _WRITE_FLAG | (_CREATE | _EXCLUSIVE if offset is None else 0)
        opening = _text(path) + struct.pack(">II", flags, 0)
        async with self._handle(path, _OPEN, opening) as handle:
            file = _Writing(self._connection, path, handle, offset or 0)
            try:
                yield file
            finally:
                with suppress(HutchError):
                    await file.flush()

    @asynccontextmanager
    async def _handle(self, path: bytes, kind: int, opening: bytes) -> AsyncGenerator[bytes]:
        _, body = await self._connection.ask(path, kind, opening)
        handle = body[4:]
        try:
            yield handle
        finally:
            with suppress(HutchError):
                await self._connection.ask(path, _CLOSE, handle)

    async def make_folder(self, path: bytes) -> None:
        await self._connection.ask(path, _MKDIR, _text(path), struct.pack(">I", 0))

    async def describe(self, path: bytes, *, mode: int, owner: tuple[int, int]) -> None:
        for each in _described(mode, owner):
            await self._connection.ask(path, _SETSTAT, _text(path), each)

    async def make_link(self, path: bytes, target: bytes) -> None:
        # The target first, as OpenSSH has it and the draft has not.
        await self._connection.ask(path, _SYMLINK, _text(target), _text(path))

    async def remove(self, path: bytes) -> None:
        # The server would remove an empty folder with this as well.
        if (await self.stat(path, follow=False)).kind is FileKind.FOLDER:
            raise WrongFileTypeError(f"That is a folder: {shown(path)}.", path=shown(path))
        await self._connection.ask(path, _REMOVE, _text(path))

    async def remove_folder(self, path: bytes) -> None:
        if (await self.stat(path, follow=False)).kind is not FileKind.FOLDER:
            raise WrongFileTypeError(f"That is not a folder: {shown(path)}.", path=shown(path))
        await self._connection.ask(path, _RMDIR, _text(path))

    async def rename(self, path: bytes, to: bytes) -> None:
        await self._extended(path, b"posix-rename@openssh.com", path, to)

    async def link(self, path: bytes, to: bytes) -> None:
        await self._extended(to, b"hardlink@openssh.com", path, to)

    async def _extended(self, named: bytes, request: bytes, path: bytes, to: bytes) -> None:
        await self._connection.ask(named, _EXTENDED, _text(request), _text(path), _text(to))


def _names(body: bytes) -> list[Entry]:
    (count,) = struct.unpack_from(">I", body, 4)
    at = 8
    found: list[Entry] = []
    for _ in range(count):
        (length,) = struct.unpack_from(">I", body, at)
        name = body[at + 4 : at + 4 + length]
        at += 4 + length
        (length,) = struct.unpack_from(">I", body, at)
        attributes, at = _attributes(body, at + 4 + length)
        found.append(Entry(name, attributes))
    return found
