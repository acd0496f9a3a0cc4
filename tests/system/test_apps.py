"""Web applications in real instances, through a real server, as a browser and a program ask."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.system.site import Person, Site

pytestmark = pytest.mark.incus

GiB = 1024**3
SOON = 20.0
APP = Path(__file__).with_name("inside_app.py")


class _Fields(HTMLParser):
    """The hidden fields of a page's form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "input" and known.get("type") == "hidden":
            self.found[str(known["name"])] = known.get("value") or ""


@asynccontextmanager
async def browser(site: Site, name: str) -> AsyncGenerator[httpx.AsyncClient]:
    """Somebody's browser, signed in by the page's own form."""
    accept = {"Accept": "text/html"}
    async with httpx.AsyncClient(base_url=site.url, timeout=60, headers=accept) as client:
        page = await client.get("/login?next=/apps/")
        fields = {**_Fields(page.text).found, "name": name, "password": site.passwords[name]}
        signed = await client.post("/login", data=fields)
        assert (signed.status_code, signed.headers["location"]) == (303, "/apps/")
        yield client


async def serving(person: Person, name: str, *listening: str) -> None:
    """A machine in which the application listens at ports, each `8000` or `8001 127.0.0.1`."""
    await person.ok("create", name, "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    script = "cat >/opt/app.py"
    await person.ok("exec", name, "--root", "--", "sh", "-c", script, stdin=APP.read_bytes())
    for each in listening:
        unit = f"app-{each.split()[0]}"
        lines = f"[Service]\\nExecStart=/usr/bin/python3 /opt/app.py {each}\\nRestart=always\\n"
        lines += "RestartSec=0.2\\n[Install]\\nWantedBy=multi-user.target\\n"
        await person.ok(
            "exec", name, "--root", "--", "sh", "-c",
            f"printf '{lines}' >/etc/systemd/system/{unit}.service;"
            f" systemctl enable --now {unit}.service",
        )  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    """A machine of alice's with an app at every address, and two at loopback alone."""
    await serving(alice, "box", "8000", "8001 127.0.0.1", "8002 127.0.0.1")
    await alice.ok("port", "add", "box", "8000")
    await alice.ok("port", "add", "box", "8001", "--local")
    await alice.ok("port", "add", "box", "8002", "--web-only")
    return "box"


@pytest_asyncio.fixture
async def mine(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(site, "alice") as client:
        yield client


async def answers(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """The answer of an app that may be starting."""
    async with asyncio.timeout(SOON):
        while (got := await client.get(path)).status_code == 502:
            await asyncio.sleep(0.1)
    return got


@pytest.mark.parametrize("port", [8000, 8001, 8002])
async def test_an_app_is_opened_behind_a_sign_in(
    site: Site, mine: httpx.AsyncClient, box: str, port: int
) -> None:
    got = await answers(mine, f"/apps/{box}/{port}/hello")
    assert (got.status_code, got.text) == (200, "/hello alice")
    async with httpx.AsyncClient(base_url=site.url) as stranger:
        assert (await stranger.get(f"/apps/{box}/{port}/hello")).status_code == 401


@pytest.mark.parametrize("port", [8001, 8002])
async def test_a_websocket_passes(site: Site, mine: httpx.AsyncClient, box: str, port: int) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in mine.cookies.items())
    url = f"{site.url.replace('http', 'ws')}/apps/{box}/{port}/"
    async with connect(
        url, origin=site.url, additional_headers={"Cookie": cookie}, compression=None
    ) as socket:
        for message in ("hello", "x" * 5000, b"\0\1\2"):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), SOON) == message


