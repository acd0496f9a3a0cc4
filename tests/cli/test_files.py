"""`hutch files`: what a person brings there and back, and what becomes of interruptions."""

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hutch.client.files import Files
from hutch.errors import UnavailableError
from tests.cli.server import Person, Server


@pytest.fixture
def notes(box: Person) -> Path:
    file = box.home / "notes.txt"
    file.write_bytes(os.urandom(1024 * 1024))
    file.chmod(0o640)
    # Changed long ago, as most files are: one that was just changed is never gone on with.
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return file


def listed(box: Person, *folder: str) -> dict[str, Any]:
    return {each["name"]: each for each in box.json("files", "list", "box", *folder)["entries"]}


def test_a_file_goes_there_and_comes_back(box: Person, notes: Path) -> None:
    assert box.json("files", "put", "box", "notes.txt")["mode"] == "640"
    assert listed(box)["notes.txt"]["size"] == 1024 * 1024
    ran = box.hutch("files", "get", "box", "notes.txt", "back")
    assert ran.code == 0, ran
    assert (box.home / "back").read_bytes() == notes.read_bytes()
    assert box.hutch("files", "get", "box", "notes.txt", "-").stdout == notes.read_bytes()
    assert {each.name for each in box.home.iterdir()} - {".config"} == {"notes.txt", "back"}


def test_one_thing_is_shown_as_it_is_there(box: Person, notes: Path) -> None:
    box.hutch("files", "put", "box", "notes.txt")
    shown = dict(
        line.split(maxsplit=1)
        for line in box.hutch("files", "show", "box", "notes.txt").out.splitlines()
    )
    assert shown["path"].endswith("/notes.txt")
    assert (shown["kind"], shown["size"]) == ("file", "1MiB (1048576 bytes)")
    assert shown["mode"] == "640"
    assert box.json("files", "show", "box", "notes.txt")["size"] == 1024 * 1024
    (box.home / "d").mkdir()
    (box.home / "d" / "link").symlink_to("nothing")
    box.hutch("files", "put", "box", "d", "--recursive")
    assert "nothing" in box.hutch("files", "show", "box", "d/link").out
    assert box.json("files", "show", "box", "d")["kind"] == "folder"


def test_a_folder_comes_as_an_archive(box: Person, notes: Path) -> None:
    box.hutch("files", "mkdir", "box", "d")
    box.hutch("files", "put", "box", "notes.txt", "d")
    assert listed(box, "d").keys() == {"notes.txt"}
    assert box.hutch("files", "get", "box", "d").code == 0
    with tarfile.open("d.tar") as archive:
        assert archive.getnames() == ["d", "d/notes.txt"]
    assert box.hutch("files", "get", "box", "d", "--zip").code == 0
    with zipfile.ZipFile("d.zip") as archive:
        assert archive.namelist() == ["d/", "d/notes.txt"]


def test_nothing_is_lost_unless_told(box: Person, notes: Path) -> None:
    box.hutch("files", "put", "box", "notes.txt", "a")
    box.hutch("files", "put", "box", "notes.txt", "b")
    for command in (
        ["put", "box", "notes.txt", "a"],
        ["rename", "box", "a", "b"],
        ["delete", "box", "a"],
        ["get", "box", "a", "notes.txt"],
    ):
        ran = box.hutch("files", *command)
        assert ran.code == 2, ran
        assert "--yes" in ran.err
        assert listed(box).keys() >= {"a", "b"}
    for command in (["rename", "box", "a", "b"], ["delete", "box", "b"]):
        assert box.hutch("files", *command, "--yes").code == 0
    assert not {"a", "b"} & listed(box).keys()


def test_a_full_folder_goes_only_with_the_option(box: Person, notes: Path) -> None:
    box.hutch("files", "mkdir", "box", "d")
    box.hutch("files", "put", "box", "notes.txt", "d/")
    ran = box.hutch("files", "delete", "box", "d", "--yes", "--json")
    assert "folder_not_empty" in ran.err
    assert box.hutch("files", "delete", "box", "d", "-r", "--yes").code == 0
    assert "d" not in listed(box)


