"""Files through the API: what comes and goes, and what a person might try."""

import asyncio
import io
import itertools
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from hutch.domain.instances import Instance, InstanceState
from hutch.engine.base import Engine
from hutch.errors import FileChangedError
from hutch.services import downloads, shares, tokens, users
from hutch.services import instances as services
from hutch.services.context import Context
from hutch.store import containers, instances
from hutch.store import events as stored_events
from tests.api.conftest import Running, Send, told
from tests.engine.files_contract import get, put
from tests.lab import Lab

HOME = "/home/alice"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


class Box:
    """An instance of alice's, seen from inside too."""

    def __init__(self, context: Context, lab: Lab, instance: Instance, name: str) -> None:
        self.context = context
        self.instance = instance
        self.engine: Engine = context.engines.of(lab.node)
        self.name = name

    async def put(self, path: str | bytes, content: bytes) -> None:
        async with self.engine.files(self.name) as files:
            await put(files, path if isinstance(path, bytes) else path.encode(), content)

    async def get(self, path: str) -> bytes:
        async with self.engine.files(self.name) as files:
            return await get(files, path.encode())

    async def mkdir(self, path: str) -> None:
        async with self.engine.files(self.name) as files:
            await files.make_folder(path.encode())

    async def link(self, path: str, target: str) -> None:
        async with self.engine.files(self.name) as files:
            await files.make_link(path.encode(), target.encode())

    async def names(self, path: str = HOME) -> set[bytes]:
        async with self.engine.files(self.name) as files:
            return {each.name async for each in files.entries(path.encode())}

    async def set_state(self, state: InstanceState) -> None:
        async with self.context.db.write() as session:
            await instances.set_state(session, self.instance.id, state)


@pytest_asyncio.fixture
async def box(context: Context, lab: Lab, running: Running) -> Box:
    instance = await running("alice", "box")
    async with context.db.read() as session:
        container = await containers.current(session, instance.id)
    assert container is not None
    made = Box(context, lab, instance, container.engine_name)
    await made.engine.exec(
        made.name, ["tee", "/etc/passwd"], stdin=b"alice:x:1000:1000::/home/alice:/bin/bash\n"
    )
    await made.mkdir(HOME)
    async with made.engine.files(made.name) as files:
        await files.describe(HOME.encode(), mode=0o755, owner=(1000, 1000))
    return made


async def upload(
    send: Send, path: str, content: Any, as_: str = "alice", **query: Any
) -> httpx.Response:
    return await send(
        "PUT", "/instances/box/files/content", as_=as_, content=content,
        params={"path": path, **query},
    )  # fmt: skip


async def download(send: Send, path: str, as_: str = "alice", **request: Any) -> httpx.Response:
    params = {"path": path, **request.pop("params", {})}
    return await send("GET", "/instances/box/files/content", as_=as_, params=params, **request)


async def events_of(context: Context) -> list[tuple[str, str, Any]]:
    async with context.db.read() as session:
        found = await stored_events.list_events(session, limit=100)
    return [
        (each.action, each.result, each.detail["path"])
        for each in reversed(found)
        if each.action.startswith("file.")
    ]


# -- coming and going --------------------------------------------------------------------------


@pytest.mark.parametrize("state", [InstanceState.RUNNING, InstanceState.STOPPED])
async def test_what_is_uploaded_is_the_persons_and_comes_back(
    send: Send, box: Box, state: InstanceState
):
    await box.set_state(state)
    content = bytes(range(256)) * 5000
    answer = await upload(send, "notes.bin", content, mode="750")
    assert answer.json() == {
        "size": len(content), "done": True, "encoded": "%2Fhome%2Falice%2Fnotes.bin",
    }  # fmt: skip
    has = (await send("GET", "/instances/box/files/stat?path=notes.bin", as_="alice")).json()
    assert (has["uid"], has["gid"], has["mode"], has["size"]) == (1000, 1000, "750", len(content))
    back = await download(send, f"{HOME}/notes.bin")
    assert back.content == content
    assert back.headers["content-length"] == str(len(content))
    assert back.headers["content-type"] == "application/octet-stream"
    assert "attachment" in back.headers["content-disposition"]
    assert await box.names() == {b"notes.bin"}


