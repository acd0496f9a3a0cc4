"""`hutch files put --recursive` and `get --recursive`: a folder there and back."""

import io
import json
import os
import shutil
import socket
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hutch.cli.unpacking import leads_out
from hutch.client.files import Coming, Files
from hutch.errors import UnavailableError
from tests.cli.server import Person

LONG_AGO = 1_700_000_000
ODD = b"odd \xff\xfe\n\x1b[31m"


@pytest.fixture
def project(box: Person) -> Path:
    top = box.home / "project"
    (top / "src" / "empty").mkdir(parents=True)
    (top / "src" / "a.py").write_bytes(b"print(1)\n")
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "run").chmod(0o750)
    (top / "src").chmod(0o700)
    (top / "nothing").write_bytes(b"")
    with open(os.fsencode(top) + b"/" + ODD, "wb") as file:
        file.write(b"no text")
    (top / "link").symlink_to("src/a.py")
    (top / "out").symlink_to("/etc/hostname")
    for each in (top / "src" / "a.py", top / "run", top / "nothing"):
        os.utime(each, (LONG_AGO, LONG_AGO))
    return top


def listed(box: Person, *folder: str) -> dict[str, Any]:
    return {each["name"]: each for each in box.json("files", "list", "box", *folder)["entries"]}


def content(box: Person, path: str) -> bytes:
    return box.hutch("files", "get", "box", path, "-").stdout


def put(box: Person, *words: str) -> Any:
    return box.json("files", "put", "box", *words, "-r")


def seen(top: Path) -> dict[bytes, Any]:
    """What a folder here has: by path, the content or where a link points, and mode and time."""
    found: dict[bytes, Any] = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in folders + files:
            path = os.path.join(folder, name)
            has = os.lstat(path)
            key = os.path.relpath(path, os.fsencode(top))
            if os.path.islink(path):
                found[key] = os.readlink(path)
            elif os.path.isdir(path):
                found[key] = has.st_mode & 0o777
            else:
                with open(path, "rb") as file:
                    found[key] = file.read(), has.st_mode & 0o777, int(has.st_mtime)
    return found


@contextmanager
def at_upload(of: bytes, work: Callable[[], None]) -> Generator[list[bytes]]:
    """Do something while a file is sent; the paths of all uploads."""
    real, asked = Files.upload, list[bytes]()

    def watched(self: Files, ref: str, path: bytes, pieces: Iterator[bytes], **how: Any) -> Any:
        asked.append(path)

        def meanwhile() -> Iterator[bytes]:
            if path.endswith(of):
                work()
            yield from pieces

        return real(self, ref, path, meanwhile(), **how)

    with mock.patch.object(Files, "upload", watched):
        yield asked


# -- there and back ----------------------------------------------------------------------------


def test_a_folder_goes_there_and_comes_back_the_same(box: Person, project: Path) -> None:
    told = put(box, "project")
    assert (told["path"], told["files"], told["links"], told["folders"]) == ("project", 4, 2, 2)
    assert (told["skipped"], told["failed"], told["same"]) == ([], [], 0)
    assert told["size"] == len(b"print(1)\n#!/bin/sh\nno text")
    has = listed(box, "project")
    assert (has["run"]["mode"], has["run"]["modified"]) == ("750", LONG_AGO)
    assert has["src"]["mode"] == "700"
    assert box.json("files", "list", "box", "project")["truncated"] is False

    before = seen(project)
    came = box.json("files", "get", "box", "project", "back", "-r")
    assert came["here"] == "back/project"
    # A link that leads out of the folder is not made: whoever is inside could point it anywhere.
    [left_out] = came["skipped"]
    assert (left_out["path"], "/etc/hostname" in left_out["reason"]) == ("out", True)
    del before[b"out"]
    assert seen(box.home / "back" / "project") == before
    assert {each.name for each in (box.home / "back").iterdir()} == {"project"}


