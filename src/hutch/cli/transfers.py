"""One file or archive on its way between here and an instance, over whatever interrupts it."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from hutch.cli.terminal import Terminal, clean
from hutch.cli.words import files as words
from hutch.client.client import Client
from hutch.client.files import PIECE, Coming
from hutch.domain.sizes import format_size
from hutch.errors import FileChangedError, InvalidInputError, UnavailableError, WrongOffsetError

ATTEMPTS = 5
"""How often a transfer that is cut off is gone on with by itself."""


class Progress:
    """One line that says how far it is, for who watches."""

    EVERY_SECONDS = 0.1

    def __init__(self, terminal: Terminal, name: str, size: int | None, done: int = 0) -> None:
        self._watched = terminal.is_watched
        self.name = name
        self._size = size
        self._began = self._shown = time.monotonic()
        self._before = done
        self.done = done

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if self._watched and now - self._shown >= self.EVERY_SECONDS:
            self._shown = now
            speed = format_size(int((self.done - self._before) / (now - self._began)))
            part = format_size(self.done)
            text = words.PROGRESS_UNKNOWN if self._size is None else words.PROGRESS
            size = "" if self._size is None else format_size(self._size)
            line = text.format(name=clean(self.name), part=part, size=size, speed=speed)
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()

    def jump(self, to: int) -> None:
        """Be at another place, without having sent what lies between."""
        self._before += to - self.done
        self.done = to

    def end(self) -> None:
        if self._watched:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def opened(path: Path, mode: str, refusal: str = words.NOT_WRITABLE) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]
    except OSError as error:
        raise not_possible(path, error, refusal) from None


def not_possible(
    path: Path, error: OSError, refusal: str = words.NOT_WRITABLE
) -> InvalidInputError:
    return InvalidInputError(
        refusal.format(path=path, reason=error.strerror), hint=words.CHECK_PATH
    )


def cut_off(name: str, done: int) -> UnavailableError:
    return UnavailableError(
        words.CUT_OFF.format(name=name, part=format_size(done)), hint=words.GO_ON
    )


def archive_cut_off(path: bytes) -> UnavailableError:
    return UnavailableError(
        words.ARCHIVE_CUT_OFF.format(path=os.fsdecode(path)), hint=words.CHANGED_OR_LOST
    )


# -- here from there ---------------------------------------------------------------------------


def get_archive(
    terminal: Terminal, client: Client, ref: str, path: bytes, target: Path, archive: str
) -> int:
    part = target.with_name(f".{target.name}.hutch-part")
    progress = Progress(terminal, target.name, None)
    whole = False
    try:
        with client.download(ref, path, archive=archive) as coming, opened(part, "wb") as file:
            ending = b""
            for piece in coming.pieces:
                file.write(piece)
                progress.add(len(piece))
                ending = (ending + piece)[-ENDING:]
        whole = ending == bytes(ENDING) if archive == "tar" else b"PK\x05\x06" in ending
        if not whole:
            raise archive_cut_off(path)
        part.replace(target)
    finally:
        progress.end()
        if not whole:
            with suppress(OSError):
                part.unlink()
    return progress.done


ENDING = 1024
"""A tar archive ends with so many zeros, a zip archive with a record within them."""


def get_file(terminal: Terminal, client: Client, ref: str, path: bytes, target: Path) -> int:
    """Bring a file here into a part beside the target, which takes its name when it is whole."""
    part = target.with_name(f".{target.name}.hutch-part")
    note = target.with_name(f".{target.name}.hutch-tag")
    tag = _tag_of(part, note, f"{ref} {path.hex()}")
    if tag is not None:
        terminal.note(words.GOES_ON.format(size=format_size(part.stat().st_size)))
    for _ in range(ATTEMPTS):
        start = part.stat().st_size if tag is not None else 0
        with client.download(ref, path, start=start, tag=tag) as coming:
            if start and not coming.start and tag != coming.tag:
                tag = None
            tag = coming.tag
            is_whole = _keep(terminal, coming, part, note, f"{ref} {path.hex()}", target.name)
        if is_whole:
            size = part.stat().st_size
            part.replace(target)
            note.unlink(missing_ok=True)
            return size
        if tag is not None and client.show_file(ref, path)["tag"].removeprefix("W/") not in tag:
            part.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            raise FileChangedError(
                words.CHANGED_THERE.format(path=os.fsdecode(path)), hint=words.STEADY
            )
    raise cut_off(os.fsdecode(path), part.stat().st_size)


def _tag_of(part: Path, note: Path, what: str) -> str | None:
    """The tag of the file that a part is of; None when there is nothing to go on with."""
    try:
        of, _, tag = note.read_text().partition("\n")
    except OSError:
        return None
    return tag if of == what and tag.startswith('"') and part.exists() else None


def _keep(terminal: Terminal, coming: Coming, part: Path, note: Path, what: str, name: str) -> bool:
    """Write what comes; whether it is all of it."""
    with opened(note, "wb") as file:
        file.write(f"{what}\n{coming.tag}".encode())
    progress = Progress(terminal, name, coming.size, coming.start)
    with opened(part, "r+b" if coming.start else "wb") as file:
        file.seek(coming.start)
        for piece in coming.pieces:
            file.write(piece)
            progress.add(len(piece))
        file.truncate()
    progress.end()
    return progress.done == coming.size


# -- there from here ---------------------------------------------------------------------------


class Sending:
    """One file that is opened here, on its way to a path there."""

    def __init__(
        self,
        terminal: Terminal,
        client: Client,
        ref: str,
        path: bytes,
        file: BinaryIO,
        here: str,
        *,
        replace: bool = False,
    ) -> None:
        self._terminal = terminal
        self._client = client
        self._ref = ref
        self._path = path
        self._file = file
        self._here = here
        self._before = os.fstat(file.fileno())
        self._replace = replace
        self._offset = 0
        self._changed = False
        what = (
            str(Path(here).resolve()), self._before.st_size, self._before.st_mtime_ns,
            self._before.st_ino, ref, path,
        )  # fmt: skip
        # The same file to the same place again is the same upload.
        self._id = hashlib.sha256(repr(what).encode(errors="surrogateescape")).hexdigest()[:32]

    def look(self, *, replace: bool) -> None:
        """Ask how much is there already. Raises what the upload would be refused with."""
        self._replace = replace
        there = self._client.show_upload(self._ref, self._path, self._id, replace=replace)
        self._offset = there["size"]

    def send(self, progress: Progress | None = None) -> int:
        """Send it, from where it has come to; the size then. `progress` may be that of many."""
        size = self._before.st_size
        if progress is None:
            progress = Progress(self._terminal, Path(self._here).name, size)
        begun = progress.done
        if self._offset:
            self._terminal.note(words.GOES_ON.format(size=format_size(self._offset)))
        for attempt in range(ATTEMPTS):
            progress.jump(begun + self._offset)
            try:
                done = self._try(progress)
            except UnavailableError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(attempt)
                done = False
            except WrongOffsetError:
                # There is more than was thought; or less, which is begun anew.
                if attempt == ATTEMPTS - 1:
                    raise
                done = False
            finally:
                progress.end()
            if done:
                return size
            if self._changed:
                self._client.abandon_upload(self._ref, self._path, self._id)
                raise FileChangedError(
                    words.CHANGED_HERE.format(path=self._here), hint=words.STEADY
                )
            self.look(replace=self._replace)
        raise cut_off(self._here, self._offset)

    def _try(self, progress: Progress) -> bool:
        seconds = seconds_of(self._before)
        sent = self._client.upload(
            self._ref,
            self._path,
            self._pieces(progress),
            size=self._before.st_size,
            upload=self._id,
            offset=self._offset,
            replace=self._replace,
            mode=0o777 & self._before.st_mode,
            modified=seconds if 0 <= seconds < 1 << 32 else None,
        )
        return sent["done"]

    def _pieces(self, progress: Progress) -> Iterator[bytes]:
        """The file from the offset on. The last piece goes only while it is still the same file."""
        self._file.seek(self._offset)
        left = self._before.st_size - self._offset
        while left:
            piece = self._file.read(min(PIECE, left))
            left -= len(piece)
            if not piece or (not left and self._is_another()):
                self._changed = True
                return
            yield piece
            progress.add(len(piece))

    def _is_another(self) -> bool:
        now = os.fstat(self._file.fileno())
        before = self._before
        return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def seconds_of(has: os.stat_result) -> int:
    """When a file was changed, as an instance keeps it."""
    return has.st_mtime_ns // 1_000_000_000