async def test_every_change_leaves_an_event(send: Send, box: Box, context: Context):
    await upload(send, "a", b"1")
    base = "/instances/box/files"
    assert (await send("POST", f"{base}/folder?path=d", as_="alice")).status_code == 201
    assert (await send("POST", f"{base}/link?path=l&to=../x", as_="alice")).status_code == 201
    assert (await send("DELETE", f"{base}?path=l", as_="alice")).status_code == 204
    assert (await send("POST", f"{base}/rename?path=a&to=d/b", as_="alice")).status_code == 200
    assert (await download(send, "d/b")).content == b"1"
    told(await send("POST", f"{base}/rename?path=nothing&to=x", as_="alice"), 404, "not_found")
    told(await send("DELETE", f"{base}?path=d", as_="alice"), 409, "folder_not_empty")
    assert (await send("DELETE", f"{base}?path=d&recursive=true", as_="alice")).status_code == 204
    assert await box.names() == set()
    assert await events_of(context) == [
        ("file.upload", "ok", f"{HOME}/a"),
        ("file.mkdir", "ok", f"{HOME}/d"),
        ("file.link", "ok", f"{HOME}/l"),
        ("file.delete", "ok", f"{HOME}/l"),
        ("file.rename", "ok", f"{HOME}/a"),
        ("file.download", "ok", f"{HOME}/d/b"),
        ("file.delete", "ok", f"{HOME}/d"),
        ("file.delete", "failed", f"{HOME}/d"),
        ("file.delete", "ok", f"{HOME}/d"),
    ]


async def test_a_copy_keeps_modes_times_and_links(send: Send, box: Box):
    base = "/instances/box/files"
    made = await send("POST", f"{base}/folder?path=d&mode=0700", as_="alice")
    assert (made.json()["mode"], made.json()["uid"]) == ("700", 1000)
    await upload(send, "d/f", b"1", mode="640", modified=1_700_000_000)
    has = (await send("GET", f"{base}/stat?path=d/f", as_="alice")).json()
    assert (has["mode"], has["modified"]) == ("640", 1_700_000_000)
    link = await send("POST", f"{base}/link?path=d/l&to=../%FF/f", as_="alice")
    assert (link.json()["kind"], link.json()["target"]) == ("link", "../\ufffd/f")


async def test_a_link_replaces_only_what_it_is_told_to(send: Send, box: Box):
    base = "/instances/box/files"
    await box.mkdir(f"{HOME}/d")
    await upload(send, "f", b"1")
    for path, replace, status, code in (
        ("f", "false", 409, "file_exists"),
        ("d", "false", 409, "wrong_file_type"),
        ("d", "true", 409, "wrong_file_type"),
        ("nothing/l", "true", 404, "not_found"),
    ):
        asked = f"{base}/link?path={path}&to=x&replace={replace}"
        told(await send("POST", asked, as_="alice"), status, code)
    assert await box.get(f"{HOME}/f") == b"1"
    for to in ("", "a%00b", "x" * 2500):
        told(
            await send("POST", f"{base}/link?path=l&to={to}", as_="alice"), 422,
            "invalid_path" if not to else "invalid_input",
        )  # fmt: skip
    replaced = await send("POST", f"{base}/link?path=f&to=d&replace=true", as_="alice")
    assert replaced.json()["target"] == "d"
    assert await box.names() == {b"d", b"f"}


async def test_a_part_is_sent_only_of_the_same_file(send: Send, box: Box, clock: Any):
    await upload(send, "f", b"0123456789")
    clock.forward(seconds=10)
    whole = await download(send, "f")
    tag = whole.headers["etag"]
    assert not tag.startswith("W/")

    async def part(span: str, tag: str | None = tag) -> httpx.Response:
        headers = {"Range": span} | ({"If-Range": tag} if tag else {})
        return await download(send, "f", headers=headers)

    answer = await part("bytes=4-")
    assert (answer.status_code, answer.content) == (206, b"456789")
    assert answer.headers["content-range"] == "bytes 4-9/10"
    assert (await part("bytes=2-3", None)).content == b"23"
    assert (await part("bytes=-3")).content == b"789"
    assert (await part("bytes=8-100")).content == b"89"
    for odd in ("bytes=5-2", "lines=1-2", "bytes=1-2,4-5", "bytes=x-", "bytes=-", "bytes=-0"):
        assert (await part(odd)).status_code == 200
    error = told(await part("bytes=10-"), 416, "bad_range")
    assert error["detail"]["size"] == 10
    another = await part("bytes=4-", '"another"')
    assert (another.status_code, another.content) == (200, b"0123456789")