@pytest.mark.parametrize(
    ("here", "there", "at"),
    [
        ("project", "", "project"),
        ("project", "new", "new/project"),
        ("project", "/srv", "/srv/project"),
        ("project/", "new", "new"),
        ("project/.", "new", "new"),
    ],
)
def test_the_same_command_means_the_same_place_each_time(
    box: Person, project: Path, here: str, there: str, at: str
) -> None:
    words = [here, there] if there else [here]
    assert put(box, *words)["files"] == 4
    assert content(box, f"{at}/src/a.py") == b"print(1)\n"
    again = put(box, *words)
    assert (again["files"], again["size"], again["folders"], again["links"]) == (0, 0, 0, 0)
    assert again["same"] == 6


def test_what_is_in_the_folder_one_is_in_goes_home(
    box: Person, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert put(box, ".")["files"] == 4
    assert listed(box).keys() >= {"run", "src", "link"}


def test_a_file_goes_with_the_option_too(box: Person, project: Path) -> None:
    assert box.json("files", "put", "box", "project/run", "-r")["kind"] == "file"
    assert box.json("files", "get", "box", "run", "back", "-r")["size"] == 10


def test_a_folder_needs_the_option(box: Person, project: Path) -> None:
    ran = box.hutch("files", "put", "box", "project")
    assert ran.code == 6
    assert "--recursive" in ran.err


def test_what_became_of_it_is_said_in_words(box: Person, project: Path) -> None:
    ran = box.hutch("files", "put", "box", "project", "-r")
    assert (ran.code, ran.err) == (0, "")
    assert "4 files (26B) and 2 links came over, 0 were there already" in ran.out


# -- links and special files -------------------------------------------------------------------


def test_no_link_is_followed_out(box: Person, project: Path) -> None:
    secret = box.home / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"mine alone")
    (project / "away").symlink_to(secret)
    (project / "file-away").symlink_to(secret / "key")
    assert put(box, "project")["links"] == 4
    has = listed(box, "project")
    assert {has["away"]["kind"], has["file-away"]["kind"]} == {"link"}
    shown = box.json("files", "list", "box", "project")
    assert "key" not in json.dumps(shown["entries"])
    # Another link of the name is another thing, and is asked about.
    (project / "away").unlink()
    (project / "away").symlink_to("src")
    ran = box.hutch("files", "put", "box", "project", "-r")
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert put(box, "project", "--yes")["links"] == 1
    assert listed(box, "project/away").keys() == {"a.py", "empty"}


def test_a_pipe_and_a_socket_are_named_and_left_out(box: Person, project: Path) -> None:
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("project/socket")
        told = put(box, "project")
        ran = box.hutch("files", "put", "box", "project", "-r")
    assert {each["path"] for each in told["skipped"]} == {"pipe", "socket"}
    assert told["files"] == 4
    assert ran.code == 0
    assert "Left out: pipe (a pipe, socket or device)." in ran.err


def test_a_file_that_became_a_link_meanwhile_is_not_followed(box: Person, project: Path) -> None:
    (box.home / "secret").write_bytes(b"mine alone")

    def swap() -> None:
        (project / "src" / "a.py").unlink(missing_ok=True)
        (project / "src" / "a.py").symlink_to(box.home / "secret")

    with at_upload(b"/run", swap):
        ran = box.hutch("files", "put", "box", "project", "-r", "--json")
    assert ran.code == 1
    assert [each["path"] for each in json.loads(ran.out)["failed"]] == ["src/a.py"]
    assert listed(box, "project/src").keys() == {"empty"}


# -- what changes, vanishes or cannot be -------------------------------------------------------


