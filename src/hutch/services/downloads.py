"""Content that goes out of an instance: a file or a part of it, or a folder as an archive."""

import io
import stat as modes
import tarfile
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from hutch.domain.file_paths import join, name_of
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.engine.files import Attributes, Entry, FileKind, Files, shown
from hutch.errors import BadRangeError, FileChangedError, NotFoundError, WrongFileTypeError
from hutch.services.context import Context
from hutch.services.files import Place, opened

_STEADY_SECONDS = 2
"""A file that was changed within them may change again without being seen to have."""
_BLOCK = 512
_OF_THE_KERNEL = frozenset({b"/proc", b"/sys", b"/dev"})


class Archive(StrEnum):
    TAR = "tar"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes that are asked for: from `first` on, or the last `-first` of them."""

    first: int
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Download:
    name: bytes
    pieces: AsyncIterator[bytes]
    length: int | None = None
    """Bytes that come; None: nobody knows before."""
    size: int | None = None
    """Bytes of the whole file."""
    start: int = 0
    tag: str | None = None
    modified: datetime | None = None
    is_part: bool = False


def tag_of(has: Attributes, now: datetime) -> str:
    """An entity tag: another one whenever the file may be another.

    Times of files count in seconds here, so what was changed just now has a weak one: nobody goes
    on in the middle of it.
    """
    tag = f'"{has.size:x}-{has.modified:x}-{has.uid:x}-{has.mode:x}"'
    return tag if has.modified < now.timestamp() - _STEADY_SECONDS else f"W/{tag}"


@asynccontextmanager
async def send(
    context: Context,
    actor: Actor,
    ref: str,
    given: bytes,
    *,
    wanted: Range | None = None,
    only_if: str | None = None,
    archive: Archive = Archive.TAR,
) -> AsyncGenerator[Download]:
    """A file's content, or a folder as an archive.

    `only_if` is the entity tag of the file that `wanted` is a part of; if it has changed, all of it
    comes. Reading raises FileChangedError when it turns out to have changed meanwhile.
    """
    async with opened(context, actor, Action.FILE_READ, ref) as place:
        path = place.path(given)
        has = await place.files.stat(path)
        await place.record("download", path)
        if has.kind is FileKind.FOLDER:
            name = (name_of(path) or place.instance.name.encode()) + f".{archive}".encode()
            yield Download(name, _archived(place.files, path, archive))
            return
        if has.kind is not FileKind.FILE:
            raise WrongFileTypeError(
                f"That is neither a file nor a folder: {shown(path)}.", path=shown(path)
            )
        async with _file(place, path, wanted, only_if) as download:
            yield download


@asynccontextmanager
async def _file(
    place: Place, path: bytes, wanted: Range | None, only_if: str | None
) -> AsyncGenerator[Download]:
    async with place.files.reading(path) as file:
        has = await file.stat()
        tag = tag_of(has, place.context.now())
        if only_if is not None and (only_if != tag or tag.startswith("W/")):
            wanted = None
        start, length = _span(wanted, has.size)

        async def pieces() -> AsyncIterator[bytes]:
            # The last piece is held back until the file is known to be the same still.
            last = b""
            came = 0
            async for piece in file.read(start, length):
                if last:
                    yield last
                last = piece
                came += len(piece)
            after = await file.stat()
            if came != length or (after.size, after.modified) != (has.size, has.modified):
                raise changed(path)
            if last:
                yield last

        yield Download(
            name=name_of(path),
            pieces=pieces(),
            length=length,
            size=has.size,
            start=start,
            tag=tag,
            modified=datetime.fromtimestamp(has.modified, UTC),
            is_part=wanted is not None,
        )


def changed(path: bytes) -> FileChangedError:
    return FileChangedError(
        f"The file changed while it was sent: {shown(path)}.",
        hint="Send it once nothing writes to it, or copy it inside and send the copy.",
        path=shown(path),
    )


def _span(wanted: Range | None, size: int) -> tuple[int, int]:
    """Where to begin, and how many bytes there are from there."""
    if wanted is None:
        return 0, size
    start = max(size + wanted.first, 0) if wanted.first < 0 else wanted.first
    end = size if wanted.last is None else min(wanted.last + 1, size)
    if start >= end:
        raise BadRangeError(size)
    return start, end - start


# -- archives ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    path: bytes
    name: bytes
    """Below the folder that is sent, which is the first part of it."""
    attributes: Attributes


async def _archived(files: Files, top: bytes, archive: Archive) -> AsyncIterator[bytes]:
    pieces = _tar(files, top) if archive is Archive.TAR else _zip(files, top)
    async for piece in pieces:
        yield piece


async def _members(files: Files, top: bytes) -> AsyncIterator[_Member]:
    """A folder and what is below it, folders before what is in them; links are not followed.

    What goes away meanwhile is left out, and so are pipes, sockets and devices.
    """
    has = await files.stat(top)
    # A link to a folder is what it leads to, here alone.
    left = [_Member(top, name_of(top) or b"root", has)]
    while left:
        member = left.pop()
        kind = member.attributes.kind
        if kind is FileKind.OTHER:
            continue
        yield member
        if kind is FileKind.FOLDER and member.path not in _OF_THE_KERNEL:
            try:
                below = [entry async for entry in files.entries(member.path)]
            except (NotFoundError, WrongFileTypeError):
                continue
            left += [_below(member, entry) for entry in sorted(below, key=_name, reverse=True)]


def _below(member: _Member, entry: Entry) -> _Member:
    return _Member(join(member.path, entry.name), join(member.name, entry.name), entry.attributes)


def _name(entry: Entry) -> bytes:
    return entry.name


async def _content(files: Files, member: _Member) -> AsyncIterator[bytes]:
    """As many bytes of a file as it had when it was looked at. Of a log that grows the rest is left
    for another time; one that became shorter is broken off."""
    size = member.attributes.size
    if not size:
        return
    async with files.reading(member.path) as file:
        came = 0
        async for piece in file.read(0, size):
            came += len(piece)
            yield piece
    if came < size:
        raise changed(member.path)


async def _tar(files: Files, top: bytes) -> AsyncIterator[bytes]:
    async for member in _members(files, top):
        info = await _header(files, member)
        if info is None:
            continue
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.attributes.kind is FileKind.FILE:
            async for piece in _content(files, member):
                yield piece
            yield bytes(-info.size % _BLOCK)
    yield bytes(2 * _BLOCK)


async def _header(files: Files, member: _Member) -> tarfile.TarInfo | None:
    has = member.attributes
    info = tarfile.TarInfo(member.name.decode("utf-8", "surrogateescape"))
    info.mode, info.uid, info.gid, info.mtime = has.mode, has.uid, has.gid, has.modified
    match has.kind:
        case FileKind.FOLDER:
            info.type = tarfile.DIRTYPE
        case FileKind.LINK:
            info.type = tarfile.SYMTYPE
            try:
                target = await files.read_link(member.path)
            except NotFoundError:
                return None
            info.linkname = target.decode("utf-8", "surrogateescape")
        case _:
            if not await _is_still_there(files, member):
                return None
            info.size = has.size
    return info


async def _is_still_there(files: Files, member: _Member) -> bool:
    """Whether a file has not gone since its folder was read: its header has not been sent yet."""
    try:
        return (await files.stat(member.path, follow=False)).kind is FileKind.FILE
    except NotFoundError:
        return False


class _Sink(io.RawIOBase):
    """What the zip module writes to: gathered until it is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: bytes, /) -> int:  # type: ignore[override]
        self._pieces.append(bytes(content))
        return len(content)

    def fetch(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def _zip(files: Files, top: bytes) -> AsyncIterator[bytes]:
    # Stored, not squeezed: that would cost everyone else the processor.
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        async for member in _members(files, top):
            info = _zip_info(member)
            if member.attributes.kind is FileKind.FILE:
                if not await _is_still_there(files, member):
                    continue
                with archive.open(info, "w", force_zip64=True) as inside:
                    async for piece in _content(files, member):
                        inside.write(piece)
                        yield sink.fetch()
            else:
                is_link = member.attributes.kind is FileKind.LINK
                archive.writestr(info, await files.read_link(member.path) if is_link else b"")
            yield sink.fetch()
    yield sink.fetch()


def _zip_info(member: _Member) -> zipfile.ZipInfo:
    has = member.attributes
    at = datetime.fromtimestamp(min(max(has.modified, 315619200), 4354732800), UTC)
    # The format wants text. What is no UTF-8 is written out, so that no two names become one.
    name = member.name.decode("utf-8", "backslashreplace")
    kinds = {FileKind.FOLDER: modes.S_IFDIR, FileKind.LINK: modes.S_IFLNK}
    info = zipfile.ZipInfo(name + ("/" if has.kind is FileKind.FOLDER else ""), at.timetuple()[:6])
    info.create_system = 3
    info.external_attr = (kinds.get(has.kind, modes.S_IFREG) | has.mode) << 16
    return info
