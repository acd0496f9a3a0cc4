"""The files of a simulated container: folders, links and owners over the contents it remembers.

Content is in the table `files`, where the simulated programs find it too; what else there is to
say of a path is in `nodes`. A folder exists when it has a node or something is below it.
"""

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hutch.engine.files import PIECE, Attributes, Entry, FileKind, missing, shown
from hutch.engine.simulated import programs, provision
from hutch.engine.simulated.state import State
from hutch.errors import (
    DiskFullError,
    FileRefusedError,
    FileTakenError,
    FolderNotEmptyError,
    NotFoundError,
    WrongFileTypeError,
)

_MOST_LINKS = 40
_FOLDERS = frozenset({"/", "/etc", "/home", "/root", "/tmp", "/var"})  # noqa: S108 - names inside a container
_LONGEST_NAME = 255


class SimulatedFiles:
    """As `hutch.engine.files.Files` says."""

    def __init__(self, state: State, name: str, check_alive: Callable[[], None]) -> None:
        self._state = state
        self._name = name
        self._check_alive = check_alive

    # -- looking -------------------------------------------------------------------------------

    async def stat(self, path: bytes, *, follow: bool = True) -> Attributes:
        return self.attributes(path, self._find(path, follow=follow))

    async def entries(self, path: bytes) -> AsyncIterator[Entry]:
        folder = self._find(path)
        if self.attributes(path, folder).kind is not FileKind.FOLDER:
            raise WrongFileTypeError(f"That is not a folder: {shown(path)}.", path=shown(path))
        for name in self._children(folder):
            self._check_alive()
            below = f"{folder.rstrip('/')}/{name}"
            yield Entry(_bytes(name), self.attributes(_bytes(below), below))

    async def read_link(self, path: bytes) -> bytes:
        node = self._node(self._find(path, follow=False))
        if node is None or node["kind"] != FileKind.LINK:
            raise FileRefusedError(shown(path), "invalid argument")
        return bytes(node["target"])

    def attributes(self, path: bytes, at: str) -> Attributes:
        """What is at a place whose links have been followed; `path` is what an error names."""
        self._check_alive()
        node = self._node(at)
        size = self._state.size(self._name, at)
        content = None if size is not None else programs.read_file(self._state, self._name, at)
        if size is None and content is not None:
            size = len(content)
        kind = FileKind(node["kind"]) if node else None
        if size is not None:
            kind = FileKind.FILE
        elif kind is None and (at in _FOLDERS or self._children(at)):
            kind = FileKind.FOLDER
        if kind is None:
            raise missing(path)
        if node is not None:
            return Attributes(
                kind, size or 0, node["modified"], node["mode"], node["uid"], node["gid"]
            )
        mode = 0o644 if kind is FileKind.FILE else 0o755
        return Attributes(kind, size or 0, 1, mode, *self._home_of(at))

    def _home_of(self, at: str) -> tuple[int, int]:
        """Whose a folder is that nobody said anything of: a home is that of its account."""
        if not at.startswith("/home/"):
            return 0, 0
        passwd = programs.read_file(self._state, self._name, "/etc/passwd") or b""
        return provision.ids_of(passwd, at.split("/")[2]) or (0, 0)

    # -- content -------------------------------------------------------------------------------

    @asynccontextmanager
    async def reading(self, path: bytes) -> AsyncGenerator["_Reading"]:
        at = self._find(path)
        self.attributes(path, at)
        yield _Reading(self, self._state, self._name, path, at)

    @asynccontextmanager
    async def writing(self, path: bytes, *, offset: int | None) -> AsyncGenerator["_Writing"]:
        if offset is None:
            at = self._new(path)
            self._put(at, b"")
            self._set_node(at, FileKind.FILE, mode=0o644, owner=(0, 0))
        else:
            at = self._find(path)
            if self.attributes(path, at).kind is not FileKind.FILE:
                raise WrongFileTypeError(f"That is not a file: {shown(path)}.", path=shown(path))
        file = _Writing(self, path, at, offset or 0)
        try:
            yield file
        finally:
            file.keep()

    def content(self, at: str) -> bytes:
        return programs.read_file(self._state, self._name, at) or b""

    def room(self) -> int:
        """Bytes that still fit on the disk."""
        self._check_alive()
        return self._state.room(self._name)

    def is_there(self, at: str) -> bool:
        """Whether a file has not been removed while it was written: then nothing keeps that."""
        return self._state.size(self._name, at) is not None

    def _put(self, at: str, content: bytes) -> None:
        if not self._state.write(self._name, [(at, content)]):
            raise DiskFullError(f"The disk of the instance is full: {at}.", path=at)

    def put(self, at: str, content: bytes) -> None:
        self._put(at, content)
        node = self._node(at)
        mode = 0o644 if node is None else node["mode"]
        owner = (0, 0) if node is None else (node["uid"], node["gid"])
        self._set_node(at, FileKind.FILE, mode=mode, owner=owner)

    # -- changing ------------------------------------------------------------------------------

    async def make_folder(self, path: bytes) -> None:
        self._set_node(self._new(path), FileKind.FOLDER, mode=0o755, owner=(0, 0))

    async def describe(self, path: bytes, *, mode: int, owner: tuple[int, int]) -> None:
        at = self._find(path)
        self.set_attributes(path, at, mode=mode, owner=owner)

    def set_attributes(
        self,
        path: bytes,
        at: str,
        *,
        mode: int | None,
        owner: tuple[int, int] | None,
        modified: int | None = None,
    ) -> None:
        has = self.attributes(path, at)
        self._set_node(
            at,
            has.kind,
            mode=has.mode if mode is None else mode,
            owner=owner or (has.uid, has.gid),
            modified=has.modified if modified is None else modified,
        )

    async def remove(self, path: bytes) -> None:
        at = self._find(path, follow=False)
        if self.attributes(path, at).kind is FileKind.FOLDER:
            raise WrongFileTypeError(f"That is a folder: {shown(path)}.", path=shown(path))
        if self._node(at) is None and self._state.size(self._name, at) is None:
            raise FileRefusedError(shown(path), "a simulated image keeps its files")
        self._keep_folder(at)
        self._state.remove(self._name, at)

    async def remove_folder(self, path: bytes) -> None:
        at = self._find(path, follow=False)
        if self.attributes(path, at).kind is not FileKind.FOLDER:
            raise WrongFileTypeError(f"That is not a folder: {shown(path)}.", path=shown(path))
        if self._children(at) or at in _FOLDERS:
            raise FolderNotEmptyError(f"The folder is not empty: {shown(path)}.", path=shown(path))
        self._keep_folder(at)
        self._state.remove(self._name, at)

    async def rename(self, path: bytes, to: bytes) -> None:
        at, there = self._find(path, follow=False), self._place(to)
        moved = self.attributes(path, at)
        try:
            if self.attributes(to, there).kind is FileKind.FOLDER:
                raise FileTakenError(
                    f"There is something of that name already: {shown(to)}.", path=shown(to)
                )
        except NotFoundError:
            pass
        if f"{there}/".startswith(f"{at}/") and at != there:
            raise FileRefusedError(shown(path), "invalid argument")
        if at == there:
            return
        if moved.kind is FileKind.FOLDER and self._node(at) is None:
            self._set_node(at, moved.kind, mode=moved.mode, owner=(moved.uid, moved.gid))
        self._keep_folder(at)
        self._state.move(self._name, at, there)

    async def link(self, path: bytes, to: bytes) -> None:
        # A simulated file has one name: whoever links one removes the first name next.
        at, there = self._find(path, follow=False), self._new(to)
        has = self.attributes(path, at)
        self._put(there, self.content(at))
        self._set_node(
            there, has.kind, mode=has.mode, owner=(has.uid, has.gid), modified=has.modified
        )

    async def make_link(self, path: bytes, target: bytes) -> None:
        at = self._new(path)
        self._set_node(at, FileKind.LINK, mode=0o777, owner=(0, 0), target=target)

    # -- places --------------------------------------------------------------------------------

    def _find(self, path: bytes, *, follow: bool = True) -> str:
        """Where a path leads, its links followed inside, the last one only with `follow`."""
        self._check_alive()
        left: list[str] = [each for each in _text(path).split("/") if each]
        at = ""
        links = 0
        while left:
            name = left.pop(0)
            if name in {".", ".."}:
                at = at.rpartition("/")[0] if name == ".." else at
                continue
            _check_length(path, _bytes(name))
            here = f"{at}/{name}"
            node = self._node(here)
            if node is not None and node["kind"] == FileKind.LINK and (left or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise FileRefusedError(shown(path), "too many levels of symbolic links")
                target = _text(bytes(node["target"]))
                at = "" if target.startswith("/") else at
                left = [each for each in target.split("/") if each] + left
                continue
            if left and self._state.size(self._name, here) is not None:
                raise WrongFileTypeError(
                    f"That, or a part of the path, is not a folder: {shown(path)}.",
                    path=shown(path),
                )
            at = here
        return at or "/"

    def _place(self, path: bytes) -> str:
        """Where something of a path's name would be, in a folder that is there."""
        folder, _, name = path.rstrip(b"/").rpartition(b"/")
        at = self._find(folder or b"/")
        if self.attributes(folder or b"/", at).kind is not FileKind.FOLDER:
            raise WrongFileTypeError(f"That is not a folder: {shown(folder)}.", path=shown(folder))
        _check_length(path, name)
        return f"{at.rstrip('/')}/{_text(name)}"

    def _new(self, path: bytes) -> str:
        at = self._place(path)
        try:
            self.attributes(path, at)
        except NotFoundError:
            return at
        raise FileTakenError(
            f"There is something of that name already: {shown(path)}.", path=shown(path)
        )

    def _keep_folder(self, at: str) -> None:
        """Let the folder that something leaves stay, also when that was all that made it one."""
        folder = at.rpartition("/")[0]
        if folder and self._node(folder) is None:
            self._set_node(folder, FileKind.FOLDER, mode=0o755, owner=self._home_of(folder))

    def _children(self, folder: str) -> list[str]:
        return self._state.children(self._name, folder)

    def _node(self, at: str) -> Any:
        return self._state.node(self._name, at)

    def _set_node(
        self,
        at: str,
        kind: FileKind,
        *,
        mode: int,
        owner: tuple[int, int],
        target: bytes | None = None,
        modified: int | None = None,
    ) -> None:
        changed = int(time.time()) if modified is None else modified
        self._state.set_node(self._name, at, kind.value, mode, *owner, changed, target)


class _Reading:
    def __init__(
        self, files: SimulatedFiles, state: State, name: str, path: bytes, at: str
    ) -> None:
        self._files = files
        self._state = state
        self._name = name
        self._path = path
        self._at = at

    async def stat(self) -> Attributes:
        return self._files.attributes(self._path, self._at)

    async def read(self, offset: int, size: int) -> AsyncIterator[bytes]:
        end = offset + size
        kept = self._state.size(self._name, self._at) is not None
        whole = b"" if kept else self._files.content(self._at)
        while offset < end:
            await self.stat()
            wanted = min(PIECE, end - offset)
            piece = (
                self._state.slice(self._name, self._at, offset, wanted)
                if kept
                else whole[offset : offset + wanted]
            )
            if not piece:
                return
            yield piece
            offset += len(piece)


class _Writing:
    def __init__(self, files: SimulatedFiles, path: bytes, at: str, offset: int) -> None:
        self._files = files
        self._path = path
        self._at = at
        self._offset = offset
        self._more = bytearray()

    async def write(self, content: bytes) -> None:
        if self._files.room() < len(self._more) + len(content):
            raise DiskFullError(
                f"The disk of the instance is full: {shown(self._path)}.", path=shown(self._path)
            )
        self._more += content

    async def flush(self) -> None:
        self.keep()

    def keep(self) -> None:
        if self._more and self._files.is_there(self._at):
            before = self._files.content(self._at)[: self._offset]
            self._files.put(self._at, before.ljust(self._offset, b"\0") + self._more)
            self._offset += len(self._more)
            self._more.clear()

    async def describe(
        self,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        modified: int | None = None,
    ) -> None:
        self.keep()  # what came after would change the time again
        self._files.set_attributes(self._path, self._at, mode=mode, owner=owner, modified=modified)


def _check_length(path: bytes, name: bytes) -> None:
    if len(name) > _LONGEST_NAME:
        raise FileRefusedError(shown(path), "file name too long")


# SQLite takes no lone surrogates, which is what bytes become that are no UTF-8: they are kept among
# the code points that Unicode leaves to private use.
_ODD = re.compile("[\udc80-\udcff]")
_KEPT = re.compile("[\uf780-\uf7ff]")


def _text(path: bytes) -> str:
    return _ODD.sub(
        lambda m: chr(ord(m[0]) - 0xDC00 + 0xF700), path.decode(errors="surrogateescape")
    )


def _bytes(text: str) -> bytes:
    odd = _KEPT.sub(lambda m: chr(ord(m[0]) - 0xF700 + 0xDC00), text)
    return odd.encode(errors="surrogateescape")
