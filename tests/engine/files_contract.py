"""What every engine promises of the files of its containers. `test_files.py` runs it."""

import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
import pytest_asyncio

from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import Engine
from hutch.engine.files import FileKind, Files
from hutch.engine.simulated.files import SimulatedFiles
from hutch.errors import (
    DiskFullError,
    EngineNotFoundError,
    FileRefusedError,
    FileTakenError,
    FolderNotEmptyError,
    HutchError,
    NotFoundError,
    WrongFileTypeError,
)
from tests.engine.contract import SMALL, Maker, Site

_numbers = itertools.count()


async def put(files: Files, path: bytes, content: bytes) -> None:
    async with files.writing(path, offset=None) as file:
        await file.write(content)
        await file.flush()


async def fill(files: Files, path: bytes, mebibytes: int) -> None:
    async with files.writing(path, offset=None) as file:
        for _ in range(mebibytes):
            await file.write(os.urandom(MiB))
        await file.flush()


async def get(files: Files, path: bytes, offset: int = 0, size: int = 1 << 40) -> bytes:
    async with files.reading(path) as file:
        return b"".join([piece async for piece in file.read(offset, size)])


async def make_link(engine: Engine, name: str, path: bytes, target: bytes) -> None:
    """A link, as somebody inside would make it."""
    async with engine.files(name) as files:
        if isinstance(files, SimulatedFiles):
            await files.make_link(path, target)
            return
    made = await engine.exec(name, ["ln", "-s", "--", target.decode(), path.decode()])
    assert made.code == 0, made


@pytest.fixture
def engine(site: Site) -> Engine:
    return site.engine


@pytest_asyncio.fixture(scope="module")
async def running(site: Site) -> AsyncIterator[str]:
    spec = site.spec()
    await site.engine.create(spec, start=True)
    yield spec.name
    await site.engine.delete(spec.name)


@pytest_asyncio.fixture
async def files(engine: Engine, running: str) -> AsyncIterator[Files]:
    async with engine.files(running) as found:
        yield found


@pytest_asyncio.fixture
async def folder(files: Files) -> bytes:
    path = f"/root/files-{next(_numbers)}".encode()
    await files.make_folder(path)
    return path


