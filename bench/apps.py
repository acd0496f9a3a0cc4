"""Web applications through hutch: against going straight to them, and against nginx in between.

The app, the load and what stands between them share the machine's processors, so each costs the
others something. The node is a simulated one; what is proxied is real.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import connect

from bench import databases, machine
from bench.figures import Measure, Report, median
from bench.server import Server, free_port
from hutch.api.app import open_context
from hutch.client.client import Client
from hutch.domain.nodes import EngineKind
from hutch.domain.people import SYSTEM
from hutch.services import images, nodes
from hutch.settings import Settings

CONNECTIONS = 16
REQUESTS = 2000
ONE_BY_ONE = 300
SIZE = 512 * 1024 * 1024
_APP = """
import asyncio, sys
import uvloop
from websockets.asyncio.server import serve as serve_websockets
PIECE = bytes(256 * 1024)
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            number = int(head.split(b" ", 2)[1].rpartition(b"/")[2] or 0)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % number)
            while number:
                piece = PIECE[:number]
                number -= len(piece)
                writer.write(piece)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()
async def echo(connection):
    async for message in connection:
        await connection.send(message)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await serve_websockets(echo, "127.0.0.1", int(sys.argv[2]), compression=None)
    await server.serve_forever()
uvloop.run(main())
"""
_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream app {{ server 127.0.0.1:{app}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_buffering off;
        }}
        location /echo {{
            proxy_pass http://127.0.0.1:{echo}; proxy_http_version 1.1;
            proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""


def measure(rounds: int) -> Report:
    report = Report("Web applications through hutch", machine.facts())
    found: dict[str, list[float]] = defaultdict(list)
    with _ways(report) as ways:
        for _ in range(rounds):
            for name, way in ways.items():
                rate = asyncio.run(_requests(way, CONNECTIONS, REQUESTS))
                found[f"{name}: requests, per second"].append(rate)
            for name, way in ways.items():
                rate = asyncio.run(_requests(way, 1, ONE_BY_ONE))
                found[f"{name}: one request alone, ms"].append(1000 / rate)
            for name, way in ways.items():
                found[f"{name}: WebSocket there and back, ms"].append(asyncio.run(_echoes(way)))
            for name, way in ways.items():
                found[f"{name}: one large answer, MB per second"].append(_stream(way))
    report.measures += [
        Measure(what.rpartition(", ")[0], median(values), what.rpartition(", ")[2])
        for what, values in found.items()
    ]
    report.facts["load at the end"] = f"{machine.load():.2f}"
    return report


@dataclass(frozen=True, slots=True)
class Way:
    """How the app is come to."""

    port: int
    path: str
    """Before the size that is asked for."""
    echo_port: int
    echo_path: str
    token: str = ""

    @property
    def headers(self) -> str:
        return f"Authorization: Bearer {self.token}\r\n" if self.token else ""


@contextmanager
def _ways(report: Report) -> Generator[dict[str, Way]]:
    app, echo = free_port(), free_port()
    with databases.fresh("sqlite") as (folder, url), _running(app, echo):
        asyncio.run(_fill(folder, url))
        server = Server(folder, database_url=url, port_first=1024, port_last=65535)
        server.start()
        try:
            token = _open_ports(server, app, echo)
            ways = {"direct": Way(app, "/", echo, "/")}
            ways["hutch"] = Way(
                server.port, "/apps/box/8000/", server.port, "/apps/box/8001/", token
            )
            with _nginx(app, echo) as port:
                if port is None:
                    report.notes.append("nginx is not installed here, so it was not measured.")
                else:
                    ways["nginx"] = Way(port, "/", port, "/echo")
                yield ways
            resident, peak = server.memory()
            report.measures += [
                Measure("hutch: memory afterwards", resident, "MB"),
                Measure("hutch: memory at most", peak, "MB"),
            ]
        finally:
            server.stop()


@contextmanager
def _running(port: int, echo: int) -> Generator[None]:
    """The app: as little of a web server as there can be."""
    process = subprocess.Popen([sys.executable, "-c", _APP, str(port), str(echo)])
    try:
        _wait_for(echo)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _nginx(app: int, echo: int) -> Generator[int | None]:
    """The port of an nginx before the app; None where there is none."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, app=app, echo=echo, port=port))
        process = subprocess.Popen(
            [program, "-c", str(file), "-p", folder], stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing listens at port {port}")


async def _fill(folder: Path, url: str) -> None:
    """A simulated node with an image."""
    context = open_context(Settings(data=folder, database_url=url))
    try:
        await nodes.add(
            context, SYSTEM, name="node1", engine=EngineKind.SIMULATED,
            url=f"file://{folder / 'engine.db'}", address="192.0.2.1", subnet="10.180.0.0/20",
        )  # fmt: skip
        await images.add(context, SYSTEM, "base", "")
    finally:
        await context.engines.close()
        await context.db.close()


def _open_ports(server: Server, app: int, echo: int) -> str:
    """An instance whose port 8000 is the app, and 8001 its WebSocket; the token of its owner."""
    token = server.make_administrator("bench")
    with Client(server.url, token) as client:
        for begun in (
            client.create_instance("box", cpus=1, memory="1GiB", disk="2GiB"),
            lambda: client.add_port("box", 8000, host_port=app, reach="node"),
            lambda: client.add_port("box", 8001, host_port=echo, reach="node"),
        ):
            operation = (begun() if callable(begun) else begun)["operation"]
            while operation["state"] in {"pending", "running"}:
                operation = client.show_operation(operation["id"], wait=10)
            if operation["state"] != "done":
                raise RuntimeError(f"{operation['kind']}: {operation['error']}")
    return token


async def _requests(way: Way, connections: int, requests: int) -> float:
    """Requests per second, one after the other over so many connections at once."""
    head = f"GET {way.path}100 HTTP/1.1\r\nHost: 127.0.0.1:{way.port}\r\n{way.headers}\r\n"
    request = head.encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        for _ in range(requests // connections):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode("latin-1"))
            await reader.readexactly(100)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return requests / (time.perf_counter() - began)


async def _echoes(way: Way) -> float:
    """Milliseconds until a message over a WebSocket is back: the median."""
    headers = {"Authorization": f"Bearer {way.token}"} if way.token else {}
    url, times = f"ws://127.0.0.1:{way.echo_port}{way.echo_path}", list[float]()
    async with connect(url, additional_headers=headers, compression=None) as socket_:
        for _ in range(ONE_BY_ONE):
            began = time.perf_counter()
            await socket_.send(b"x" * 100)
            await socket_.recv()
            times.append(1000 * (time.perf_counter() - began))
    return median(times)


def _stream(way: Way) -> float:
    """MB per second of one large answer."""
    buffer = bytearray(1024 * 1024)
    with socket.create_connection(("127.0.0.1", way.port)) as connection:
        request = f"GET {way.path}{SIZE} HTTP/1.1\r\nHost: 127.0.0.1:{way.port}\r\n"
        request += f"Connection: close\r\n{way.headers}\r\n"
        began = time.perf_counter()
        connection.sendall(request.encode())
        left = SIZE
        while left > 0 and (count := connection.recv_into(buffer)):
            left -= count
    if left > 0:
        raise RuntimeError("the answer was torn")
    return SIZE / 1e6 / (time.perf_counter() - began)
