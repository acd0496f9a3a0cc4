"""Web applications through hutch: against going straight to them, and against nginx in between.

The app runs in a real instance. hutch goes to it in both of its ways: to the instance's address, as
for a port of the node, and through the engine, as for one that is web-only. The app, the load and
what stands between them share the machine's processors, so each costs the others something.
"""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import websockets
from websockets.asyncio.client import connect

from bench import machine
from bench.byhand import Size
from bench.figures import Measure, Report, median
from bench.lab import Hutch, contest
from bench.server import free_port

CONNECTIONS = 16
REQUESTS = 2000
ONE_BY_ONE = 300
SIZE = 512 * 1024 * 1024
_BOX = "box"
_PORTS = {"network": (8000, 8001), "web": (8002, 8003)}
"""Of the app and of its WebSocket, by how hutch reaches them: it leads one way to each port."""
_APP = """
import asyncio
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
    for port in (8000, 8002):
        await asyncio.start_server(serve, "0.0.0.0", port)
        await serve_websockets(echo, "0.0.0.0", port + 1, compression=None)
    await asyncio.Event().wait()
asyncio.run(main())
"""
_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream app {{ server {host}:{app}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_buffering off;
        }}
        location /echo {{
            proxy_pass http://{host}:{echo}; proxy_http_version 1.1;
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

    host: str
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
    with contest(Size()) as (hutch, _):
        hutch.log_in(hutch.create(_BOX))
        host = _start_app(hutch)
        app, echo = _PORTS["network"]
        ways = {"straight": Way(host, app, "/", echo, "/")}
        server = hutch.server
        for name, reach in (("hutch", "network"), ("hutch, web-only", "web")):
            paths = [f"/apps/{_BOX}/{port}/" for port in _PORTS[reach]]
            for port in _PORTS[reach]:
                hutch.finish(hutch.client.add_port(_BOX, port, reach=reach)["operation"])
            ways[name] = Way("127.0.0.1", server.port, paths[0], server.port, paths[1], hutch.token)
        with _nginx(host, app, echo) as port:
            if port is None:
                report.notes.append("nginx is not installed here, so it was not measured.")
            else:
                ways["nginx"] = Way("127.0.0.1", port, "/", port, "/echo")
            yield ways
        resident, peak = server.memory()
        report.measures += [
            Measure("hutch: memory afterwards", resident, "MB"),
            Measure("hutch: memory at most", peak, "MB"),
        ]


def _start_app(hutch: Hutch) -> str:
    """As little of a web server as there can be; the address of the instance that it runs in."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(Path(websockets.__file__).parent, "websockets")
        program = tarfile.TarInfo("app.py")
        program.size = len(_APP)
        tar.addfile(program, io.BytesIO(_APP.encode()))
    content = packed.getvalue()
    hutch.client.upload(_BOX, b"app.tar", iter([content]), size=len(content), upload="benchapp")

    def inside(*argv: str) -> str:
        ran = hutch.client.execute(_BOX, argv, root=True)
        if ran["code"] != 0:
            raise RuntimeError(f"{argv} ended with {ran['code']}: {ran['stderr']}")
        return base64.b64decode(ran["stdout"]).decode()

    inside("tar", "-xf", "/home/bench/app.tar", "-C", "/opt")
    inside("systemd-run", "--collect", "--working-directory=/opt", "python3", "app.py")
    (host,) = inside("hostname", "-I").split()[:1]
    _wait_for(host, _PORTS["web"][1])
    return host


@contextmanager
def _nginx(host: str, app: int, echo: int) -> Generator[int | None]:
    """The port of an nginx before the app; None where there is none."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, host=host, app=app, echo=echo, port=port))
        process = subprocess.Popen(
            [program, "-c", str(file), "-p", folder], stderr=subprocess.DEVNULL
        )
        try:
            _wait_for("127.0.0.1", port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_for(host: str, port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing listens at port {port} of {host}")


async def _requests(way: Way, connections: int, requests: int) -> float:
    """Requests per second, one after the other over so many connections at once."""
    head = f"GET {way.path}100 HTTP/1.1\r\nHost: {way.host}:{way.port}\r\n{way.headers}\r\n"
    request = head.encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(way.host, way.port)
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
    url, times = f"ws://{way.host}:{way.echo_port}{way.echo_path}", list[float]()
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
    with socket.create_connection((way.host, way.port)) as connection:
        request = f"GET {way.path}{SIZE} HTTP/1.1\r\nHost: {way.host}:{way.port}\r\n"
        request += f"Connection: close\r\n{way.headers}\r\n"
        began = time.perf_counter()
        connection.sendall(request.encode())
        left = SIZE
        while left > 0 and (count := connection.recv_into(buffer)):
            left -= count
    if left > 0:
        raise RuntimeError("the answer was torn")
    return SIZE / 1e6 / (time.perf_counter() - began)
