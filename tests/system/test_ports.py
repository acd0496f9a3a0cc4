"""Ports of the node that lead to real programs in a real instance."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import update

from hutch.store.db import Database
from hutch.store.tables import ports
from tests.engine.incus_fixtures import node_address
from tests.system.site import Person, Site

pytestmark = pytest.mark.incus

SERVERS = """
import socket, threading
def serve(host, port):
    server = socket.create_server((host, port))
    while True:
        connection, peer = server.accept()
        connection.sendall(f"{port} {peer[0]}".encode())
        connection.close()
def answer(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", port))
        while True:
            content, peer = udp.recvfrom(65535)
            udp.sendto(content[::-1], peer)
for each in (("0.0.0.0", 8000), ("127.0.0.1", 8001)):
    threading.Thread(target=serve, args=each).start()
answer(8002)
"""


async def says(host: str, port: int) -> str | None:
    """What a TCP server says who greets; None when nobody is there."""
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(host, port)
            content = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return None
    return content.decode() or None


def echoes(host: str, port: int) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(2)
        udp.sendto(b"abc", (host, port))
        try:
            return udp.recv(100)
        except OSError:
            return None


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    """A running machine of alice's in which servers listen, also after it has restarted."""
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    script = (
        f"cat >/opt/servers.py <<'END'\n{SERVERS}\nEND\n"
        "cat >/etc/systemd/system/servers.service <<'END'\n"
        "[Service]\nExecStart=/usr/bin/python3 /opt/servers.py\nRestart=always\nRestartSec=0.2\n"
        "[Install]\nWantedBy=multi-user.target\nEND\n"
        "systemctl enable --now servers.service"
    )
    await alice.ok("exec", "box", "--root", "--", "sh", "-c", script)
    return "box"


async def added(alice: Person, port: int, *options: str) -> dict[str, Any]:
    made = (await alice.ok("port", "add", "box", str(port), *options, "--json")).json()
    return made["port"]


async def test_a_port_leads_to_the_server_inside_over_everything_that_happens(
    site: Site, alice: Person, box: str
) -> None:
    port = await added(alice, 8000)
    here = node_address()
    assert (port["host"], port["host_port"]) == (here, site.port_first)
    assert (await says(here, port["host_port"]) or "").startswith("8000 ")
    assert await says("127.0.0.1", port["host_port"]) is None
    await alice.ok("restart", box)
    async with asyncio.timeout(20):
        while await says(here, port["host_port"]) is None:
            await asyncio.sleep(0.1)
    await alice.ok("snapshot", "create", box, "one")
    await alice.ok("snapshot", "restore", box, "one", "--yes")
    async with asyncio.timeout(20):
        while await says(here, port["host_port"]) is None:
            await asyncio.sleep(0.1)
    await site.kill()
    await site.start()
    assert await says(here, port["host_port"]) is not None
    await alice.ok("port", "remove", box, "8000")
    assert await says(here, port["host_port"]) is None


async def test_a_local_port_reaches_what_listens_on_loopback_inside_and_from_the_node_alone(
    alice: Person, box: str
) -> None:
    port = await added(alice, 8001, "--local")
    assert port["host"] == "127.0.0.1"
    assert await says("127.0.0.1", port["host_port"]) == "8001 127.0.0.1"
    assert await says(node_address(), port["host_port"]) is None
    await alice.ok("port", "remove", box, "8001")
    assert await says("127.0.0.1", port["host_port"]) is None


@pytest.mark.parametrize("local", [False, True])
async def test_udp_is_led_there_and_back(alice: Person, box: str, local: bool) -> None:
    options = ["--protocol", "udp", *(["--local"] if local else [])]
    port = await added(alice, 8002, *options)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(echoes, port["host"], port["host_port"]) != b"cba":
            await asyncio.sleep(0.1)
    await alice.ok("port", "remove", box, "8002")
    assert await asyncio.to_thread(echoes, port["host"], port["host_port"]) is None


async def test_a_port_at_which_the_node_listens_is_left_to_it(
    site: Site, alice: Person, box: str
) -> None:
    first = site.port_first
    with socket.create_server(("127.0.0.1", first)):
        port = await added(alice, 8000)
        assert port["host_port"] == first + 1
        refused = await alice.hutch("port", "add", box, "8001", "--host-port", str(first))
        assert refused.code == 5
    await alice.ok("port", "remove", box, "8000")


async def let_it_end_soon(site: Site, port_id: str) -> None:
    """A minute is the shortest span that people can ask for: leave a second of it."""
    db = Database(site.database_url)
    async with db.write() as session:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        await session.execute(update(ports).where(ports.c.id == port_id).values(until=soon))
    await db.close()


async def test_a_port_goes_by_itself_and_what_was_taken_by_hand_is_mended(
    site: Site, alice: Person, box: str
) -> None:
    port = await added(alice, 8000)
    (name,) = await site.engine_names()
    device = f"forward-port-{port['id']}"
    await site.incus_command("config", "device", "remove", name, device)
    async with asyncio.timeout(15):
        while (await alice.show(box))["drift"] is None:
            await asyncio.sleep(0.1)
    assert await says(node_address(), port["host_port"]) is None
    await alice.ok("start", box)
    assert await says(node_address(), port["host_port"]) is not None
    assert (await alice.show(box))["drift"] is None
    await alice.ok("port", "set", box, "8000", "--for", "1m")
    await let_it_end_soon(site, port["id"])
    async with asyncio.timeout(90):
        while await says(node_address(), port["host_port"]) is not None:
            await asyncio.sleep(0.5)
    assert (await alice.ok("port", "list", "--json")).json() == []
