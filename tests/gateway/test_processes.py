"""Gateways that share a port, hand it over, and end."""

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator

import pytest_asyncio

from hutch.domain.instances import Instance
from tests.gateway.house import HUTCH, House, Resident, Running
from tests.system.site import run


@pytest_asyncio.fixture
async def old(house: House) -> AsyncIterator[Running]:
    started = await house.gateway()
    yield started
    await started.stop()


async def opened(who: Resident, gateway: Running, box: Instance) -> Process:
    """A session that is open: `cat` has answered."""
    process = await asyncio.create_subprocess_exec(
        "ssh", *who.through(gateway), f"{who.name}@{box.name}", "cat",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await answers(process)
    return process


async def answers(process: Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"ping\n")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ping\n"


async def leave(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


def greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(64)


def _greetings(port: int, times: int) -> list[bytes]:
    return [greeting(port) for _ in range(times)]


async def refuses(port: int) -> None:
    """Wait until nothing listens at a port any more."""
    async with asyncio.timeout(20):
        while True:
            try:
                await asyncio.to_thread(greeting, port)
            except ConnectionRefusedError:
                return
            await asyncio.sleep(0.05)


async def test_a_new_version_takes_over_while_old_sessions_run_on_to_their_end(
    house: House, old: Running, alice: Resident, box: Instance
) -> None:
    before = await opened(alice, old, box)
    new = await house.gateway(port=old.port)
    coming = [asyncio.create_task(asyncio.to_thread(_greetings, old.port, 250)) for _ in range(2)]
    old.signal(signal.SIGTERM)
    for _ in range(5):
        assert (await alice.ssh(new, "box", "echo in")).out == "in\n"
    # Not one of all who came meanwhile, again and again, was turned away.
    assert {each for seen in coming for each in await seen} == {b"SSH-2.0-hutch\r\n"}
    await answers(before)
    assert old.process.returncode is None
    after = await opened(alice, new, box)
    await leave(before)
    assert await old.ended() == 0
    await answers(after)
    await leave(after)


async def test_it_can_also_end_at_once_and_leave_its_sessions_running(
    house: House, old: Running, alice: Resident, box: Instance
) -> None:
    session = await opened(alice, old, box)
    (worker,) = await old.workers()
    old.signal(signal.SIGHUP)
    assert await old.ended() == 0
    await refuses(old.port)
    await answers(session)
    await leave(session)
    await _gone(worker)


async def test_a_second_signal_ends_the_sessions_too(
    old: Running, alice: Resident, box: Instance
) -> None:
    session = await opened(alice, old, box)
    old.signal(signal.SIGTERM)
    await refuses(old.port)
    await answers(session)
    old.signal(signal.SIGTERM)
    assert await old.ended() == 0
    assert await session.wait() == 255


async def test_an_interrupt_ends_everything_at_once(
    old: Running, alice: Resident, box: Instance
) -> None:
    session = await opened(alice, old, box)
    old.signal(signal.SIGINT)
    assert await old.ended() == 0
    assert await session.wait() == 255


async def test_a_worker_that_dies_is_replaced(old: Running, alice: Resident, box: Instance) -> None:
    (worker,) = await old.workers()
    os.kill(worker, signal.SIGKILL)
    async with asyncio.timeout(30):
        while (await alice.ssh(old, "box", "true")).code != 0:
            await asyncio.sleep(0.1)
    assert await old.workers() != [worker]


async def test_who_loses_their_starter_accept_nothing_more(
    old: Running, alice: Resident, box: Instance
) -> None:
    session = await opened(alice, old, box)
    (worker,) = await old.workers()
    old.signal(signal.SIGKILL)
    await old.ended()
    await refuses(old.port)
    await answers(session)
    await leave(session)
    await _gone(worker)


async def _gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while (await run("ps", "-o", "stat=", "-p", str(pid))).out.strip()[:1] not in {"", "Z"}:
            await asyncio.sleep(0.05)


async def test_several_processes_share_the_work(
    house: House, alice: Resident, box: Instance
) -> None:
    gateway = await house.gateway(gateway_processes=3)
    async with asyncio.timeout(30):
        while len(await gateway.workers()) < 3:
            await asyncio.sleep(0.05)
    ran = await asyncio.gather(*(alice.ssh(gateway, "box", "echo in") for _ in range(12)))
    assert [each.out for each in ran] == ["in\n"] * 12
    await gateway.stop()


async def test_several_processes_keep_a_persons_limit_together(
    house: House, alice: Resident, box: Instance
) -> None:
    gateway = await house.gateway(gateway_processes=3, gateway_connections_per_person=4)
    async with asyncio.timeout(30):
        while len(await gateway.workers()) < 3:
            await asyncio.sleep(0.05)
    sessions = [await opened(alice, gateway, box) for _ in range(4)]
    for _ in range(6):
        ran = await alice.ssh(gateway, "box", "true")
        assert "You have 4 connections to this gateway, and may have 4." in ran.err
    # A process that dies takes its share of them along.
    for pid in await gateway.workers():
        os.kill(pid, signal.SIGKILL)
    for each in sessions:
        await each.wait()
    async with asyncio.timeout(30):
        while (await alice.ssh(gateway, "box", "true")).code != 0:
            await asyncio.sleep(0.1)
    sessions = [await opened(alice, gateway, box) for _ in range(3)]
    for each in sessions:
        await leave(each)
    await gateway.stop()


async def test_a_port_that_somebody_else_has_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = await run(*HUTCH, "gateway", "--host", "127.0.0.1", "--port", str(port))
    assert ran.code == 6
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ran.err