class TestFiles:
    @pytest.mark.parametrize("size", [0, 1, 32 * 1024, 3 * 1024 * 1024 + 17])
    async def test_what_is_written_is_read(self, files: Files, folder: bytes, size: int):
        content = bytes(itertools.islice(itertools.cycle(range(251)), size))
        await put(files, folder + b"/f", content)
        assert await get(files, folder + b"/f") == content
        has = await files.stat(folder + b"/f")
        assert (has.kind, has.size, has.uid, has.gid) == (FileKind.FILE, size, 0, 0)
        assert has.modified > 0

    async def test_a_part_is_read_and_none_beyond_the_end(self, files: Files, folder: bytes):
        await put(files, folder + b"/f", b"0123456789" * 10_000)
        assert await get(files, folder + b"/f", 99_990, 5) == b"01234"
        assert await get(files, folder + b"/f", 99_995, 100) == b"56789"
        assert await get(files, folder + b"/f", 100_000, 100) == b""

    async def test_writing_goes_on_where_it_stopped(self, files: Files, folder: bytes):
        await put(files, folder + b"/f", b"begun, ")
        async with files.writing(folder + b"/f", offset=7) as file:
            await file.write(b"and done")
        assert await get(files, folder + b"/f") == b"begun, and done"

    async def test_what_was_written_stays_when_the_writer_breaks(self, files: Files, folder: bytes):
        async def break_off() -> None:
            async with files.writing(folder + b"/f", offset=None) as file:
                await file.write(b"kept")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await break_off()
        assert await get(files, folder + b"/f") == b"kept"

    async def test_a_new_file_is_never_an_old_one(
        self, engine: Engine, running: str, files: Files, folder: bytes
    ):
        await put(files, folder + b"/f", b"old")
        await make_link(engine, running, folder + b"/l", b"/root/elsewhere")
        for name in (b"/f", b"/l", b""):
            with pytest.raises(FileTakenError):
                async with files.writing(folder + name, offset=None):
                    pass
        assert await get(files, folder + b"/f") == b"old"

    async def test_owner_and_mode_are_set(self, files: Files, folder: bytes):
        async with files.writing(folder + b"/f", offset=None) as file:
            await file.describe(mode=0o640, owner=(1000, 1001))
        await files.describe(folder, mode=0o700, owner=(1002, 1003))
        has, above = await files.stat(folder + b"/f"), await files.stat(folder)
        assert (has.mode, has.uid, has.gid) == (0o640, 1000, 1001), has
        assert (above.kind, above.mode, above.uid, above.gid) == (
            FileKind.FOLDER, 0o700, 1002, 1003,
        )  # fmt: skip

    async def test_the_time_is_set(self, files: Files, folder: bytes):
        async with files.writing(folder + b"/f", offset=None) as file:
            await file.write(b"content")
            await file.flush()
            await file.describe(mode=0o600, modified=1_700_000_000)
        has = await files.stat(folder + b"/f")
        assert (has.mode, has.size, has.modified) == (0o600, 7, 1_700_000_000)

    @pytest.mark.parametrize("target", [b"f", b"/nowhere/at all", b"../\xff odd"])
    async def test_a_link_is_made_as_it_is_told(self, files: Files, folder: bytes, target: bytes):
        await files.make_link(folder + b"/l", target)
        assert await files.read_link(folder + b"/l") == target
        assert (await files.stat(folder + b"/l", follow=False)).kind is FileKind.LINK
        with pytest.raises(FileTakenError):
            await files.make_link(folder + b"/l", b"elsewhere")
        assert await files.read_link(folder + b"/l") == target

    async def test_a_folder_tells_what_it_has(
        self, engine: Engine, running: str, files: Files, folder: bytes
    ):
        await put(files, folder + b"/f", b"abc")
        await files.make_folder(folder + b"/d")
        await put(files, folder + b"/d/below", b"")
        await make_link(engine, running, folder + b"/l", b"f")
        found = {each.name: each.attributes async for each in files.entries(folder)}
        assert {name: has.kind for name, has in found.items()} == {
            b"f": FileKind.FILE, b"d": FileKind.FOLDER, b"l": FileKind.LINK,
        }  # fmt: skip
        assert found[b"f"].size == 3

    async def test_many_entries_come(self, files: Files, folder: bytes):
        names = {f"file-{number}".encode() for number in range(300)}
        for name in names:
            await put(files, folder + b"/" + name, b"")
        assert {each.name async for each in files.entries(folder)} == names

    @pytest.mark.parametrize(
        "name", ["two\nlines", "é", " ", "-rf", '\'; echo "$(id)"', "x" * 255, "*", "\\", "~"]
    )
    async def test_names_are_what_they_are(self, files: Files, folder: bytes, name: str):
        path = folder + b"/" + name.encode()
        await put(files, path, b"content")
        assert [each.name async for each in files.entries(folder)] == [name.encode()]
        assert await get(files, path) == b"content"

    async def test_names_that_are_no_text(self, files: Files, folder: bytes):
        await put(files, folder + b"/\xff\xfe odd \x01", b"content")
        assert [each.name async for each in files.entries(folder)] == [b"\xff\xfe odd \x01"]
        await files.rename(folder + b"/\xff\xfe odd \x01", folder + b"/even")
        assert await get(files, folder + b"/even") == b"content"

    @pytest.mark.parametrize(
        "target", ["/root/{}/inside", "../{}/inside", "../../../../root/{}/inside"]
    )
    async def test_links_lead_where_they_lead_inside(
        self, engine: Engine, running: str, files: Files, folder: bytes, target: str
    ):
        await put(files, folder + b"/inside", b"here")
        leads = target.format(PurePosixPath(folder.decode()).name).encode()
        await make_link(engine, running, folder + b"/l", leads)
        assert await get(files, folder + b"/l") == b"here"
        assert (await files.stat(folder + b"/l", follow=False)).kind is FileKind.LINK
        assert (await files.stat(folder + b"/l")).kind is FileKind.FILE
        assert await files.read_link(folder + b"/l") == leads

    async def test_links_never_lead_out(
        self, engine: Engine, running: str, files: Files, folder: bytes, tmp_path: object
    ):
        # A file of the node that this test runs on: inside there is none of that name.
        secret = PurePosixPath(str(tmp_path)) / "secret"
        with open(secret, "w") as file:
            file.write("the node's own")
        for number, way in enumerate((secret, f"../../../../../../..{secret}")):
            link = folder + f"/l{number}".encode()
            await make_link(engine, running, link, str(way).encode())
            with pytest.raises(NotFoundError):
                await get(files, link)
        await make_link(engine, running, folder + b"/up", b"../../../../../..")
        assert await get(files, folder + b"/up/etc/hosts") == await get(files, b"/etc/hosts")

    async def test_links_in_a_circle_are_refused(
        self, engine: Engine, running: str, files: Files, folder: bytes
    ):
        await make_link(engine, running, folder + b"/a", folder + b"/b")
        await make_link(engine, running, folder + b"/b", folder + b"/a")
        with pytest.raises(FileRefusedError):
            await files.stat(folder + b"/a")
        await files.remove(folder + b"/a")

    async def test_removing_a_link_leaves_what_it_leads_to(
        self, engine: Engine, running: str, files: Files, folder: bytes
    ):
        await files.make_folder(folder + b"/d")
        await put(files, folder + b"/d/f", b"stays")
        await make_link(engine, running, folder + b"/l", b"d")
        with pytest.raises(WrongFileTypeError):
            await files.remove_folder(folder + b"/l")
        await files.remove(folder + b"/l")
        assert await get(files, folder + b"/d/f") == b"stays"

    async def test_what_is_not_there_is_not_found(self, files: Files, folder: bytes):
        path = folder + b"/nothing"
        for wrong in (
            files.stat(path),
            get(files, path),
            files.remove(path),
            files.remove_folder(path),
            files.rename(path, folder + b"/other"),
            files.make_folder(path + b"/below"),
            put(files, path + b"/below", b""),
            anext(files.entries(path)),  # pyright: ignore[reportArgumentType]
        ):
            with pytest.raises(NotFoundError):
                await wrong

    async def test_what_is_of_another_kind_is_refused(self, files: Files, folder: bytes):
        await put(files, folder + b"/f", b"")
        await files.make_folder(folder + b"/d")
        for wrong in (
            files.stat(folder + b"/f/below"),
            files.make_folder(folder + b"/f/below"),
            files.remove_folder(folder + b"/f"),
            files.remove(folder + b"/d"),
            anext(files.entries(folder + b"/f")),  # pyright: ignore[reportArgumentType]
        ):
            with pytest.raises(WrongFileTypeError):
                await wrong

    async def test_a_folder_goes_only_when_it_is_empty(self, files: Files, folder: bytes):
        await files.make_folder(folder + b"/d")
        await put(files, folder + b"/d/f", b"")
        with pytest.raises(FolderNotEmptyError):
            await files.remove_folder(folder + b"/d")
        await files.remove(folder + b"/d/f")
        await files.remove_folder(folder + b"/d")
        assert [each async for each in files.entries(folder)] == []

    async def test_renaming_replaces_a_file_and_no_folder(self, files: Files, folder: bytes):
        await put(files, folder + b"/new", b"new")
        await put(files, folder + b"/old", b"old")
        await files.rename(folder + b"/new", folder + b"/old")
        assert await get(files, folder + b"/old") == b"new"
        await files.make_folder(folder + b"/d")
        with pytest.raises(FileTakenError):
            await files.rename(folder + b"/old", folder + b"/d")
        await put(files, folder + b"/d/below", b"b")
        await files.rename(folder + b"/d", folder + b"/e")
        assert await get(files, folder + b"/e/below") == b"b"
        with pytest.raises(HutchError):
            await files.rename(folder + b"/e", folder + b"/e/inside")

    async def test_a_second_name_replaces_nothing(self, files: Files, folder: bytes):
        await put(files, folder + b"/one", b"1")
        await put(files, folder + b"/two", b"2")
        with pytest.raises(FileTakenError):
            await files.link(folder + b"/one", folder + b"/two")
        await files.link(folder + b"/one", folder + b"/three")
        assert await get(files, folder + b"/three") == b"1"

    async def test_a_name_that_is_too_long_is_refused(self, files: Files, folder: bytes):
        with pytest.raises(FileRefusedError):
            await put(files, folder + b"/" + b"x" * 256, b"")

    async def test_programs_and_files_see_the_same(
        self, engine: Engine, running: str, files: Files, folder: bytes
    ):
        await put(files, folder + b"/f", b"from outside")
        ran = await engine.exec(running, ["cat", (folder + b"/f").decode()])
        assert ran.stdout == b"from outside"
        await engine.exec(running, ["tee", (folder + b"/g").decode()], stdin=b"from inside")
        assert await get(files, folder + b"/g") == b"from inside"


class TestFilesOfAStopped:
    async def test_are_as_those_of_a_running_one(self, engine: Engine, site: Site, make: Maker):
        name = await make()
        async with engine.files(name) as files:
            await files.make_folder(b"/root/d")
            await put(files, b"/root/d/f", b"put while it slept")
        await engine.start(name)
        ran = await engine.exec(name, ["cat", "/root/d/f"])
        assert ran.stdout == b"put while it slept"
        await engine.stop(name, timeout=0)
        async with engine.files(name) as files:
            assert await get(files, b"/root/d/f") == b"put while it slept"

    async def test_of_an_absent_one_are_not_found(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            async with engine.files("hutch-00000000"):
                pass


class TestAFullDisk:
    async def test_is_told_and_what_is_there_stays(self, engine: Engine, site: Site, make: Maker):
        small = site.spec(limits=replace(SMALL, disk=GiB))
        name = await make(small, start=True)
        async with engine.files(name) as files:
            await put(files, b"/root/before", b"safe")
            with pytest.raises(DiskFullError):
                await fill(files, b"/root/big", 1200)
            await files.remove(b"/root/big")
            assert await get(files, b"/root/before") == b"safe"