def test_a_file_that_vanishes_or_changes_is_named_and_the_rest_goes(
    box: Person, project: Path
) -> None:
    def change() -> None:
        (project / "run").write_bytes(b"longer than it was before\n")
        (project / "src" / "a.py").unlink(missing_ok=True)

    with at_upload(b"/run", change):
        ran = box.hutch("files", "put", "box", "project", "-r", "--json")
    assert ran.code == 1
    told = json.loads(ran.out)
    assert {each["path"]: each["code"] for each in told["failed"]} == {
        "run": "file_changed", "src/a.py": "file_refused",
    }  # fmt: skip
    assert "No such file" in told["failed"][1]["reason"]
    assert json.loads(ran.err)["error"]["code"] == "incomplete"
    assert told["files"] == 2
    has = listed(box, "project")
    assert "run" not in has
    assert not [name for name in has if name.startswith(".hutch")]
    # The same command again brings what was missing, and only that.
    again = put(box, "project")
    assert (again["files"], again["same"]) == (1, 4)
    assert content(box, "project/run") == b"longer than it was before\n"


def test_what_is_in_the_way_there_stays(box: Person, project: Path) -> None:
    for folder in ("project", "project/run"):
        box.hutch("files", "mkdir", "box", folder)
    (box.home / "src").write_bytes(b"a file")
    box.hutch("files", "put", "box", "src", "project/src")
    ran = box.hutch("files", "put", "box", "project", "-r", "--yes", "--json")
    assert ran.code == 1
    failed = {each["path"]: each["code"] for each in json.loads(ran.out)["failed"]}
    assert failed == {"run": "wrong_file_type", "src": "file_exists"}
    assert content(box, "project/src") == b"a file"
    assert listed(box, "project").keys() >= {"link", "nothing"}


def test_nothing_is_written_through_a_link_there(box: Person, project: Path) -> None:
    (box.home / "other").mkdir()
    (box.home / "other" / "src").symlink_to("/etc")
    put(box, "other/", "project")
    ran = box.hutch("files", "put", "box", "project", "-r", "--yes", "--json")
    assert {each["path"] for each in json.loads(ran.out)["failed"]} == {"src"}
    assert "a.py" not in listed(box, "/etc")


def test_what_is_different_there_is_asked_about_before_anything_is_sent(
    box: Person, project: Path
) -> None:
    put(box, "project")
    (project / "run").write_bytes(b"changed\n")
    (project / "new").write_bytes(b"new\n")
    ran = box.hutch("files", "put", "box", "project", "-r")
    assert (ran.code, "run" in ran.err) == (2, True)
    assert "new" not in listed(box, "project")
    told = put(box, "project", "--yes")
    assert (told["files"], told["same"]) == (2, 5)
    assert content(box, "project/run") == b"changed\n"


def test_a_folder_whose_place_is_not_there_is_refused_at_once(box: Person, project: Path) -> None:
    ran = box.hutch("files", "put", "box", "project", "no/such", "-r", "--json")
    assert (ran.code, ran.out) == (3, "")
    box.hutch("files", "put", "box", "project/run", "taken")
    ran = box.hutch("files", "put", "box", "project", "taken", "-r", "--json")
    assert (ran.code, json.loads(ran.err)["error"]["code"]) == (5, "wrong_file_type")
    assert content(box, "taken") == b"#!/bin/sh\n"


def test_what_may_not_be_read_here_is_named(box: Person, project: Path) -> None:
    (project / "shut").mkdir(mode=0o000)
    (project / "secret").write_bytes(b"x")
    (project / "secret").chmod(0o000)
    real_open, real_list = os.open, os.scandir

    def refused(path: Any, *rest: Any, **more: Any) -> Any:
        if os.fsencode(path).endswith(b"/secret"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *rest, **more)

    def shut(path: Any) -> Any:
        if os.fsencode(path).endswith(b"/shut"):
            raise PermissionError(13, "Permission denied")
        return real_list(path)

    # As root, who may read everything, the tests would never be refused.
    with (
        mock.patch("hutch.cli.folders.os.open", refused),
        mock.patch("hutch.cli.folders.os.scandir", shut),
    ):
        ran = box.hutch("files", "put", "box", "project", "-r", "--json")
    assert ran.code == 1
    assert {each["path"] for each in json.loads(ran.out)["failed"]} == {"shut", "secret"}


# -- interruptions -----------------------------------------------------------------------------


