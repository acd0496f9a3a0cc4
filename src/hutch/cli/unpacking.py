"""A folder with all that is in it, here from there.

It comes as a tar archive, which is unpacked while it comes, into a new folder beside the target.
Only folders, files and, last of all, links are made of it, so nothing is ever written through a
link. Python's `tarfile` has a filter for such archives, but not in every version that hutch runs
on; the modes that are kept are those that it keeps.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hutch.cli.folders import Outcome, below, folder_in_the_way, in_the_way
from hutch.cli.terminal import Terminal
from hutch.cli.transfers import ENDING, Progress, archive_cut_off, not_possible
from hutch.cli.words import files as words
from hutch.client.client import Client
from hutch.client.files import PIECE, Coming
from hutch.errors import DiskFullError, HutchError


def get(
    terminal: Terminal, client: Client, ref: str, path: bytes, target: Path, **shown: Any
) -> None:
    """Bring a folder here as `target`: when all of it has come, and not before."""
    outcome = Outcome(terminal)
    parent = target if target.is_dir() else target.parent
    try:
        parent.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".hutch-part-", dir=parent))
    except OSError as error:
        raise not_possible(target, error) from None
    progress = Progress(terminal, target.name, None)
    try:
        made = part / "whole"
        with client.download(ref, path, archive="tar") as coming:
            _Unpacking(outcome, os.fsencode(made)).unpack(_Arriving(coming, progress, path))
        progress.end()
        if os.path.lexists(target):
            _merge(outcome, os.fsencode(made), os.fsencode(target))
        else:
            made.rename(target)
    except OSError as error:
        raise not_possible(target, error) from None
    finally:
        progress.end()
        shutil.rmtree(part, ignore_errors=True)
    text = words.GOT_FOLDER.format(path=os.fsdecode(path), here=target)
    outcome.tell(text, here=str(target), **shown)


class _Arriving:
    """The archive, for `tarfile` to read; `finish` tells whether all of it came."""

    def __init__(self, coming: Coming, progress: Progress, path: bytes) -> None:
        self._pieces = coming.pieces
        self._progress = progress
        self._path = path
        self._ahead = b""
        self._ending = b""

    def read(self, size: int) -> bytes:
        while len(self._ahead) < size and (piece := next(self._pieces, b"")):
            self._progress.add(len(piece))
            self._ahead += piece
            self._ending = (self._ending + piece)[-ENDING:]
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found

    def finish(self) -> None:
        while self.read(PIECE):
            pass
        if self._ending != bytes(ENDING):
            raise self.broken()

    def broken(self) -> HutchError:
        return archive_cut_off(self._path)


def _archive(arriving: _Arriving) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=arriving,  # type: ignore[arg-type]
        mode="r|",
        bufsize=PIECE,
        encoding="utf-8",
        errors="surrogateescape",
    )


class _Unpacking:
    """Makes what an archive has below `top`, which is not there yet."""

    def __init__(self, outcome: Outcome, top: bytes) -> None:
        self._outcome = outcome
        self._top = top
        self._links: list[tuple[bytes, bytes]] = []

    def unpack(self, arriving: _Arriving) -> None:
        os.mkdir(self._top, 0o755)
        try:
            with _archive(arriving) as archive:
                while (member := archive.next()) is not None:
                    self._take(archive, member)
                    archive.members = []  # type: ignore[attr-defined] # it would remember every one
        except (tarfile.TarError, EOFError, ValueError):
            raise arriving.broken() from None
        arriving.finish()
        for path, target in self._links:
            self._try(path, lambda p=path, t=target: os.symlink(t, self._at(p)))

    def _at(self, path: bytes) -> bytes:
        return below(self._top, path)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = os.fsencode(member.name)
        first, *parts = name.split(b"/")
        path = b"/".join(parts)
        if {b"", b".", b".."} & {first, *parts} or b"\0" in name:
            self._outcome.skip(name, words.UNSAFE_NAME)
        elif member.isdir():
            self._make_folder(path, member)
        elif member.issym():
            target = os.fsencode(member.linkname)
            if leads_out(path, target):
                shown = os.fsdecode(target)
                self._outcome.skip(path, words.LINK_OUT.format(target=shown))
            else:
                self._links.append((path, target))
        elif member.isreg():
            self._try(path, lambda: self._write(archive, member, path))
        else:
            self._outcome.skip(path, words.SPECIAL)

    def _make_folder(self, path: bytes, member: tarfile.TarInfo) -> None:
        mode = member.mode & 0o755 | 0o700
        if not path:
            os.chmod(self._top, mode)
        elif self._try(path, lambda: os.mkdir(self._at(path), mode)):
            self._outcome.folders += 1

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
        content = archive.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        at = os.open(self._at(path), flags, 0o600)
        with os.fdopen(at, "wb") as file:
            if content is not None:
                shutil.copyfileobj(content, file, PIECE)
            file.flush()
            os.fchmod(at, member.mode & 0o755 | 0o600)
            with suppress(OSError, OverflowError):
                os.utime(at, (member.mtime, member.mtime))
        self._outcome.files += 1
        self._outcome.size += member.size

    def _try(self, path: bytes, work: Any) -> bool:
        try:
            work()
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFullError(words.FULL_HERE) from None
            self._outcome.fail(path, error)
            return False
        if os.path.islink(self._at(path)):
            self._outcome.links += 1
        return True


def leads_out(path: bytes, target: bytes) -> bool:
    """Whether a link at `path`, below a folder, may lead out of that folder.

    Steps up are good only at its beginning, where they go up from where the link is: after a name
    they would go up from wherever that leads.
    """
    parts = [part for part in target.split(b"/") if part not in {b"", b"."}]
    ups = 0
    while ups < len(parts) and parts[ups] == b"..":
        ups += 1
    return target.startswith(b"/") or b".." in parts[ups:] or ups > path.count(b"/")


def _merge(outcome: Outcome, made: bytes, target: bytes, path: bytes = b"") -> None:
    """Move what came into a folder that is there; a file replaces a file, and nothing else."""
    with os.scandir(below(made, path)) as found:
        entries = list(found)
    for entry in entries:
        inside = below(path, entry.name)
        there = below(target, inside)
        is_folder = os.path.isdir(there) and not os.path.islink(there)
        if entry.is_dir(follow_symlinks=False):
            if is_folder:
                _merge(outcome, made, target, inside)
                continue
            if os.path.lexists(there):
                outcome.fail(inside, in_the_way(inside))
                continue
        elif is_folder:
            outcome.fail(inside, folder_in_the_way(inside))
            continue
        os.replace(entry.path, there)