def test_an_upload_that_breaks_off_goes_on_by_itself(box: Person, notes: Path) -> None:
    real, asked = Files.upload, list[int]()

    def breaking(self: Files, ref: str, path: bytes, content: Iterator[bytes], **how: Any) -> Any:
        asked.append(how["offset"])
        if len(asked) > 1:
            return real(self, ref, path, content, **how)

        def half() -> Iterator[bytes]:
            yield next(content)
            raise ConnectionResetError

        return real(self, ref, path, half(), **how)

    with mock.patch.object(Files, "upload", breaking):
        ran = box.hutch("files", "put", "box", "notes.txt")
    assert ran.code == 0, ran
    assert asked == [0, 256 * 1024]
    assert box.hutch("files", "get", "box", "notes.txt", "-").stdout == notes.read_bytes()
    assert [name for name in listed(box) if name.startswith(".hutch")] == []


def test_a_download_that_breaks_off_goes_on_with_the_next_command(
    box: Person, notes: Path, server: Server
) -> None:
    box.hutch("files", "put", "box", "notes.txt")
    real, asked = Files.download, list[int]()

    def breaking(self: Files, ref: str, path: bytes, **how: Any) -> Any:
        asked.append(how["start"])
        if len(asked) > 1:
            raise UnavailableError("gone")
        opened = real(self, ref, path, **how)

        class Half:
            def __enter__(self) -> Any:
                coming = opened.__enter__()
                first = next(coming.pieces)
                tag = coming.tag.removeprefix("W/")
                return type(coming)(iter([first]), coming.start, coming.size, tag)

            def __exit__(self, *_: object) -> None:
                opened.__exit__(None, None, None)

        return Half()

    # The server's clock decides when a file has stood still for long enough.
    with mock.patch("hutch.services.downloads._STEADY_SECONDS", -5):
        with mock.patch.object(Files, "download", breaking):
            assert box.hutch("files", "get", "box", "notes.txt", "back").code != 0
        assert not (box.home / "back").exists()
        ran = box.hutch("files", "get", "box", "notes.txt", "back")
    assert ran.code == 0, ran
    assert "Going on" in ran.err
    assert (box.home / "back").read_bytes() == notes.read_bytes()
    assert {each.name for each in box.home.iterdir()} - {".config"} == {"notes.txt", "back"}


def test_a_file_that_changes_here_while_it_is_sent_is_not_there(box: Person, notes: Path) -> None:
    real = Files.upload

    def changing(self: Files, ref: str, path: bytes, content: Iterator[bytes], **how: Any) -> Any:
        def meanwhile() -> Iterator[bytes]:
            yield next(content)
            notes.touch()
            yield from content

        return real(self, ref, path, meanwhile(), **how)

    with mock.patch.object(Files, "upload", changing):
        ran = box.hutch("files", "put", "box", "notes.txt", "--json")
    assert "file_changed" in ran.err
    assert listed(box).keys() <= {".ssh"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["get", "box", "nothing"], "not_found"),
        (["get", "box", "../x"], "invalid_path"),
        (["list", "box", "nothing"], "not_found"),
        (["show", "box", "nothing"], "not_found"),
        (["show", "box", "a/../b"], "invalid_path"),
        (["put", "box", "nothing-here"], "invalid_input"),
        (["put", "box", "."], "invalid_input"),
        (["put", "nobody", "notes.txt"], "not_found"),
        (["put", "box", "notes.txt", "nothing/x"], "not_found"),
        (["delete", "box", "nothing"], "not_found"),
        (["delete", "box", "/", "-r", "--yes"], "invalid_path"),
        (["rename", "box", "nothing", "x"], "not_found"),
        (["mkdir", "box", "/etc"], "file_exists"),
    ],
)
def test_what_cannot_be_is_told(box: Person, notes: Path, command: list[str], code: str) -> None:
    ran = box.hutch("files", *command, "--json")
    assert ran.code != 0
    assert f'"{code}"' in ran.err, ran


def test_names_with_odd_bytes_are_shown_harmlessly(box: Person) -> None:
    (box.home / "odd\x1b[31m\n").write_bytes(b"x")
    assert box.hutch("files", "put", "box", "odd\x1b[31m\n").code == 0
    assert "\x1b" not in box.hutch("files", "list", "box").out
    assert box.hutch("files", "get", "box", "odd\x1b[31m\n", "-").stdout == b"x"


def test_at_the_gateway_there_are_no_files(box: Person) -> None:
    box.variables["HUTCH_GATEWAY"] = "lab.example:22"
    for command in (["get", "box", ".ssh"], ["put", "box", "/etc/passwd"]):
        ran = box.hutch("files", *command)
        assert "no files of yours at the gateway" in ran.err
    assert box.hutch("files", "list", "box").code == 0
