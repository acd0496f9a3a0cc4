"""What every engine promises of connections into a container. `test_streams.py` runs it."""

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hutch.domain.sizes import MiB
from hutch.engine.base import Engine
from hutch.engine.simulated import SimulatedEngine
from hutch.engine.streams import EngineStream
from hutch.errors import EngineError, EngineNotFoundError, EnginePortClosedError
from tests.engine import listener
from tests.engine.contract import Site

PORT, CLOSED = 7000, 7001
SIZE = 20 * MiB
_PATIENCE = 30.0


@pytest.fixture
def engine(site: Site) -> Engine:
    return site.engine


@pytest_asyncio.fixture(scope="module")
async def running(site: Site) -> AsyncIterator[str]:
    """A container in which the listener listens."""
    spec = site.spec()
    await site.engine.create(spec, start=True)
    await listen(site.engine, spec.name)
    yield spec.name
    await site.engine.delete(spec.name)


async def listen(engine: Engine, name: str) -> None:
    if isinstance(engine, SimulatedEngine):
        engine.listen(name, PORT, listener.Listener().serve)
        return
    script = f"cat >/opt/listener; setsid python3 /opt/listener {PORT} >/dev/null 2>&1 </dev/null &"
    text = Path(listener.__file__).read_bytes()
    ran = await engine.exec(name, ["sh", "-c", script], stdin=text)
    assert ran.code == 0, ran
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                await told(engine, name)
            except EnginePortClosedError:
                await asyncio.sleep(0.05)
            else:
                return


async def everything(stream: EngineStream) -> bytes:
    """What comes until the other side closes."""
    came = bytearray()
    async with asyncio.timeout(_PATIENCE):
        while piece := await stream.read():
            came += piece
    return bytes(came)


async def told(engine: Engine, name: str) -> dict[str, Any]:
    """What the listener says of itself."""
    async with engine.connect(name, PORT) as stream:
        await stream.write(b"tell\n")
        return json.loads(await everything(stream))


async def until_told(engine: Engine, name: str, **wanted: object) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not wanted.items() <= (await told(engine, name)).items():
            await asyncio.sleep(0.05)


def pattern(size: int) -> bytes:
    piece = listener.PIECE
    return (piece * (size // len(piece) + 1))[:size]


class TestStreams:
    async def test_carry_much_out_and_lose_nothing_that_was_sent_before_the_close(
        self, engine: Engine, running: str
    ):
        async with engine.connect(running, PORT) as stream:
            await stream.write(f"give {SIZE}\n".encode())
            assert await everything(stream) == pattern(SIZE)
            assert await stream.read() == b""

    async def test_carry_much_in(self, engine: Engine, running: str):
        async with engine.connect(running, PORT) as stream:
            await stream.write(f"take {SIZE}\n".encode() + pattern(SIZE))
            digest = hashlib.sha256(pattern(SIZE)).hexdigest()
            assert (await everything(stream)).decode() == digest

    async def test_carry_both_ways_at_once(self, engine: Engine, running: str):
        content = pattern(4 * MiB)

        async def send(stream: EngineStream) -> None:
            await stream.write(b"echo\n")
            await stream.write(content)

        async with engine.connect(running, PORT) as stream, asyncio.timeout(_PATIENCE):
            sending = asyncio.create_task(send(stream))
            came = b""
            while len(came) < len(content):
                piece = await stream.read()
                assert piece
                came += piece
            await sending
        assert came == content

    @pytest.mark.parametrize("last", [b"last words", pattern(MiB)], ids=["little", "much"])
    async def test_bring_what_was_written_right_before_the_end(
        self, engine: Engine, running: str, last: bytes
    ):
        async with engine.connect(running, PORT) as stream:
            await stream.write(b"keep\n" + last)
        await until_told(engine, running, kept=hashlib.sha256(last).hexdigest())

    async def test_to_who_is_slow_hold_little(self, engine: Engine, running: str):
        async with engine.connect(running, PORT) as stream:
            tracemalloc.start()
            try:
                await stream.write(f"give {200 * MiB}\n".encode())
                assert await stream.read()
                sent = await _settled(engine, running)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        # The kernel inside holds some for both ends of the connection there.
        assert sent < 40 * MiB
        assert most < 4 * MiB

    async def test_to_who_does_not_take_anything_wait(self, engine: Engine, running: str):
        content = pattern(MiB)
        async with engine.connect(running, PORT) as stream:
            await stream.write(b"hold\n")
            assert await stream.read() == b"held"
            written = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    for _ in range(200):
                        await stream.write(content)
                        written += 1
            assert written < 40

    async def test_are_many_at_once(self, engine: Engine, running: str):
        async def one(number: int) -> None:
            content = b"%d" % number * 1000
            async with engine.connect(running, PORT) as stream:
                await stream.write(f"take {len(content)}\n".encode() + content)
                assert (await everything(stream)).decode() == hashlib.sha256(content).hexdigest()

        await asyncio.gather(*(one(number) for number in range(20)))

    async def test_end_on_the_other_side_with_the_block(self, engine: Engine, running: str):
        async with engine.connect(running, PORT) as stream:
            await stream.write(b"echo\nx")
            assert await stream.read() == b"x"
            await until_told(engine, running, open=1)
        await until_told(engine, running, open=0)

    async def test_that_are_broken_off_end_on_the_other_side(self, engine: Engine, running: str):
        with suppress(ZeroDivisionError):
            async with engine.connect(running, PORT) as stream:
                await stream.write(b"echo\nx")
                assert await stream.read() == b"x"
                await until_told(engine, running, open=1)
                raise ZeroDivisionError
        await until_told(engine, running, open=0)

    async def test_to_a_port_where_nothing_listens_are_refused(self, engine: Engine, running: str):
        with pytest.raises(EnginePortClosedError, match=str(CLOSED)):
            async with engine.connect(running, CLOSED):
                pass

    async def test_into_a_stopped_or_absent_one_are_refused(self, engine: Engine, site: Site):
        spec = site.spec()
        await engine.create(spec)
        try:
            for name, error in ((spec.name, EngineError), ("hutch-00000000", EngineNotFoundError)):
                with pytest.raises(error):
                    async with engine.connect(name, PORT):
                        pass
        finally:
            await engine.delete(spec.name)


async def _settled(engine: Engine, name: str) -> int:
    """How much was sent, once nothing more is."""
    before = -1
    async with asyncio.timeout(_PATIENCE):
        while (now := (await told(engine, name))["sent"]) != before:
            before = now
            await asyncio.sleep(0.3)
    return before
