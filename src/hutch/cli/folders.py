"""A folder with all that is in it, there from here.

What is to be done is found out first, from the folder here and the lists of those there, so that
one question and one total can be told. Then each file goes as one alone would.
"""

import os
import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from hutch.cli.terminal import Terminal
from hutch.cli.transfers import Progress, Sending, not_possible, seconds_of
from hutch.cli.words import files as words
from hutch.client.answers import File
from hutch.client.client import Client
from hutch.client.files import PIECE
from hutch.domain.file_paths import join
from hutch.domain.sizes import format_size
from hutch.errors import (
    FileChangedError,
    FileRefusedError,
    FileTakenError,
    HutchError,
    InvalidInputError,
    NotFoundError,
    WrongFileTypeError,
)

_LARGE = 8 * PIECE
"""Of a file of so many bytes it is asked first whether a part is there already."""
_OF_ONE_FILE = (
    FileChangedError,
    FileRefusedError,
    FileTakenError,
    InvalidInputError,
    WrongFileTypeError,
)
"""What is wrong with one file alone, and keeps no other from being sent."""


class IncompleteError(HutchError):
    code = "incomplete"


@dataclass
class Outcome:
    """What became of a folder's content."""

    terminal: Terminal
    files: int = 0
    size: int = 0
    """Bytes of the files that came over."""
    same: int = 0
    links: int = 0
    folders: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    failed: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def skip(self, path: bytes, reason: str) -> None:
        """Leave out what is never brought over."""
        name = os.fsdecode(path)
        self.skipped.append({"path": name, "reason": reason})
        self.terminal.note(words.LEFT_OUT.format(path=name, reason=reason))

    def fail(self, path: bytes, error: HutchError | OSError | str) -> None:
        """Go on without something that should have been brought over."""
        name = os.fsdecode(path)
        code = error.code if isinstance(error, HutchError) else "file_refused"
        reason = error.strerror if isinstance(error, OSError) else error
        reason = error.message if isinstance(error, HutchError) else str(reason)
        self.failed.append({"path": name, "code": code, "reason": reason})
        self.terminal.note(words.FAILED.format(path=name, reason=reason.rstrip(".")))

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "size": self.size,
            "same": self.same,
            "links": self.links,
            "folders": self.folders,
            "skipped": self.skipped,
            "failed": self.failed,
        }

    def tell(self, text: str, **more: Any) -> None:
        """Say what became of it. Raises IncompleteError when something failed."""
        if self.terminal.as_json:
            self.terminal.answer({**more, **self.as_dict()})
        else:
            counts = words.COUNTS.format(
                files=self.files, size=format_size(self.size), links=self.links, same=self.same
            )
            self.terminal.say(f"{text}: {counts}.", "" if self.failed else "green")
        if self.failed:
            raise IncompleteError(
                words.INCOMPLETE.format(count=len(self.failed)), hint=words.INCOMPLETE_HINT
            )


def is_content(path: str) -> bool:
    """Whether a path means what is in the folder and not the folder: as rsync has it."""
    return os.path.basename(path) in {"", ".", ".."}


def below(folder: bytes, name: bytes) -> bytes:
    """A path there; an empty `folder` is the owner's home."""
    return join(folder, name) if folder and name else folder or name


@dataclass
class _Plan:
    """What is to be done, each by its path below the top."""

    tops: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    """What is to be made for anything to go there, by its whole path."""
    folders: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    files: list[tuple[bytes, int, bool]] = field(default_factory=list[tuple[bytes, int, bool]])
    """With the size, and whether it takes the place of something."""
    links: list[tuple[bytes, bytes, bool]] = field(default_factory=list[tuple[bytes, bytes, bool]])
    """With where it points."""

    @property
    def replaced(self) -> list[bytes]:
        return [path for path, _, replaces in (*self.files, *self.links) if replaces]


