"""`hutch files`: an instance's files, from outside it."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import unquote_to_bytes

import typer

from hutch.cli import remote, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.messages import PANEL_INSTANCES
from hutch.cli.options import InstanceName, Json, Yes
from hutch.cli.terminal import Terminal, clean
from hutch.cli.words import files as words
from hutch.client.answers import File
from hutch.client.client import Client
from hutch.client.files import PIECE, Coming
from hutch.domain.sizes import format_size
from hutch.errors import (
    FileChangedError,
    FileTakenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    WrongFileTypeError,
)

ATTEMPTS = 5
"""How often a transfer that is cut off is gone on with by itself."""

There = Annotated[str, typer.Argument(metavar="PATH", help=words.PATH, show_default=False)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("list", list_all),
        ("get", get),
        ("put", put),
        ("rename", rename),
        ("delete", delete),
        ("mkdir", mkdir),
    ):
        group.command(name, help=words.HELP[f"files {name}"])(command)
    app.add_typer(group, name="files", help=words.HELP["files"], rich_help_panel=PANEL_INSTANCES)


def list_all(
    name: InstanceName,
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help=words.FOLDER, show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_files(resolve(client, name), os.fsencode(folder))
    if as_json:
        terminal.answer(found)
        return
    if not found["entries"]:
        terminal.note(words.EMPTY.format(path=found["path"]))
        return
    rows = [
        [
            _name(each),
            "-" if each["kind"] == "folder" else format_size(each["size"]),
            wording.moment(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each["modified"]))),
            each["mode"],
            f"{each['uid']}:{each['gid']}",
        ]
        for each in found["entries"]
    ]
    terminal.table(words.HEADS, rows)
    if found["truncated"]:
        terminal.note(words.TRUNCATED.format(path=found["path"], count=len(rows)))


def _name(entry: File) -> str:
    return entry["name"] + {"folder": "/", "link": "@"}.get(entry["kind"], "")


def mkdir(name: InstanceName, path: There, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        made = client.make_folder(resolve(client, name), os.fsencode(path))
    _tell(terminal, made, words.MADE.format(path=path))


def rename(
    name: InstanceName,
    path: There,
    to: Annotated[str, typer.Argument(metavar="TO", help=words.NEW_PATH, show_default=False)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        try:
            moved = client.rename_file(ref, os.fsencode(path), os.fsencode(to))
        except FileTakenError:
            terminal.confirm(words.ASK_REPLACE.format(path=to), yes=yes)
            moved = client.rename_file(ref, os.fsencode(path), os.fsencode(to), replace=True)
    _tell(terminal, moved, words.RENAMED.format(path=path, to=to))


def delete(
    name: InstanceName,
    path: There,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help=words.RECURSIVE)] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        # What is not there needs no answer to a question.
        has = client.show_file(ref, os.fsencode(path))
        question = words.ASK_DELETE
        if recursive and has["kind"] == "folder":
            question = words.ASK_DELETE_ALL
        terminal.confirm(question.format(path=path), yes=yes)
        client.delete_file(ref, os.fsencode(path), recursive=recursive)
    if as_json:
        terminal.answer({"deleted": has})
    else:
        terminal.say(words.DELETED.format(path=path), "green")


def _tell(terminal: Terminal, found: File, text: str) -> None:
    if terminal.as_json:
        terminal.answer(found)
    else:
        terminal.say(text, "green")


class _Progress:
    """One line that says how far it is, for who watches."""

    EVERY_SECONDS = 0.1

    def __init__(self, terminal: Terminal, name: str, size: int | None, done: int = 0) -> None:
        self._watched = terminal.is_watched
        self._name = clean(name)
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
            line = text.format(name=self._name, part=part, size=size, speed=speed)
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        if self._watched:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# -- here from there ---------------------------------------------------------------------------


def get(
    name: InstanceName,
    path: There,
    here: Annotated[
        str | None, typer.Argument(metavar="[HERE]", help=words.HERE, show_default=False)
    ] = None,
    as_zip: Annotated[bool, typer.Option("--zip", help=words.AS_ZIP)] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if here != "-":
        _refuse_at_gateway()
    with connect() as client:
        ref, wanted = resolve(client, name), os.fsencode(path)
        has = client.show_file(ref, wanted)
        archive = ("zip" if as_zip else "tar") if _is_folder(client, ref, wanted, has) else None
        if here == "-":
            _to_stdout(client, ref, wanted, archive)
            return
        target = _target_here(here, unquote_to_bytes(has["encoded"]), archive)
        if target.exists():
            terminal.confirm(words.ASK_REPLACE.format(path=target), yes=yes)
        if archive:
            size = _get_archive(terminal, client, ref, wanted, target, archive)
        else:
            size = _get_file(terminal, client, ref, wanted, target)
    if as_json:
        terminal.answer({"file": has, "here": str(target), "size": size})
    else:
        text = words.GOT.format(path=path, here=target, size=format_size(size))
        terminal.say(text, "green")


def _is_folder(client: Client, ref: str, path: bytes, has: File) -> bool:
    if has["kind"] != "link":
        return has["kind"] == "folder"
    try:
        client.list_files(ref, path)
    except (WrongFileTypeError, NotFoundError):
        return False
    return True


def _refuse_at_gateway() -> None:
    if remote.gateway() is not None:
        raise UnavailableError(words.NO_FILES_OVER_SSH, hint=words.USE_LAPTOP)


def _to_stdout(client: Client, ref: str, path: bytes, archive: str | None) -> None:
    sys.stdout.flush()
    came = 0
    with client.download(ref, path, archive=archive) as coming:
        for piece in coming.pieces:
            sys.stdout.buffer.write(piece)
            came += len(piece)
        sys.stdout.buffer.flush()
        if coming.size is not None and came < coming.size:
            raise _cut_off(os.fsdecode(path), came)


def _target_here(here: str | None, path: bytes, archive: str | None) -> Path:
    # What the server says a name is must not lead out of the folder.
    name = os.fsdecode(path.rpartition(b"/")[2]).replace("/", "_") or "root"
    if name in {".", ".."}:
        name = "_"
    name += f".{archive}" if archive else ""
    if here is None:
        return Path(name)
    return Path(here) / name if Path(here).is_dir() else Path(here)


def _get_archive(
    terminal: Terminal, client: Client, ref: str, path: bytes, target: Path, archive: str
) -> int:
    part = target.with_name(f".{target.name}.hutch-part")
    progress = _Progress(terminal, target.name, None)
    whole = False
    try:
        with client.download(ref, path, archive=archive) as coming, _opened(part, "wb") as file:
            ending = b""
            for piece in coming.pieces:
                file.write(piece)
                progress.add(len(piece))
                ending = (ending + piece)[-_ENDING:]
        whole = ending == bytes(_ENDING) if archive == "tar" else b"PK\x05\x06" in ending
        if not whole:
            raise UnavailableError(
                words.ARCHIVE_CUT_OFF.format(path=os.fsdecode(path)), hint=words.CHANGED_OR_LOST
            )
        part.replace(target)
    finally:
        progress.end()
        if not whole:
            with suppress(OSError):
                part.unlink()
    return progress.done


_ENDING = 1024
"""A tar archive ends with so many zeros, a zip archive with a record within them."""


def _get_file(terminal: Terminal, client: Client, ref: str, path: bytes, target: Path) -> int:
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
    raise _cut_off(os.fsdecode(path), part.stat().st_size)


def _tag_of(part: Path, note: Path, what: str) -> str | None:
    """The tag of the file that a part is of; None when there is nothing to go on with."""
    try:
        of, _, tag = note.read_text().partition("\n")
    except OSError:
        return None
    return tag if of == what and tag.startswith('"') and part.exists() else None


def _keep(terminal: Terminal, coming: Coming, part: Path, note: Path, what: str, name: str) -> bool:
    """Write what comes; whether it is all of it."""
    with _opened(note, "wb") as file:
        file.write(f"{what}\n{coming.tag}".encode())
    progress = _Progress(terminal, name, coming.size, coming.start)
    with _opened(part, "r+b" if coming.start else "wb") as file:
        file.seek(coming.start)
        for piece in coming.pieces:
            file.write(piece)
            progress.add(len(piece))
        file.truncate()
    progress.end()
    return progress.done == coming.size


def _opened(path: Path, mode: str, refusal: str = words.NOT_WRITABLE) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]
    except OSError as error:
        raise InvalidInputError(
            refusal.format(path=path, reason=error.strerror), hint=words.CHECK_PATH
        ) from None


def _cut_off(name: str, done: int) -> UnavailableError:
    return UnavailableError(
        words.CUT_OFF.format(name=name, part=format_size(done)), hint=words.GO_ON
    )


# -- there from here ---------------------------------------------------------------------------


def put(
    name: InstanceName,
    here: Annotated[str, typer.Argument(metavar="HERE", help=words.FILE_HERE, show_default=False)],
    path: Annotated[
        str, typer.Argument(metavar="[THERE]", help=words.THERE, show_default=False)
    ] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    _refuse_at_gateway()
    if Path(here).is_dir():
        raise InvalidInputError(
            words.NO_FOLDERS.format(path=here), hint=words.PACK_IT.format(path=here)
        )
    with _opened(Path(here), "rb", words.NOT_HERE) as file, connect() as client:
        ref = resolve(client, name)
        wanted = _target_there(client, ref, os.fsencode(path), os.fsencode(Path(here).name))
        sending = _Sending(terminal, client, ref, wanted, file, here)
        try:
            sending.look(replace=False)
        except FileTakenError:
            terminal.confirm(words.ASK_REPLACE.format(path=os.fsdecode(wanted)), yes=yes)
            sending.look(replace=True)
        size = sending.send()
        found = client.show_file(ref, wanted)
    there = os.fsdecode(wanted)
    _tell(terminal, found, words.PUT.format(name=here, path=there, size=format_size(size)))


def _target_there(client: Client, ref: str, path: bytes, name: bytes) -> bytes:
    """Where it goes: into what is a folder there, under the name that it has here."""
    if not path or path.endswith(b"/"):
        return path + name
    try:
        client.list_files(ref, path)
    except (WrongFileTypeError, NotFoundError):
        return path
    return path + b"/" + name


class _Sending:
    def __init__(
        self, terminal: Terminal, client: Client, ref: str, path: bytes, file: BinaryIO, here: str
    ) -> None:
        self._terminal = terminal
        self._client = client
        self._ref = ref
        self._path = path
        self._file = file
        self._here = here
        self._before = os.fstat(file.fileno())
        self._replace = False
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

    def send(self) -> int:
        size = self._before.st_size
        if self._offset:
            self._terminal.note(words.GOES_ON.format(size=format_size(self._offset)))
        for attempt in range(ATTEMPTS):
            progress = _Progress(self._terminal, Path(self._here).name, size, self._offset)
            try:
                sent = self._client.upload(
                    self._ref,
                    self._path,
                    self._pieces(progress),
                    size=size,
                    upload=self._id,
                    offset=self._offset,
                    replace=self._replace,
                    mode=0o777 & self._before.st_mode,
                )
            except UnavailableError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(attempt)
                self.look(replace=self._replace)
                continue
            finally:
                progress.end()
            if sent["done"]:
                return size
            if self._changed:
                self._client.abandon_upload(self._ref, self._path, self._id)
                raise FileChangedError(
                    words.CHANGED_HERE.format(path=self._here), hint=words.STEADY
                )
            self.look(replace=self._replace)
        raise _cut_off(self._here, self._offset)

    def _pieces(self, progress: _Progress) -> Iterator[bytes]:
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