async def test_a_file_that_was_changed_just_now_is_never_gone_on_with(send: Send, box: Box):
    await upload(send, "f", b"0123456789")
    tag = (await download(send, "f")).headers["etag"]
    assert tag.startswith("W/")
    answer = await download(send, "f", headers={"Range": "bytes=4-", "If-Range": tag})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


async def test_an_upload_goes_on_where_it_was_cut(send: Send, box: Box):
    query: dict[str, Any] = {"upload": "0123456789abcdef", "size": 10}

    async def broken() -> AsyncIterator[bytes]:
        yield b"0123"

    first = await upload(send, "f", broken(), **query)
    assert first.json()["done"] is False
    assert b"f" not in await box.names()
    shown = await send(
        "GET", "/instances/box/files/upload", as_="alice",
        params={"path": "f", "upload": query["upload"]},
    )  # fmt: skip
    assert shown.json()["size"] == 4
    error = told(await upload(send, "f", b"56789", offset=5, **query), 409, "wrong_offset")
    assert error["detail"]["offset"] == 4
    last = await upload(send, "f", b"456789", offset=4, **query)
    assert last.json()["done"] is True
    assert await box.get(f"{HOME}/f") == b"0123456789"
    assert await box.names() == {b"f"}


async def test_an_upload_that_is_given_up_leaves_nothing(send: Send, box: Box):
    query: dict[str, Any] = {"upload": "0123456789abcdef", "size": 10}
    await upload(send, "f", b"0123", **query)
    gone = await send(
        "DELETE", "/instances/box/files/upload", as_="alice",
        params={"path": "f", "upload": query["upload"]},
    )  # fmt: skip
    assert gone.status_code == 204
    assert await box.names() == set()


async def test_more_than_was_announced_is_refused(send: Send, box: Box):
    told(await upload(send, "f", b"0123", size=3), 422, "invalid_input")
    assert await box.names() == set()


async def test_nothing_is_replaced_unless_that_is_said(send: Send, box: Box):
    await upload(send, "f", b"old", mode="600")
    await upload(send, "g", b"other")
    told(await upload(send, "f", b"new"), 409, "file_exists")
    base = "/instances/box/files"
    told(await send("POST", f"{base}/rename?path=g&to=f", as_="alice"), 409, "file_exists")
    told(await send("POST", f"{base}/folder?path=f", as_="alice"), 409, "file_exists")
    assert await box.get(f"{HOME}/f") == b"old"
    assert (await upload(send, "f", b"new", replace=True)).status_code == 200
    assert await box.get(f"{HOME}/f") == b"new"
    has = (await send("GET", f"{base}/stat?path=f", as_="alice")).json()
    assert has["mode"] == "600"


async def test_an_upload_replaces_a_link_and_not_what_it_leads_to(send: Send, box: Box):
    await box.put("/root/secret", b"kept")
    await box.link(f"{HOME}/l", "/root/secret")
    assert (await upload(send, "l", b"mine", replace=True)).status_code == 200
    assert await box.get(f"{HOME}/l") == b"mine"
    assert await box.get("/root/secret") == b"kept"


# -- folders as archives -----------------------------------------------------------------------


@pytest_asyncio.fixture
async def tree(box: Box) -> Box:
    await box.mkdir(f"{HOME}/d")
    await box.mkdir(f"{HOME}/d/empty")
    await box.put(f"{HOME}/d/a", b"a" * 1000)
    await box.put(f"{HOME}/d/zero", b"")
    await box.put(f"{HOME}/d/".encode() + b"\xffodd\n", b"odd")
    await box.put(f"{HOME}/d/{'x' * 200}", b"long")
    await box.link(f"{HOME}/d/out", "/etc")
    await box.link(f"{HOME}/d/up", "..")
    return box


async def test_a_folder_comes_as_tar(send: Send, tree: Box):
    answer = await download(send, "d")
    assert 'filename="d.tar"' in answer.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.content), errors="surrogateescape") as archive:
        found = {
            member.name: archive.extractfile(member).read() if member.isfile() else member.linkname  # type: ignore[union-attr]
            for member in archive
        }
    assert found == {
        "d": "", "d/empty": "", "d/a": b"a" * 1000, "d/zero": b"", "d/\udcffodd\n": b"odd",
        f"d/{'x' * 200}": b"long", "d/out": "/etc", "d/up": "..",
    }  # fmt: skip