def test_what_was_interrupted_goes_on_with_what_is_missing(box: Person, project: Path) -> None:
    big = os.urandom(3 * 1024 * 1024)
    (project / "zz-big").write_bytes(big)
    real, offsets = Files.upload, list[int]()

    def breaking(self: Files, ref: str, path: bytes, pieces: Iterator[bytes], **how: Any) -> Any:
        if not path.endswith(b"zz-big"):
            return real(self, ref, path, pieces, **how)
        offsets.append(how["offset"])

        def half() -> Iterator[bytes]:
            yield next(pieces)
            yield next(pieces)
            raise KeyboardInterrupt

        return real(self, ref, path, half() if len(offsets) == 1 else pieces, **how)

    with mock.patch.object(Files, "upload", breaking):
        ran = box.hutch("files", "put", "box", "project", "-r")
        assert ran.code == 130
        assert "Broken off after 3 files" in ran.err
        told = put(box, "project")
    assert (told["files"], told["same"], told["links"]) == (2, 3, 2)
    assert offsets == [0, 512 * 1024]
    assert content(box, "project/zz-big") == big


def test_a_small_file_of_which_a_part_is_there_is_gone_on_with(box: Person, project: Path) -> None:
    (project / "half").write_bytes(b"x" * 600_000)
    real, offsets = Files.upload, list[int]()

    def breaking(self: Files, ref: str, path: bytes, pieces: Iterator[bytes], **how: Any) -> Any:
        if path.endswith(b"half"):
            offsets.append(how["offset"])
        if offsets == [0]:
            real(self, ref, path, iter([next(pieces)]), **how)
            raise KeyboardInterrupt
        return real(self, ref, path, pieces, **how)

    with mock.patch.object(Files, "upload", breaking):
        assert box.hutch("files", "put", "box", "project", "-r").code == 130
        assert put(box, "project")["failed"] == []
    assert offsets == [0, 0, 256 * 1024]
    assert content(box, "project/half") == b"x" * 600_000


def test_a_server_that_is_gone_ends_all_of_it(box: Person, project: Path) -> None:
    with (
        mock.patch.object(Files, "upload", side_effect=UnavailableError("gone")),
        mock.patch("hutch.cli.transfers.time.sleep"),
    ):
        ran = box.hutch("files", "put", "box", "project", "-r", "--json")
    assert (ran.code, ran.out) == (7, "")
    assert json.loads(ran.err)["error"]["code"] == "unavailable"


# -- back --------------------------------------------------------------------------------------


def test_what_comes_back_is_merged_when_that_is_said(box: Person, project: Path) -> None:
    put(box, "project")
    (project / "run").write_bytes(b"changed here\n")
    (project / "here-alone").write_bytes(b"stays")
    ran = box.hutch("files", "get", "box", "project", "-r")
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert box.json("files", "get", "box", "project", "-r", "--yes")["failed"] == []
    assert (project / "run").read_bytes() == b"#!/bin/sh\n"
    assert (project / "here-alone").read_bytes() == b"stays"
    assert not list(box.home.glob("**/.hutch-part*"))


def test_nothing_is_written_through_a_link_here(box: Person, project: Path) -> None:
    put(box, "project")
    elsewhere = box.home / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(project / "src")
    (project / "src").symlink_to(elsewhere)
    (project / "run").unlink()
    (project / "run").symlink_to(elsewhere / "run")
    (project / "nothing").unlink()
    (project / "nothing").mkdir()
    ran = box.hutch("files", "get", "box", "project", "-r", "--yes", "--json")
    assert ran.code == 1
    failed = {each["path"]: each["code"] for each in json.loads(ran.out)["failed"]}
    assert failed == {"src": "file_exists", "nothing": "wrong_file_type"}
    assert list(elsewhere.iterdir()) == []
    assert not (project / "run").is_symlink()


