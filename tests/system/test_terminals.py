"""A terminal in a real instance: whose shell it is, and that it outlives the server."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from tests.system.site import Person, Site

pytestmark = pytest.mark.incus


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    return "box"


@pytest_asyncio.fixture(scope="module")
async def token(alice: Person) -> str:
    return (await alice.ok("token", "create", "t", "--json")).json()["token"]


@asynccontextmanager
async def terminal(site: Site, token: str, **query: object):
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    url = f"{site.url.replace('http', 'ws')}/api/v1/instances/box/terminal?{asked}"
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, compression=None) as socket:
        yield socket, json.loads(await socket.recv())


async def until(socket: ClientConnection, pattern: str) -> re.Match[str]:
    came = b""
    async with asyncio.timeout(30):
        while True:
            message = await socket.recv()
            came += message if isinstance(message, bytes) else b""
            if found := re.search(pattern, came.decode(errors="replace")):
                return found


async def test_it_is_the_persons_own_shell_in_tmux(site: Site, token: str, box: str) -> None:
    async with terminal(site, token, columns=100, rows=30) as (socket, opened):
        assert opened["new"]
        await socket.send(b"echo $(id -un):$PWD:$(tmux display -p '#S')\r")
        found = await until(socket, r"alice:/home/alice:(hutch-[0-9a-f]{32})")
        assert found[1] == f"hutch-{opened['session']}"
        await socket.send("echo gr\u00fc\u00dfe-\u4f60\u597d | tr -d -\r".encode())
        await until(socket, "gr\u00fc\u00dfe\u4f60\u597d")
        await socket.send(json.dumps({"type": "resize", "columns": 133, "rows": 41}))
        await socket.send(b"sleep 1; stty size\r")
        # tmux keeps one line for itself.
        await until(socket, r"40 133")


async def test_the_shell_is_there_still_after_the_server_was_killed(
    site: Site, alice: Person, token: str, box: str
) -> None:
    async with terminal(site, token) as (socket, opened):
        await socket.send(b"kept=$((40 + 2))x\r")
        await socket.send(b"echo is:$kept\r")
        await until(socket, r"is:42x")
        await site.kill()
    await site.start()
    async with terminal(site, token, session=opened["session"]) as (socket, again):
        assert again["session"] == opened["session"]
        await socket.send(b"echo still:$kept\r")
        await until(socket, r"still:42x")


async def test_a_flood_is_ended_by_a_key_and_a_shell_by_its_exit(
    site: Site, token: str, box: str
) -> None:
    async with terminal(site, token, window=65536) as (socket, _):
        await socket.send(b"yes the-quick-brown-fox\r")
        await until(socket, r"the-quick-brown-fox\r?\n?.*the-quick")
        await socket.send(b"\x03")
        await socket.send(json.dumps({"type": "ack", "bytes": 0}))
    async with terminal(site, token) as (socket, _):
        await until(socket, r"\$ ")
        await socket.send(b"exit\r")
        told = [json.loads(message) async for message in socket if isinstance(message, str)]
        assert told[-1] == {"type": "exit"}
        assert socket.close_code == 1000
