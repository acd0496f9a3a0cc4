"""Connections that an engine carries, as the proxy uses them."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.api.proxy.inside import Inside, open_stream
from hutch.api.proxy.upstream import Pool
from hutch.domain.limits import Limits
from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import ContainerSpec
from hutch.engine.simulated import SimulatedEngine
from hutch.errors import AppError
from tests.api.apps_site import App
from tests.engine.contract import Site

NAME = "hutch-0000aaaa"
PORT, SOON = 8888, 20.0


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> SimulatedEngine:
    made = SimulatedEngine(tmp_path / "engine.db")
    limits = Limits(cpus=1, memory=GiB, disk=2 * GiB, processes=64)
    await made.create(ContainerSpec(NAME, "base", limits, "10.0.0.20"), start=True)
    return made


@pytest.fixture
def app(engine: SimulatedEngine) -> App:
    made = App()
    engine.listen(NAME, PORT, made._serve)  # pyright: ignore[reportPrivateUsage]
    return made


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    made.close()


@pytest.fixture
def place(engine: SimulatedEngine) -> Inside:
    return Inside(engine, NAME, PORT)


async def get(pool: Pool, place: Inside, target: bytes) -> bytes:
    connection = await pool.take(place)
    connection.begin("GET", target, [])
    assert (await connection.answer()).status == 200
    body = b"".join([piece async for piece in connection.body()])
    pool.give_back(place, connection)
    return body


async def until(app: App, sent: int) -> None:
    async with asyncio.timeout(SOON):
        while app.sent < sent:
            await asyncio.sleep(0.01)


async def test_one_connection_serves_many_requests(app: App, pool: Pool, place: Inside) -> None:
    for _ in range(5):
        assert b'"method": "GET"' in await get(pool, place, b"/echo")
    assert app.connections == 1


async def test_a_large_answer_passes_whole(app: App, pool: Pool, place: Inside) -> None:
    size = 20 * MiB
    body = await get(pool, place, b"/big?n=%d" % size)
    wanted = hashlib.sha256(b"0123456789abcdef" * (size // 16)).digest()
    assert hashlib.sha256(body).digest() == wanted


async def test_an_answer_that_ends_with_its_connection_is_whole(
    app: App, pool: Pool, place: Inside
) -> None:
    assert await get(pool, place, b"/until-close") == b"all of it"


async def test_who_does_not_read_is_waited_for(app: App, pool: Pool, place: Inside) -> None:
    connection = await pool.take(place)
    connection.begin("GET", b"/big?n=%d" % (200 * MiB), [])
    await connection.answer()
    await until(app, MiB // 4)
    before = -1
    async with asyncio.timeout(SOON):
        while app.sent != before:
            before = app.sent
            await asyncio.sleep(0.2)
    assert app.sent < 8 * MiB
    connection.abort()


async def test_a_body_waits_for_an_app_that_does_not_take_it(
    engine: SimulatedEngine, pool: Pool, place: Inside
) -> None:
    async def hold(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    engine.listen(NAME, PORT, hold)
    connection = await pool.take(place)
    connection.begin("POST", b"/", [(b"content-length", b"%d" % (200 * MiB))])
    sent = 0
    try:
        async with asyncio.timeout(1):
            while True:
                await connection.send(bytes(MiB), chunked=False)
                sent += 1
    except TimeoutError:
        pass
    assert sent < 8
    connection.abort()


async def test_what_was_written_before_the_close_arrives(
    engine: SimulatedEngine, place: Inside
) -> None:
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def keep(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        came.set_result(await reader.read(-1))

    engine.listen(NAME, PORT, keep)
    _, writer = await open_stream(place, MiB)
    writer.write(bytes(MiB) + b"last words")
    writer.close()
    assert (await asyncio.wait_for(came, SOON)).endswith(b"last words")
    await asyncio.wait_for(writer.wait_closed(), SOON)


async def test_a_connection_that_is_broken_off_ends_inside(
    engine: SimulatedEngine, place: Inside
) -> None:
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        finally:
            ended.set()

    engine.listen(NAME, PORT, hold)
    reader, writer = await open_stream(place, MiB)
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), SOON)
    assert await asyncio.wait_for(reader.read(), SOON) == b""


async def test_where_nothing_listens_that_is_said(pool: Pool, place: Inside) -> None:
    with pytest.raises(AppError, match="Nothing listens"):
        await pool.take(place)


async def test_an_engine_that_does_not_answer_is_said(
    engine: SimulatedEngine, app: App, pool: Pool, place: Inside
) -> None:
    engine.faults.die()
    with pytest.raises(AppError, match="cannot be reached"):
        await pool.take(place)


_SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.client_address[1]} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", 28888), Handler).serve_forever()
"""


@pytest.mark.incus
async def test_a_real_machine_is_reached_while_nothing_listens_for_it_on_the_node(
    incus_site: Site, pool: Pool
) -> None:
    engine, spec = incus_site.engine, incus_site.spec()
    await engine.create(spec, start=True)
    try:
        script = "cat >/opt/web; setsid python3 /opt/web >/dev/null 2>&1 </dev/null &"
        await engine.exec(spec.name, ["sh", "-c", script], stdin=_SERVER.encode())
        place = Inside(engine, spec.name, 28888)
        async with asyncio.timeout(SOON):
            while True:
                try:
                    first = await get(pool, place, b"/one")
                    break
                except AppError:
                    await asyncio.sleep(0.1)
        second = await get(pool, place, b"/two")
        # By one connection, which is kept.
        assert first.split()[0] == second.split()[0]
        assert second.endswith(b" /two")
        listening = await asyncio.to_thread(
            subprocess.run, ["ss", "-Hltn"], capture_output=True, check=True, text=True
        )
        assert ":28888 " not in listening.stdout
    finally:
        await engine.delete(spec.name)