@pytest.mark.parametrize("cut", [3 * 512, 4 * 512, -512])
def test_an_archive_that_breaks_off_leaves_nothing(box: Person, project: Path, cut: int) -> None:
    put(box, "project", "there")
    real = Files.download

    @contextmanager
    def breaking(self: Files, ref: str, path: bytes, **how: Any) -> Generator[Coming]:
        with real(self, ref, path, **how) as coming:
            whole = b"".join(coming.pieces)
            yield Coming(iter([whole[:cut]]), 0, None, None)

    with mock.patch.object(Files, "download", breaking):
        ran = box.hutch("files", "get", "box", "there", "back", "-r")
    assert (ran.code, "broke off" in ran.err) == (7, True), ran
    assert not (box.home / "back" / "there").exists()
    assert not list(box.home.glob("**/.hutch-part*"))


def test_the_options_that_contradict_are_refused(box: Person) -> None:
    for words in (["--zip"], ["-"]):
        assert box.hutch("files", "get", "box", ".ssh", *words, "-r").code == 2


Member = tuple[str, bytes, Any]


def archive(*members: Member) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o7777
            if kind == tarfile.REGTYPE:
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                tar.addfile(info)
    return made.getvalue()


TOP: Member = ("t", tarfile.DIRTYPE, "")
SECRET = b"written outside"


@pytest.mark.parametrize(
    "members",
    [
        [("t/../../evil", tarfile.REGTYPE, SECRET)],
        [("../evil", tarfile.REGTYPE, SECRET)],
        [("/{home}/evil", tarfile.REGTYPE, SECRET)],
        [("t//{home}/evil", tarfile.REGTYPE, SECRET)],
        [("t/l", tarfile.SYMTYPE, ".."), ("t/l/evil", tarfile.REGTYPE, SECRET)],
        [("t/l", tarfile.SYMTYPE, "{home}"), ("t/l/evil", tarfile.REGTYPE, SECRET)],
        [("t/l", tarfile.SYMTYPE, "{home}/evil"), ("t/l", tarfile.REGTYPE, SECRET)],
        [("t/l", tarfile.LNKTYPE, "/etc/hostname")],
        [("t/l", tarfile.CHRTYPE, "")],
        [("t/l", tarfile.FIFOTYPE, "")],
        [
            ("t/a", tarfile.DIRTYPE, ""), ("t/a/b", tarfile.DIRTYPE, ""),
            ("t/a/b/up", tarfile.SYMTYPE, "../.."), ("t/l", tarfile.SYMTYPE, "a/b/up/.."),
        ],
    ],
)  # fmt: skip
def test_an_archive_that_means_harm_does_none(box: Person, members: list[Member]) -> None:
    home = str(box.home)
    wicked = archive(
        TOP,
        *(
            (
                name.format(home=home),
                kind,
                what.format(home=home) if isinstance(what, str) else what,
            )
            for name, kind, what in members
        ),
        ("t/good", tarfile.REGTYPE, b"good"),
    )

    @contextmanager
    def sent(*_: object, **__: object) -> Generator[Coming]:
        yield Coming(iter([wicked]), 0, None, None)

    box.hutch("files", "mkdir", "box", "t")
    with mock.patch.object(Files, "download", sent):
        ran = box.hutch("files", "get", "box", "t", "in/", "-r", "--json")
    told = json.loads(ran.out)
    assert told["skipped"] or told["failed"]
    made = box.home / "in" / "t"
    assert (made / "good").read_bytes() == b"good"
    assert {each.name for each in box.home.iterdir()} - {".config"} == {"in"}
    # Whatever links there are, all of them stay inside.
    for each in made.rglob("*"):
        assert each.resolve().is_relative_to(made.resolve()), each
        assert not each.stat().st_mode & 0o7022
    assert not [each for each in made.rglob("*") if each.is_fifo() or each.is_char_device()]


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        (b"l", b"a/b", False),
        (b"l", b".", False),
        (b"a/l", b"../b", False),
        (b"a/l", b"./../b//c", False),
        (b"l", b"../b", True),
        (b"a/l", b"../../b", True),
        (b"a/l", b"b/../c", True),
        (b"a/l", b"/", True),
    ],
)
def test_where_a_link_may_point(path: bytes, target: bytes, out: bool) -> None:
    assert leads_out(path, target) is out
