"""`hutch files`: an instance's files, from outside it."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote_to_bytes

import typer

from hutch.cli import exits, folders, remote, transfers, unpacking, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.messages import PANEL_INSTANCES
from hutch.cli.options import InstanceName, Json, Yes
from hutch.cli.terminal import Terminal
from hutch.cli.words import files as words
from hutch.client.answers import File
from hutch.client.client import Client
from hutch.domain.sizes import format_size
from hutch.errors import (
    FileTakenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    WrongFileTypeError,
)

There = Annotated[str, typer.Argument(metavar="PATH", help=words.PATH, show_default=False)]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help=words.RECURSIVE)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("list", list_all),
        ("show", show),
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
            _moment(each),
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


def _moment(entry: File) -> str:
    return wording.moment(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["modified"])))


def show(name: InstanceName, path: There, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.show_file(resolve(client, name), os.fsencode(path))
    if as_json:
        terminal.answer(found)
        return
    values = (
        os.fsdecode(unquote_to_bytes(found["encoded"])),
        found["kind"],
        words.BYTES.format(size=format_size(found["size"]), bytes=found["size"]),
        _moment(found),
        found["mode"],
        f"{found['uid']}:{found['gid']}",
        found["target"] or "-",
    )
    terminal.fields(list(zip(words.OF_ONE, values, strict=True)))


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
    recursive: Recursive = False,
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


# -- here from there ---------------------------------------------------------------------------


def get(
    name: InstanceName,
    path: There,
    here: Annotated[
        str | None, typer.Argument(metavar="[HERE]", help=words.HERE, show_default=False)
    ] = None,
    as_zip: Annotated[bool, typer.Option("--zip", help=words.AS_ZIP)] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help=words.UNPACK)] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if recursive and (as_zip or here == "-"):
        raise exits.UsageError(words.UNPACK_ALONE)
    if here != "-":
        _refuse_at_gateway()
    with connect() as client:
        ref, wanted = resolve(client, name), os.fsencode(path)
        has = client.show_file(ref, wanted)
        archive = ("zip" if as_zip else "tar") if _is_folder(client, ref, wanted, has) else None
        if archive and recursive:
            target = Path(here or ".")
            if not folders.is_content(path):
                target = _target_here(str(target), unquote_to_bytes(has["encoded"]), None, new=True)
            if os.path.lexists(target):
                if not target.is_dir():
                    raise FileTakenError(words.NO_FOLDER_THERE.format(path=target))
                terminal.confirm(words.ASK_MERGE.format(path=target), yes=yes)
            unpacking.get(terminal, client, ref, wanted, target, folder=has)
            return
        if here == "-":
            _to_stdout(client, ref, wanted, archive)
            return
        target = _target_here(here, unquote_to_bytes(has["encoded"]), archive)
        if target.exists():
            terminal.confirm(words.ASK_REPLACE.format(path=target), yes=yes)
        if archive:
            size = transfers.get_archive(terminal, client, ref, wanted, target, archive)
        else:
            size = transfers.get_file(terminal, client, ref, wanted, target)
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
            raise transfers.cut_off(os.fsdecode(path), came)


def _target_here(here: str | None, path: bytes, archive: str | None, *, new: bool = False) -> Path:
    """Where it goes; with `new` into the folder `here` although that is not there yet."""
    # What the server says a name is must not lead out of the folder.
    name = os.fsdecode(path.rpartition(b"/")[2]).replace("/", "_") or "root"
    if name in {".", ".."}:
        name = "_"
    name += f".{archive}" if archive else ""
    if here is None:
        return Path(name)
    return Path(here) / name if new or Path(here).is_dir() else Path(here)


# -- there from here ---------------------------------------------------------------------------


def put(
    name: InstanceName,
    here: Annotated[str, typer.Argument(metavar="HERE", help=words.FILE_HERE, show_default=False)],
    path: Annotated[
        str, typer.Argument(metavar="[THERE]", help=words.THERE, show_default=False)
    ] = "",
    recursive: Recursive = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    _refuse_at_gateway()
    if Path(here).is_dir():
        if not recursive:
            raise InvalidInputError(words.A_FOLDER_HERE.format(path=here), hint=words.SAY_RECURSIVE)
        with connect() as client:
            putting = folders.Putting(terminal, client, resolve(client, name))
            putting.put(here, os.fsencode(path), yes=yes)
        return
    with transfers.opened(Path(here), "rb", words.NOT_HERE) as file, connect() as client:
        ref = resolve(client, name)
        wanted = _target_there(client, ref, os.fsencode(path), os.fsencode(Path(here).name))
        sending = transfers.Sending(terminal, client, ref, wanted, file, here)
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