async def test_a_folder_comes_as_zip(send: Send, tree: Box):
    answer = await download(send, "d", params={"archive": "zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    assert found == {
        "d/": b"", "d/empty/": b"", "d/a": b"a" * 1000, "d/zero": b"", "d/\\xffodd\n": b"odd",
        f"d/{'x' * 200}": b"long", "d/out": b"/etc", "d/up": b"..",
    }  # fmt: skip


async def test_deleting_a_tree_follows_no_link(send: Send, tree: Box):
    await tree.put("/root/secret", b"kept")
    await tree.link(f"{HOME}/d/root", "/root")
    gone = await send("DELETE", "/instances/box/files?path=d&recursive=true", as_="alice")
    assert gone.status_code == 204
    assert await tree.names() == set()
    assert await tree.get("/root/secret") == b"kept"


async def test_a_long_folder_is_listed_in_order_and_cut(
    send: Send, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hutch.services.files.MOST_ENTRIES", 5)
    for number in range(23):
        await box.put(f"{HOME}/{number:02}", b"")
    listed = (await send("GET", "/instances/box/files", as_="alice")).json()
    assert [each["name"] for each in listed["entries"]] == ["00", "01", "02", "03", "04"]
    assert listed["truncated"] is True


async def test_names_that_are_no_text_can_be_used_as_they_are_told(send: Send, box: Box):
    await box.put(f"{HOME}/".encode() + b"\xff\n;$(id)", b"odd")
    [entry] = (await send("GET", "/instances/box/files", as_="alice")).json()["entries"]
    assert entry["name"] == "\ufffd\n;$(id)"
    url = f"/instances/box/files/content?path={entry['encoded']}"
    answer = await send("GET", url, as_="alice")
    assert answer.content == b"odd"
    assert "\n" not in answer.headers["content-disposition"]
    assert (
        await send("DELETE", f"/instances/box/files?path={entry['encoded']}", as_="alice")
    ).status_code == 204


# -- abuse -------------------------------------------------------------------------------------

_METHODS = [
    ("GET", ""), ("GET", "/stat"), ("GET", "/content"), ("PUT", "/content"), ("GET", "/upload"),
    ("DELETE", "/upload"), ("POST", "/folder"), ("POST", "/rename"), ("DELETE", ""),
]  # fmt: skip


@pytest.mark.parametrize(("method", "route"), _METHODS)
@pytest.mark.parametrize(
    "path",
    ["..", "../bob", "/home/alice/../../etc/passwd", "a/../b", "%2e%2e/x", "/.."],
)
async def test_ways_up_are_refused(
    send: Send, box: Box, context: Context, method: str, route: str, path: str
):
    url = f"/instances/box/files{route}?path={path}" + ("&to=/x" if route == "/rename" else "")
    told(await send(method, url, as_="alice"), 422, "invalid_path")
    assert await events_of(context) == []


@pytest.mark.parametrize(("method", "route"), _METHODS)
async def test_nul_is_refused(send: Send, box: Box, method: str, route: str):
    answer = await send(method, f"/instances/box/files{route}?path=a%00b", as_="alice")
    told(answer, 422, "invalid_input")


@pytest.mark.parametrize("target", ["/", "/proc", "/sys", "/dev", "//", "/./"])
async def test_what_the_machine_needs_cannot_go(send: Send, box: Box, target: str):
    base = "/instances/box/files"
    told(
        await send("DELETE", f"{base}?path={target}&recursive=true", as_="alice"),
        422, "invalid_path",
    )  # fmt: skip
    told(
        await send("POST", f"{base}/rename?path={target}&to=/tmp/x", as_="alice"),
        422, "invalid_path",
    )  # fmt: skip


async def test_a_link_out_of_the_instance_leads_nowhere(send: Send, box: Box, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("the node's own")
    await box.link(f"{HOME}/l", str(secret))
    await box.link(f"{HOME}/up", "../../../../../../.." + str(tmp_path))
    for path in ("l", "up/secret", "up"):
        told(await download(send, path), 404, "not_found")
    told(await upload(send, "up/new", b"x"), 404, "not_found")
    assert [each.name for each in tmp_path.iterdir() if each.name == "new"] == []


async def test_what_is_not_there_and_what_is_of_another_kind(send: Send, box: Box):
    await upload(send, "f", b"x")
    base = "/instances/box/files"
    told(await download(send, "nothing"), 404, "not_found")
    told(await send("GET", f"{base}?path=nothing", as_="alice"), 404, "not_found")
    told(await send("GET", f"{base}?path=f", as_="alice"), 409, "wrong_file_type")
    told(await upload(send, "f/below", b""), 409, "wrong_file_type")
    told(await upload(send, "nothing/below", b""), 404, "not_found")
    told(await upload(send, "/etc", b""), 409, "wrong_file_type")
    told(await upload(send, "/", b""), 409, "wrong_file_type")
    told(await upload(send, "y" * 256, b""), 409, "file_refused")
    told(await upload(send, "f", b"", upload="../../etc"), 422, "invalid_input")


async def test_a_full_disk_leaves_nothing_half_written(send: Send, box: Box):
    await upload(send, "f", b"old")

    async def endless() -> AsyncIterator[bytes]:
        for _ in itertools.count():
            yield bytes(1024 * 1024)

    error = told(
        await upload(send, "f", endless(), replace=True, upload="0123456789"), 409, "disk_full"
    )
    assert error["detail"]["path"] == f"{HOME}/f", "of the hidden part nobody has heard"
    assert await box.names() == {b"f"}
    assert await box.get(f"{HOME}/f") == b"old"


async def test_a_file_that_changes_while_it_is_sent_is_cut_off(
    send: Send, box: Box, lab: Lab, context: Context
):
    await upload(send, "f", bytes(3 * 1024 * 1024))
    came = 0

    async def read_slowly() -> None:
        nonlocal came
        async with downloads.send(context, lab.actors["alice"], "box", b"f") as sent:
            async for piece in sent.pieces:
                if not came:
                    await box.engine.exec(box.name, ["tee", f"{HOME}/f"], stdin=b"short")
                came += len(piece)

    with pytest.raises(FileChangedError):
        await read_slowly()
    assert 0 < came < 3 * 1024 * 1024


@pytest.mark.parametrize(
    "state", [InstanceState.CREATING, InstanceState.STARTING, InstanceState.RESTORING]
)
async def test_an_instance_that_is_being_changed_has_no_files(
    send: Send, box: Box, state: InstanceState
):
    await box.set_state(state)
    told(await download(send, "f"), 409, "wrong_state")


async def test_nobody_has_too_much_under_way(send: Send, box: Box, lab: Lab, context: Context):
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(context.transfers.take(lab.actors["alice"].user_id))
        told(await download(send, "f"), 429, "too_many_requests")


# -- who may -----------------------------------------------------------------------------------


async def test_who_may_log_in_has_the_files_and_who_may_look_has_not(
    send: Send, box: Box, lab: Lab, context: Context
):
    await upload(send, "f", b"x")
    told(await download(send, "f", as_="bob"), 404, "not_found")
    await shares.add(context, lab.actors["alice"], "box", "bob", read_only_view=True)
    told(await download(send, "f", as_="bob"), 403, "forbidden")
    told(await upload(send, "g", b"x", as_="bob"), 403, "forbidden")
    await shares.add(context, lab.actors["alice"], "box", "bob")
    assert (await download(send, "f", as_="bob")).content == b"x"
    assert (await upload(send, "g", b"x", as_="bob")).status_code == 200
    await shares.remove(context, lab.actors["alice"], "box", "bob")
    told(await download(send, "f", as_="bob"), 404, "not_found")


async def test_a_reading_token_reads_no_disk(send: Send, box: Box):
    told(await download(send, "f", as_="reader"), 403, "forbidden")


@pytest.mark.parametrize("how", ["token", "person", "share", "state"])
async def test_what_is_under_way_ends_with_the_right_to_it(
    send: Send, box: Box, lab: Lab, context: Context, how: str
):
    alice, ada = lab.actors["alice"], lab.actors["ada"]
    await shares.add(context, alice, "box", "bob")
    began = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"first"
        began.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(upload(send, "f", slowly(), as_="bob"))
    await began.wait()
    if how == "token":
        for token in await tokens.list_all(context, lab.actors["bob"]):
            await tokens.revoke(context, lab.actors["bob"], token.id)
    elif how == "person":
        await users.disable(context, ada, "bob")
    elif how == "share":
        await shares.remove(context, alice, "box", "bob")
    else:
        await services.stop(context, alice, "box")
    async with asyncio.timeout(10):
        answer = await sending
    expected = {"token": 401, "person": 401, "share": 404, "state": 409}
    assert answer.status_code == expected[how], answer.text
    assert await box.names() == set()
