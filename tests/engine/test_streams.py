"""Runs the contract of streams over every engine, and what only a real one can show."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import pytest_asyncio

from hutch.engine.base import Engine
from hutch.engine.incus import IncusEngine, streams
from hutch.errors import EngineError, EnginePortClosedError, EngineUnavailableError
from hutch.setup.private import PrivateIncus
from tests.engine.contract import Site
from tests.engine.streams_contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.streams_contract import CLOSED, PORT, listen
from tests.engine.test_contract import simulated_site, site  # noqa: F401 - fixtures

_PATIENCE = 30.0
_HOLDS = """
import asyncio, json, sys
from hutch.engine.incus import IncusEngine
async def main():
    where, name, port = json.loads(sys.argv[1])
    async with IncusEngine(**where).connect(name, port) as stream:
        await stream.write(b"hold\\n")
        assert await stream.read() == b"held"
        print("holds", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What carries nothing ends soon, as a test cannot wait for long."""
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.2)


@pytest_asyncio.fixture(scope="module")
async def machine(incus_site: Site) -> AsyncIterator[str]:
    spec = incus_site.spec()
    await incus_site.engine.create(spec, start=True)
    await listen(incus_site.engine, spec.name)
    yield spec.name
    await incus_site.engine.delete(spec.name)


async def relays(engine: Engine, name: str) -> int:
    """How many of the programs that carry connections run inside."""
    ran = await engine.exec(name, ["sh", "-c", "ps -eo args | grep -c '[p]ython3 -ISE'"])
    return int(ran.stdout)


async def until_no_relay_runs(engine: Engine, name: str) -> None:
    async with asyncio.timeout(_PATIENCE):
        while await relays(engine, name):
            await asyncio.sleep(0.05)


@pytest.mark.incus
async def test_nothing_is_left_inside_when_hutch_is_killed(
    incus: PrivateIncus, incus_engine: IncusEngine, machine: str
) -> None:
    where = {"url": incus.url, "project": incus.project, "pool": incus.pool,
             "network": incus.network}  # fmt: skip
    await until_no_relay_runs(incus_engine, machine)
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDS, json.dumps([where, machine, PORT]),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert killed.stdout is not None
    async with asyncio.timeout(_PATIENCE):
        assert await killed.stdout.readline() == b"holds\n"
    assert await relays(incus_engine, machine) == 1
    os.kill(killed.pid, signal.SIGKILL)
    await killed.wait()
    await until_no_relay_runs(incus_engine, machine)


@pytest.mark.incus
@pytest.mark.parametrize("first", ["hutch", "what listens", "an error"])
async def test_nothing_is_left_inside_whoever_ends_it(
    incus_engine: IncusEngine, machine: str, first: str
) -> None:
    with suppress(ZeroDivisionError):
        async with incus_engine.connect(machine, PORT) as stream:
            give = {"hutch": b"echo\nx", "what listens": b"give 1\n", "an error": b"hold\n"}
            await stream.write(give[first])
            assert await stream.read()
            assert await relays(incus_engine, machine) == 1
            if first == "what listens":
                assert await stream.read() == b""
            if first == "an error":
                raise ZeroDivisionError
    await until_no_relay_runs(incus_engine, machine)


@pytest.mark.incus
async def test_one_program_carries_all_connections_into_a_machine(
    incus_engine: IncusEngine, machine: str
) -> None:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(incus_engine.connect(machine, PORT)) for _ in range(20)
        ]
        for number, stream in enumerate(opened):
            await stream.write(b"echo\n%d" % number)
        for number, stream in enumerate(opened):
            assert await stream.read() == b"%d" % number
        assert await relays(incus_engine, machine) == 1
        with pytest.raises(EnginePortClosedError):
            await stack.enter_async_context(incus_engine.connect(machine, CLOSED))
        await opened[0].write(b"x")
        assert await opened[0].read() == b"x"


@pytest.mark.incus
async def test_when_that_program_is_ended_so_are_its_connections_and_others_can_be_made(
    incus_engine: IncusEngine, machine: str
) -> None:
    async with incus_engine.connect(machine, PORT) as stream, asyncio.timeout(_PATIENCE):
        await stream.write(b"hold\n")
        assert await stream.read() == b"held"
        await incus_engine.exec(machine, ["sh", "-c", "pkill -9 -f '[p]ython3 -ISE'"])
        assert await stream.read() == b""
        await stream.write(b"x" * 5_000_000)
    async with incus_engine.connect(machine, PORT) as stream, asyncio.timeout(_PATIENCE):
        await stream.write(b"echo\nx")
        assert await stream.read() == b"x"


@pytest.mark.incus
async def test_a_machine_that_runs_again_is_reached_again(incus_site: Site) -> None:
    engine, spec = incus_site.engine, incus_site.spec()
    await engine.create(spec, start=True)
    try:
        for _ in range(3):
            await listen(engine, spec.name)
            async with engine.connect(spec.name, PORT) as stream:
                await stream.write(b"echo\nx")
                assert await stream.read() == b"x"
            await engine.stop(spec.name, timeout=0)
            await engine.start(spec.name)
    finally:
        await engine.delete(spec.name)


@pytest.mark.incus
async def test_a_machine_that_stops_ends_its_connections(incus_site: Site) -> None:
    engine, spec = incus_site.engine, incus_site.spec()
    await engine.create(spec, start=True)
    try:
        await listen(engine, spec.name)
        async with engine.connect(spec.name, PORT) as stream:
            await stream.write(b"hold\n")
            assert await stream.read() == b"held"
            await engine.stop(spec.name, timeout=0)
            async with asyncio.timeout(_PATIENCE):
                assert await stream.read() == b""
    finally:
        await engine.delete(spec.name)


@asynccontextmanager
async def another_python(engine: Engine, name: str, script: str = "") -> AsyncIterator[None]:
    """While there is a script in its place, or nothing."""
    await until_no_relay_runs(engine, name)
    move = "mv /usr/bin/python3 /usr/bin/away3"
    if script:
        move += "; cat >/usr/bin/python3; chmod +x /usr/bin/python3"
    await engine.exec(name, ["sh", "-c", move], stdin=f"#!/bin/sh\n{script}\n".encode())
    try:
        yield
    finally:
        await engine.exec(name, ["mv", "-f", "/usr/bin/away3", "/usr/bin/python3"])


@pytest.mark.incus
async def test_an_image_without_python_says_so(incus_engine: IncusEngine, machine: str) -> None:
    async with another_python(incus_engine, machine):
        with pytest.raises(EngineError) as refused:
            async with incus_engine.connect(machine, PORT):
                pass
    assert "python3" in refused.value.hint


async def connected(engine: Engine, name: str, patience: float | None) -> None:
    async with asyncio.timeout(patience), engine.connect(name, PORT):
        pass


def frame(letter: str, number: int, value: int) -> str:
    """As `printf` takes it."""
    octets = number.to_bytes(4, "big") + value.to_bytes(4, "big")
    return letter + "".join(f"\\{octet:03o}" for octet in octets)


@pytest.mark.incus
@pytest.mark.parametrize("script", ["exec sleep 1000", "printf x; exec sleep 1000"])
@pytest.mark.parametrize("waits", [True, False])
async def test_who_does_not_begin_is_not_waited_for_without_end(
    incus_engine: IncusEngine,
    machine: str,
    script: str,
    waits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_START_SECONDS", 1.0 if waits else 1000.0)
    async with another_python(incus_engine, machine, script), asyncio.timeout(_PATIENCE):
        # Nor when whoever asked has gone away.
        with pytest.raises(EngineError if waits else TimeoutError):
            await connected(incus_engine, machine, None if waits else 0.5)
        while (await incus_engine.exec(machine, ["pgrep", "-fx", "sleep 1000"])).code == 0:
            await asyncio.sleep(0.05)


@pytest.mark.incus
async def test_who_never_forgets_is_ended(
    incus_engine: IncusEngine, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MOST_CLOSING", 3)
    monkeypatch.setattr(streams, "IDLE_SECONDS", 1000.0)
    script = "printf +; exec sleep 1000"
    async with another_python(incus_engine, machine, script), asyncio.timeout(_PATIENCE):
        for _ in range(4):
            with suppress(TimeoutError, EngineUnavailableError):
                await connected(incus_engine, machine, 0.2)
        while (await incus_engine.exec(machine, ["pgrep", "-fx", "sleep 1000"])).code == 0:
            await asyncio.sleep(0.05)


@pytest.mark.incus
@pytest.mark.parametrize(
    "said",
    [
        "exec cat /dev/zero",
        f"printf '{frame('D', 7, 5)}'; exec cat /dev/zero",
        f"printf '{frame('R', 1, 2**32 - 1)}'",
        f"printf '{frame('O', 1, 0)}{frame('O', 1, 0)}'",
        f"printf '{frame('O', 1, 0)}{frame('D', 1, 2**32 - 1)}'; exec cat /dev/zero",
        f"printf '{frame('O', 1, 0)}{frame('D', 1, 0)}'",
        f"printf '{frame('O', 1, 0)}{frame('W', 1, 1)}'",
        f"printf '{frame('O', 1, 0)}{frame('C', 1, 0)}'",
        f"printf '{frame('O', 1, 0)}{frame('E', 1, 0)}{frame('E', 1, 0)}'",
    ],
)
async def test_who_answers_nonsense_from_inside_is_cut_off(
    incus_engine: IncusEngine, machine: str, said: str
) -> None:
    script = f"printf +; {said}; exec sleep 1000"
    async with another_python(incus_engine, machine, script), asyncio.timeout(_PATIENCE):
        with suppress(EngineUnavailableError):
            async with incus_engine.connect(machine, PORT) as stream:
                assert await stream.read() == b""
        running = ["pgrep", "-fx", "cat /dev/zero|sleep 1000"]
        while (await incus_engine.exec(machine, running)).code == 0:
            await asyncio.sleep(0.05)
    async with incus_engine.connect(machine, PORT) as stream, asyncio.timeout(_PATIENCE):
        await stream.write(b"echo\nx")
        assert await stream.read() == b"x"
