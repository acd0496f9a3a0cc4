"""Who does not behave costs others nothing."""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import asyncssh
import pytest
import pytest_asyncio

from hutch.domain.instances import Instance
from hutch.gateway.guest import MOST_KEYS, MOST_LANES
from tests.gateway.house import House, Resident, Running
from tests.system.site import free_port, new_key, run

MB = 1_000_000


@pytest_asyncio.fixture(scope="module")
async def gateway(house: House) -> AsyncIterator[Running]:
    """One of its own: what it counts is counted for nobody else."""
    started = await house.gateway(gateway_failures=8, gateway_connections_per_person=3)
    yield started
    await started.stop()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def silent(port: int, source: str) -> socket.socket:
    """A connection from an address of this machine that says nothing."""
    return socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while data := connection.recv(4096):
            assert data.startswith(b"SSH-2.0-hutch")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("addresses", [1, 250])
async def test_a_thousand_connections_that_say_nothing_hurt_nobody(
    gateway: Running, alice: Resident, box: Instance, many_files: None, addresses: int
) -> None:
    before = await gateway.memory()
    sources = [f"127.7.{addresses % 250}.{1 + number}" for number in range(addresses)]
    crowd = [
        await asyncio.to_thread(silent, gateway.port, sources[number % addresses])
        for number in range(1000)
    ]
    try:
        ran = await alice.ssh(gateway, "box", "echo in")
        assert ran.out == "in\n", ran
        left = sum(is_open(each) for each in crowd)
        assert left == (64 if addresses == 1 else 255), "alice took the place of one"
        assert await gateway.memory() - before < 40 * MB
    finally:
        for each in crowd:
            each.close()


async def test_a_connection_that_does_not_log_in_is_ended(house: House) -> None:
    gateway = await house.gateway(gateway_login_seconds=1)
    connection = await asyncio.to_thread(silent, gateway.port, "127.0.0.1")
    async with asyncio.timeout(20):
        while is_open(connection):
            await asyncio.sleep(0.05)
    await gateway.stop()


async def test_an_address_that_fails_too_often_is_turned_away_with_a_reason(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    stranger = await new_key(house.folder / f"guessing-{alice.name}")
    for _ in range(8):
        ran = await alice.ssh(gateway, "box", "true", key=stranger, BindAddress="127.8.0.1")
        assert "Permission denied" in ran.err
    ran = await alice.ssh(gateway, "box", "true", BindAddress="127.8.0.1")
    assert ran.code == 255
    assert "Too many attempts from 127.8.0.1. Try again in" in ran.err
    assert (await alice.ssh(gateway, "box", "echo in")).out == "in\n", "others are not affected"


async def test_a_client_that_offers_key_after_key_is_told_what_to_do(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    offered: list[str] = []
    for number in range(MOST_KEYS):
        key = await new_key(house.folder / f"{alice.name}-{number}")
        offered += ["-i", str(key)]
    options = alice.options(gateway, BindAddress="127.8.0.2")
    at = options.index(f"IdentityFile={alice.key}")
    ran = await run("ssh", *options[: at - 1], *options[at + 1 :], *offered, "x@127.0.0.1", "true")
    assert f"Your ssh offered {MOST_KEYS} keys, and hutch knows none of them" in ran.err


async def test_a_person_has_so_many_connections_at_most(
    gateway: Running, alice: Resident, bob: Resident, box: Instance
) -> None:
    connections = [await connect(alice, gateway) for _ in range(3)]
    ran = await alice.ssh(gateway, "box", "true")
    assert "You have 3 connections to this gateway, and may have 3." in ran.err
    assert "there is no instance" in (await bob.forward(gateway, "box:22")).err
    connections.pop().abort()
    async with asyncio.timeout(20):
        while (await alice.ssh(gateway, "box", "true")).code != 0:
            await asyncio.sleep(0.1)
    for each in connections:
        each.abort()


async def test_a_connection_has_so_many_channels_at_most(
    gateway: Running, alice: Resident, box: Instance
) -> None:
    connection = await connect(alice, gateway)
    opened = [await connection.open_connection("box", 22) for _ in range(MOST_LANES)]
    with pytest.raises(asyncssh.ChannelOpenError, match=f"{MOST_LANES} channels open"):
        await connection.open_connection("box", 22)
    for _, writer in opened:
        writer.close()
    connection.close()
    await connection.wait_closed()


async def test_a_client_that_never_reads_is_not_read_for(
    house: House, gateway: Running, alice: Resident
) -> None:
    """Its machine sends without end, and it has said that it would take gigabytes."""
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    port = free_port()
    server = await asyncio.start_server(flood, "127.0.0.1", port)
    await house.machine(alice, "fountain", port=port)
    connection = await connect(alice, gateway)
    reader, _ = await connection.open_connection("fountain", 22, window=2**31 - 1)
    await reader.readexactly(1000)
    transport = connection._transport  # pyright: ignore[reportPrivateUsage]
    assert transport is not None
    before = await gateway.memory()
    transport.pause_reading()
    last = -1
    while last != sent:
        last = sent
        await asyncio.sleep(0.5)
    # What is under way fills the buffers of two connections of the system's, and little of ours.
    assert await gateway.memory() - before < 20 * MB
    transport.resume_reading()
    await reader.readexactly(last + MB)
    assert sent > last, "and it goes on when it is read again"
    connection.abort()
    server.close()


async def test_a_machine_that_never_reads_is_not_written_for(
    house: House, gateway: Running, alice: Resident
) -> None:
    over = asyncio.Event()

    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await over.wait()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(deaf, "127.0.0.1", port)
    await house.machine(alice, "wall", port=port)
    connection = await connect(alice, gateway)
    reader, writer = await connection.open_connection("wall", 22)
    await reader.readexactly(5)
    before = await gateway.memory()
    filling = asyncio.create_task(fill(writer))
    await asyncio.sleep(3)
    assert not filling.done()
    assert await gateway.memory() - before < 20 * MB
    filling.cancel()
    over.set()
    connection.abort()
    server.close()


async def test_a_connection_where_nothing_moves_is_ended(
    house: House, alice: Resident, box: Instance
) -> None:
    gateway = await house.gateway(gateway_idle_minutes=0.02)
    connection = await connect(alice, gateway)
    async with asyncio.timeout(20):
        await connection.wait_closed()
    await gateway.stop()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-1.5-old\r\n",
        b"x" * 100_000,
        b"SSH-2.0-x\r\n" + struct.pack(">I", 2**31) + bytes(100),
        b"SSH-2.0-x\r\n" + os.urandom(3000),
        b"SSH-2.0-" + b"y" * 3000 + b"\r\n",
        b"SSH-2.0-\xff\xfe\r\n",
    ],
)
async def test_nonsense_ends_the_connection_alone(
    gateway: Running, alice: Resident, box: Instance, said: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(said)
    async with asyncio.timeout(20):
        await reader.read(-1)
    writer.close()
    assert (await alice.ssh(gateway, "box", "echo in")).out == "in\n"
    assert "Traceback" not in gateway.log.read_text()


async def fill(writer: asyncssh.SSHWriter[bytes]) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def connect(who: Resident, gateway: Running) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", gateway.port, username="x", client_keys=[str(who.key)], known_hosts=None,
        config=None, agent_path=None, keepalive_interval=0,
    )  # fmt: skip
