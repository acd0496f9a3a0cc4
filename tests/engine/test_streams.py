"""Runs the contract of streams over every engine, and what only a real one can show."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from hutch.engine.base import Engine
from hutch.engine.incus import IncusEngine
from hutch.setup.private import PrivateIncus
from tests.engine.contract import Site
from tests.engine.streams_contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.streams_contract import PORT, listen
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
            if first == "what listens":
                await stream.write(b"give 1\n")
                assert await stream.read()
                await until_no_relay_runs(incus_engine, machine)
            else:
                await stream.write(b"echo\nx" if first == "hutch" else b"hold\n")
                assert await stream.read()
                assert await relays(incus_engine, machine) == 1
            if first == "an error":
                raise ZeroDivisionError
    await until_no_relay_runs(incus_engine, machine)


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


@pytest.mark.incus
async def test_an_image_without_python_says_so(incus_engine: IncusEngine, machine: str) -> None:
    from hutch.errors import EngineError

    move = "mv /usr/bin/python3 /usr/bin/away3"
    await incus_engine.exec(machine, ["sh", "-c", move])
    try:
        with pytest.raises(EngineError) as refused:
            async with incus_engine.connect(machine, PORT):
                pass
        assert "python3" in refused.value.hint
    finally:
        await incus_engine.exec(machine, ["sh", "-c", "mv /usr/bin/away3 /usr/bin/python3"])