class Putting:
    """A folder on its way there. Give it again: what has arrived is not sent a second time."""

    def __init__(self, terminal: Terminal, client: Client, ref: str) -> None:
        self._terminal = terminal
        self._client = client
        self._ref = ref
        self.outcome = Outcome(terminal)

    def put(self, here: str, there: bytes, *, yes: bool) -> None:
        top = there if is_content(here) else below(there, os.fsencode(os.path.basename(here)))
        plan = self._plan(os.fsencode(here), there, top)
        if replaced := plan.replaced:
            first, shown = os.fsdecode(replaced[0]), os.fsdecode(top or b"~")
            question = words.ASK_REPLACE_MANY.format(count=len(replaced), path=shown, first=first)
            self._terminal.confirm(question, yes=yes)
        try:
            self._do(plan, os.fsencode(here), top)
        except BaseException:
            self._terminal.note(words.BROKE_OFF.format(files=self.outcome.files))
            raise
        text = words.PUT_FOLDER.format(name=here, path=os.fsdecode(top or b"~"))
        self.outcome.tell(text, path=os.fsdecode(top))

    # -- what is to be done

    def _plan(self, here: bytes, there: bytes, top: bytes) -> _Plan:
        plan = _Plan()
        mode = modes.S_IMODE(os.stat(here).st_mode)
        has = self._listed(there)
        if has is None:
            # The last part of the path there is made; what is above it is not.
            plan.tops.append((there, 0o755 if top != there else mode))
        if top != there:
            name = top.rpartition(b"/")[2]
            known = None if has is None else self._known(has, there, name)
            if known is None:
                has = None
                plan.tops.append((top, mode))
            elif known["kind"] == "file":
                raise in_the_way(top)
            else:
                has = self._listed(top)  # a link at the top is followed, as one in a path is
        left: list[tuple[bytes, dict[bytes, File] | None]] = [(b"", has)]
        while left:
            folder, has = left.pop()
            found = self._entries(here, folder)
            left += reversed(list(self._look(plan, top, folder, has, found)))
        return plan

    def _look(
        self,
        plan: _Plan,
        top: bytes,
        folder: bytes,
        has: dict[bytes, File] | None,
        entries: list["os.DirEntry[bytes]"],
    ) -> Iterator[tuple[bytes, dict[bytes, File] | None]]:
        """Plan what is in one folder; the folders that are to be looked into next."""
        for entry in entries:
            path = below(folder, entry.name)
            try:
                mine = entry.stat(follow_symlinks=False)
                target = os.readlink(entry.path) if modes.S_ISLNK(mine.st_mode) else b""
            except OSError as error:
                self.outcome.fail(path, error)
                continue
            its = None if has is None else self._known(has, below(top, folder), entry.name)
            is_folder = its is not None and its["kind"] == "folder"
            if modes.S_ISDIR(mine.st_mode):
                if its is None:
                    plan.folders.append((path, modes.S_IMODE(mine.st_mode)))
                    yield path, None
                elif is_folder:
                    yield path, self._listed(below(top, path))
                else:
                    self.outcome.fail(path, in_the_way(path))
            elif not modes.S_ISREG(mine.st_mode) and not modes.S_ISLNK(mine.st_mode):
                self.outcome.skip(path, words.SPECIAL)
            elif is_folder:
                self.outcome.fail(path, folder_in_the_way(path))
            elif modes.S_ISLNK(mine.st_mode):
                if its is not None and its["kind"] == "link" and self._points(top, path, target):
                    self.outcome.same += 1
                else:
                    plan.links.append((path, target, its is not None))
            elif its is not None and _is_same(mine, its):
                self.outcome.same += 1
            else:
                plan.files.append((path, mine.st_size, its is not None))

    def _entries(self, here: bytes, folder: bytes) -> list["os.DirEntry[bytes]"]:
        try:
            with os.scandir(below(here, folder)) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise not_possible(Path(os.fsdecode(here)), error, words.NOT_HERE) from None
            self.outcome.fail(folder, error)
            return []

    def _listed(self, folder: bytes) -> dict[bytes, File] | None:
        """What a folder there has by name; None when it is not there."""
        try:
            found = self._client.list_files(self._ref, folder)
        except NotFoundError as error:
            if error.detail.get("noun") != "file":
                raise
            return None
        has = {_name(each): each for each in found["entries"]}
        if found["truncated"]:
            has[b""] = found["entries"][0]  # no file's name: there are more than these
        return has

    def _known(self, has: dict[bytes, File], folder: bytes, name: bytes) -> File | None:
        if name in has or b"" not in has:
            return has.get(name)
        try:
            return self._client.show_file(self._ref, below(folder, name))
        except NotFoundError:
            return None

    def _points(self, top: bytes, path: bytes, target: bytes) -> bool:
        """Whether a link there points where it should. One that is no UTF-8 cannot be told."""
        there = self._client.show_file(self._ref, below(top, path))["target"]
        return there is not None and os.fsencode(there) == target

    # -- doing it

    def _do(self, plan: _Plan, here: bytes, top: bytes) -> None:
        for path, mode in plan.tops:
            self._make_folder(path, mode)
        for path, mode in plan.folders:
            if self._tried(path, lambda p=path, m=mode: self._make_folder(below(top, p), m)):
                self.outcome.folders += 1
        total = sum(size for _, size, _ in plan.files)
        progress = Progress(self._terminal, "", total)
        begun = 0
        for path, size, replaces in plan.files:
            progress.jump(begun)
            progress.name = os.fsdecode(path)
            begun += size
            self._tried(
                path,
                lambda p=path, r=replaces: self._send(
                    progress, below(here, p), below(top, p), replaces=r
                ),
            )
        for path, target, replaces in plan.links:
            if self._tried(
                path,
                lambda p=path, t=target, r=replaces: self._client.make_link(
                    self._ref, below(top, p), t, replace=r
                ),
            ):
                self.outcome.links += 1

    def _tried(self, path: bytes, work: Any) -> bool:
        """Whether it went well. Raises what would be wrong with everything else as well."""
        try:
            work()
        except OSError as error:
            self.outcome.fail(path, error)
        except _OF_ONE_FILE as error:
            self.outcome.fail(path, error)
        except NotFoundError as error:
            if error.detail.get("noun") != "file":
                raise
            self.outcome.fail(path, error)
        else:
            return True
        return False

    def _make_folder(self, path: bytes, mode: int) -> None:
        self._client.make_folder(self._ref, path, mode=mode & 0o777)

    def _send(self, progress: Progress, here: bytes, there: bytes, *, replaces: bool) -> None:
        with _opened_itself(here) as file:
            name = os.fsdecode(here)
            sending = Sending(
                self._terminal, self._client, self._ref, there, file, name, replace=replaces
            )
            if os.fstat(file.fileno()).st_size >= _LARGE:
                sending.look(replace=replaces)
            self.outcome.size += sending.send(progress)
            self.outcome.files += 1


def _name(entry: File) -> bytes:
    return unquote_to_bytes(entry["encoded"]).rpartition(b"/")[2]


def _is_same(mine: os.stat_result, its: File) -> bool:
    return (its["kind"], its["size"], its["modified"]) == (
        "file", mine.st_size, seconds_of(mine),
    )  # fmt: skip


def in_the_way(path: bytes) -> FileTakenError:
    return FileTakenError(words.NO_FOLDER_THERE.format(path=os.fsdecode(path)))


def folder_in_the_way(path: bytes) -> WrongFileTypeError:
    return WrongFileTypeError(words.A_FOLDER_THERE.format(path=os.fsdecode(path)))


def _opened_itself(path: bytes) -> BinaryIO:
    """A file, and no longer what has been put in its place since it was looked at: a link might
    lead anywhere, and a pipe would never end."""
    at = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not modes.S_ISREG(os.fstat(at).st_mode):
        os.close(at)
        raise FileChangedError(words.CHANGED_HERE.format(path=os.fsdecode(path)))
    return os.fdopen(at, "rb")
