"""What every engine promises of a terminal in a container. `test_terminals.py` runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from hutch.engine.base import Engine
from hutch.engine.terminals import EngineTerminal
from hutch.errors import EngineError, EngineNotFoundError
from tests.engine.contract import Site

FLOOD = b"flood() { while :; do echo the quick brown fox jumps over the lazy dog; done; }\r"
"""What a simulated shell knows by itself."""
_BASH = "PS1='$ ' exec bash --norc -i"
_SHELL = ["runuser", "-l", "nobody", "-s", "/bin/bash", "--session-command", _BASH]
"""A person's shell as hutch starts it, which is not the process that the engine knows."""
_FOR_LONG = b"sleep 4711\r"
_PATIENCE = 20.0


async def until(terminal: EngineTerminal, text: bytes) -> bytes:
    """What is printed up to where `text` is, and with it."""
    came = b""
    async with asyncio.timeout(_PATIENCE):
        while text not in came:
            piece = await terminal.read()
            assert piece, came
            came += piece
    return came


async def left_in(engine: Engine, name: str) -> bool:
    """Whether what a shell was told to run is still there."""
    return (await engine.exec(name, ["pgrep", "-f", "^(sleep 4711|bash --norc)"])).code == 0


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
async def terminal(engine: Engine, running: str) -> AsyncIterator[EngineTerminal]:
    opened = engine.terminal(
        running, ["sh"], environment={"TERM": "xterm", "PS1": "$ "}, columns=91, rows=27
    )
    async with opened as found:
        await until(found, b"$ ")
        yield found


class TestTerminals:
    async def test_echo_what_is_typed_and_print_what_is_said(self, terminal: EngineTerminal):
        await terminal.write(b"echo he''llo\r")
        came = await until(terminal, b"hello\r\n")
        assert b"echo he''llo" in came

    async def test_are_as_large_as_asked_and_grow(self, terminal: EngineTerminal):
        await terminal.write(b"stty size\r")
        await until(terminal, b"27 91")
        await terminal.resize(132, 50)
        async with asyncio.timeout(_PATIENCE):
            # The program hears of it a moment later.
            while True:
                await terminal.write(b"stty size\r")
                if b"50 132" in await until(terminal, b"$ "):
                    return

    async def test_carry_every_character(self, terminal: EngineTerminal):
        await terminal.write("echo 'grüße 你好'\r".encode())
        await until(terminal, "\r\ngrüße 你好\r\n".encode())

    async def test_end_with_their_program(self, terminal: EngineTerminal):
        await terminal.write(b"exit\r")
        async with asyncio.timeout(_PATIENCE):
            while await terminal.read():
                pass
        assert await terminal.read() == b""
        await terminal.write(b"to nobody\r")
        await terminal.resize(80, 24)

    async def test_hold_a_program_that_prints_without_end_until_it_is_read(
        self, terminal: EngineTerminal
    ):
        await terminal.write(FLOOD)
        await until(terminal, b"$ ")
        await terminal.write(b"flood\r")
        await until(terminal, b"lazy dog\r\nthe quick")
        await terminal.write(b"\x03")
        await until(terminal, b"$ ")

    async def test_of_a_program_that_ignores_nothing_end_with_the_block(
        self, engine: Engine, running: str
    ):
        async with engine.terminal(
            running, ["sh"], environment={"PS1": "$ "}, columns=80, rows=24
        ) as first:
            await until(first, b"$ ")
        async with engine.terminal(
            running, ["sh"], environment={"PS1": "$ "}, columns=80, rows=24
        ) as second:
            await until(second, b"$ ")

    @pytest.mark.parametrize("ends", ["the block", "the shell", "an error"])
    async def test_leave_nothing_behind(self, engine: Engine, site: Site, running: str, ends: str):
        if site.leaves_shells and ends != "the shell":
            pytest.skip(site.leaves_shells)
        before = set(await site.operations())
        with suppress(ZeroDivisionError):
            async with engine.terminal(
                running, _SHELL, environment={"PS1": "$ "}, columns=80, rows=24
            ) as found:
                await until(found, b"$ ")
                if ends == "the shell":
                    await found.write(b"exit\r")
                    while await found.read():
                        pass
                else:
                    await found.write(_FOR_LONG)
                    await until(found, b"sleep 4711\r\n")
                if ends == "an error":
                    raise ZeroDivisionError
        async with asyncio.timeout(_PATIENCE):
            while set(await site.operations()) - before or await left_in(engine, running):
                await asyncio.sleep(0.05)

    async def test_in_a_stopped_or_absent_one_are_refused(self, engine: Engine, site: Site):
        spec = site.spec()
        await engine.create(spec)
        try:
            for name, error in ((spec.name, EngineError), ("hutch-00000000", EngineNotFoundError)):
                with pytest.raises(error):
                    async with engine.terminal(name, ["sh"], environment={}, columns=80, rows=24):
                        pass
        finally:
            await engine.delete(spec.name)