def resident(site: Site) -> int:
    """Bytes of memory that the server has."""
    assert site.server is not None
    for line in Path(f"/proc/{site.server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.parametrize("port", [8000, 8002])
async def test_a_gigabyte_passes_both_ways_without_being_held(
    site: Site, mine: httpx.AsyncClient, box: str, port: int
) -> None:
    before, most, size = resident(site), 0, 0
    async with mine.stream("GET", f"/apps/{box}/{port}/bytes/{GiB}") as got:
        assert got.status_code == 200
        async for piece in got.aiter_raw():
            size += len(piece)
            most = max(most, resident(site))
    assert size == GiB
    digest = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        nonlocal most
        piece = bytes(range(256)) * 4096
        for _ in range(GiB // len(piece)):
            digest.update(piece)
            most = max(most, resident(site))
            yield piece

    headers = {"Content-Length": str(GiB)}
    sent = await mine.put(f"/apps/{box}/{port}/", content=body(), headers=headers)
    assert sent.text == digest.hexdigest()
    assert most - before < 64 * 1024**2


async def test_events_come_as_they_happen(mine: httpx.AsyncClient, box: str) -> None:
    async with mine.stream("GET", f"/apps/{box}/8001/events") as got, asyncio.timeout(SOON):
        lines = got.aiter_lines()
        seen = [line async for line in _first(lines, 10)]
    assert [line for line in seen if line] == [f"data: {number}" for number in range(5)]


async def _first(lines: AsyncIterator[str], many: int) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        many -= 1
        if not many:
            return


async def test_who_may_not_finds_nothing_and_who_is_let_in_is_asked_first(
    site: Site, alice: Person, box: str
) -> None:
    await site.person("bob", key=False)
    async with browser(site, "bob") as theirs:
        path = f"/apps/{box}.alice/8000/hello"
        assert (await theirs.get(path)).status_code == 404
        await alice.ok("port", "set", box, "8000", "--open-to", "bob")
        async with asyncio.timeout(SOON):
            while (asked := await theirs.get(path)).status_code == 404:
                await asyncio.sleep(0.1)
        assert asked.status_code == 403
        gone_on = await theirs.post("/apps/-/trust", data=_Fields(asked.text).found)
        assert gone_on.headers["location"] == path
        assert (await theirs.get(path)).text == "/hello bob"
        assert (await theirs.get(f"/apps/{box}.alice/8001/")).status_code == 404
        await alice.ok("port", "set", box, "8000", "--open-to", "me")
        async with asyncio.timeout(SOON):
            while (await theirs.get(path)).status_code != 404:
                await asyncio.sleep(0.1)


async def test_another_instance_reaches_the_app_in_no_way(
    site: Site, alice: Person, box: str
) -> None:
    bob = await site.person("bob", key=False)
    await bob.ok("create", "theirs", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    (ours,) = [each for each in await site.incus_list() if _has(each, "8000")]
    addresses = [each["address"] for each in ours["state"]["network"]["eth0"]["addresses"]]
    for address in addresses:
        probe = f"import socket; socket.create_connection(({address!r}, 8000), timeout=3)"
        ran = await bob.hutch("exec", "theirs", "--", "python3", "-c", probe)
        assert ran.code != 0, address
    local = [each for each in json.loads((await alice.ok("port", "list", "--json")).out)
             if each["reach"] == "node"]  # fmt: skip
    for gateway in (str(site.incus.subnet[1]), "127.0.0.1"):
        probe = (
            f"import socket; socket.create_connection(({gateway!r}, {local[0]['host_port']}), 3)"
        )
        assert (await bob.hutch("exec", "theirs", "--", "python3", "-c", probe)).code != 0
    await bob.ok("delete", "theirs", "--yes")


async def test_nothing_listens_for_one_that_is_web_only(
    site: Site, mine: httpx.AsyncClient, box: str
) -> None:
    (ours,) = [each for each in await site.incus_list() if _has(each, "8001")]
    assert not _has(ours, "8002")
    # Nor do connections that pass leave anything that does.
    assert (await answers(mine, f"/apps/{box}/8002/hello")).status_code == 200
    (again,) = [each for each in await site.incus_list() if _has(each, "8001")]
    assert again["devices"] == ours["devices"]


def _has(container: dict[str, dict[str, dict[str, str]]], port: str) -> bool:
    devices = container["devices"].values()
    return any(each.get("connect", "").endswith(f":{port}") for each in devices)


async def test_a_stopped_instance_says_so_and_is_back_after_a_start(
    alice: Person, mine: httpx.AsyncClient, box: str
) -> None:
    await alice.ok("stop", box)
    async with asyncio.timeout(SOON):
        while (got := await mine.get(f"/apps/{box}/8001/x")).status_code != 409:
            await asyncio.sleep(0.1)
    assert "hutch start box" in got.text
    await alice.ok("start", box)
    async with asyncio.timeout(SOON):
        while (got := await mine.get(f"/apps/{box}/8001/x")).status_code != 200:
            await asyncio.sleep(0.1)
    assert got.text == "/x alice"
