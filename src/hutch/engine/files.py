"""The files of a container, as its own root sees them: what every engine offers of them.

A path is absolute and made of bytes, as Linux has it. Every link in one is followed *inside* the
container, whatever it points at, and none ever leads out. Methods raise NotFoundError,
WrongFileTypeError, FileTakenError, FolderNotEmptyError, DiskFullError and FileRefusedError, and
EngineUnavailableError when the connection is lost.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hutch.errors import NotFoundError

PIECE = 256 * 1024
"""Bytes in which content is read and written: what one transfer holds is a few of these."""


class FileKind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"
    """A device, a pipe, a socket: nothing whose content could be copied."""


@dataclass(frozen=True, slots=True)
class Attributes:
    kind: FileKind
    size: int
    """Bytes."""
    modified: int
    """Seconds since 1970."""
    mode: int
    """The permission bits alone: 0 to 0o7777."""
    uid: int
    gid: int
    """Owner and group, as the container numbers them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder; a link is described itself, not what it points at."""

    name: bytes
    attributes: Attributes


class ReadableFile(Protocol):
    async def stat(self) -> Attributes: ...

    def read(self, offset: int, size: int) -> AsyncIterator[bytes]:
        """The content from `offset` on, at most `size` bytes, in pieces; less where it ends."""
        ...


class WritableFile(Protocol):
    """Written from one offset on, without gaps. What is wrong may be told at a later call."""

    async def write(self, content: bytes) -> None: ...

    async def flush(self) -> None:
        """Wait until everything is with the container's kernel."""
        ...

    async def describe(
        self,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        modified: int | None = None,
    ) -> None:
        """Set the permission bits, the owner's and the group's number, and when it was changed:
        seconds since 1970, below 2 to the power of 32."""
        ...


class Files(Protocol):
    """One container's files, while a connection to them is open."""

    async def stat(self, path: bytes, *, follow: bool = True) -> Attributes:
        """What is at `path`; with `follow` what a link at its end leads to."""
        ...

    def entries(self, path: bytes) -> AsyncIterator[Entry]:
        """What a folder has, in no order, without `.` and `..`."""
        ...

    async def read_link(self, path: bytes) -> bytes: ...

    def reading(self, path: bytes) -> AbstractAsyncContextManager[ReadableFile]:
        """A file opened; a link at the end of `path` is followed."""
        ...

    def writing(
        self, path: bytes, *, offset: int | None
    ) -> AbstractAsyncContextManager[WritableFile]:
        """A file opened to be written from `offset` on; with None a new one, which must not be
        there yet. What is written stays, however the block ends."""
        ...

    async def make_folder(self, path: bytes) -> None: ...

    async def describe(self, path: bytes, *, mode: int, owner: tuple[int, int]) -> None: ...

    async def make_link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link. FileTakenError when there is something of that name."""
        ...

    async def remove(self, path: bytes) -> None:
        """Remove a file or a link."""
        ...

    async def remove_folder(self, path: bytes) -> None:
        """Remove a folder, which must be empty."""
        ...

    async def rename(self, path: bytes, to: bytes) -> None:
        """In one step: whoever opens `to` finds the old one or the new one, whole."""
        ...

    async def link(self, path: bytes, to: bytes) -> None:
        """Give a file a second name. FileTakenError when there is something of that name."""
        ...


def shown(path: bytes) -> str:
    """A path as a text for people and the audit: no control characters, and not without end."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 400 else f"{text[:200]}…{text[-199:]}"


def missing(path: bytes) -> NotFoundError:
    return NotFoundError(
        "file", shown(path), hint="`hutch files list NAME FOLDER` shows what there is."
    )
