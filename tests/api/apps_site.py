"""A hutch server with an app behind it, over real HTTP: what the server runs, in a thread.

The instance is a simulated one, whose ports lead to the node's loopback; there a real server of
this process listens (`App`), which does whatever an app may do to a proxy.
"""

import asyncio
import hashlib
import http.client
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import uvicorn
import uvloop
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from hutch.api.app import create_app
from hutch.api.protocol import PatientProtocol
from hutch.api.serve import WEBSOCKETS
from hutch.domain.people import Scope
from hutch.domain.ports import Reach
from hutch.operations.runner import Runner
from hutch.services import instances, ports, tokens
from hutch.services.context import Engines
from tests import lab as labs
from tests.api.live import open_simulated

MiB = 1024 * 1024
Seen = dict[str, Any]


class App:
    """A web server that does as its paths say; `seen` are the requests that it got."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.sent = 0
        """Bytes of bodies written so far."""
        self.connections = 0
        self.release = threading.Event()
        self._server: asyncio.Server | None = None
        self._websockets: Any = None

    async def start(self) -> tuple[int, int]:
        """The ports of the web server and of the WebSocket server."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MiB)
        self._websockets = await serve_websockets(
            self._echo,
            "127.0.0.1",
            0,
            max_size=64 * MiB,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
        )
        return (
            self._server.sockets[0].getsockname()[1],
            next(iter(self._websockets.sockets)).getsockname()[1],
        )

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._websockets.close()

    async def _echo(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.seen.append(
            {
                "path": connection.request.path,
                "headers": dict(connection.request.headers.raw_items()),
            }
        )
        async for message in connection:
            if message == "bye":
                await connection.close(4001, "as you like")
            await connection.send(message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        headers = [tuple(each.split(": ", 1)) for each in lines]
        known = {name.lower(): value for name, value in headers}
        seen: Seen = {"method": method, "target": target, "headers": headers, "size": 0}
        self.seen.append(seen)
        parts = urlsplit(target)
        path = parts.path.rpartition("/")[2]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if path == "early-answer":
            await self._reply(writer, 413, b"too much")
            return False
        digest = hashlib.sha256()
        async for piece in _body(reader, known):
            seen["size"] += len(piece)
            digest.update(piece)
            if path == "slow-reader":
                await asyncio.sleep(0.01)
        seen["sha256"] = digest.hexdigest()
        act: Callable[..., Awaitable[bool]] = getattr(
            self, "_do_" + path.replace("-", "_"), self._do_echo
        )
        return await act(writer, seen, query)

    async def _reply(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, *more: str
    ) -> None:
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *more]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        await writer.drain()

    async def _do_echo(self, writer: asyncio.StreamWriter, seen: Seen, query: Seen) -> bool:
        body = b"" if seen["method"] == "HEAD" else json.dumps(seen).encode()
        more = [f"{key}: {value}" for key, value in json.loads(query.get("headers", "[]"))]
        await self._reply(writer, int(query.get("status", "200")), body, *more)
        return True

    async def _do_big(self, writer: asyncio.StreamWriter, _seen: Seen, query: Seen) -> bool:
        size, piece = int(query["n"]), b"0123456789abcdef" * 4096
        framing = "Transfer-Encoding: chunked" if "chunked" in query else f"Content-Length: {size}"
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        self.sent = 0
        while self.sent < size:
            part = piece[: size - self.sent]
            self.sent += len(part)
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if "chunked" in query else part)
            await writer.drain()
        if "chunked" in query:
            writer.write(b"0\r\n\r\n")
        return True

    async def _do_events(self, writer: asyncio.StreamWriter, _seen: Seen, query: Seen) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        number = 0
        while not writer.is_closing():
            writer.write(f"data: {number}\n\n".encode())
            await writer.drain()
            number += 1
            await asyncio.sleep(float(query.get("every", "0.05")))
        return False

    async def _do_until_close(self, writer: asyncio.StreamWriter, _s: Seen, _q: Seen) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        return False

    async def _do_never(self, _writer: asyncio.StreamWriter, _seen: Seen, _query: Seen) -> bool:
        await asyncio.sleep(3600)
        return False

    async def _do_torn(self, writer: asyncio.StreamWriter, _seen: Seen, _query: Seen) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        await writer.drain()
        return False

    async def _do_closes(self, _writer: asyncio.StreamWriter, _seen: Seen, _query: Seen) -> bool:
        return False

    async def _do_raw(self, writer: asyncio.StreamWriter, _seen: Seen, query: Seen) -> bool:
        writer.write(query["bytes"].encode("latin-1"))
        await writer.drain()
        return False

    async def _do_huge_head(self, writer: asyncio.StreamWriter, _s: Seen, _q: Seen) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-More: %b\r\n" % (b"x" * 1000) * 100 + b"\r\n")
        await writer.drain()
        return False

    async def _do_informs(self, writer: asyncio.StreamWriter, _seen: Seen, _query: Seen) -> bool:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        await self._reply(writer, 200, b"after all")
        return True

    async def _do_closes_afterwards(self, writer: asyncio.StreamWriter, _s: Seen, _q: Seen) -> bool:
        """Says that it keeps the connection, and does not."""
        await self._reply(writer, 200, b"once")
        return False


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]):  # type: ignore[no-untyped-def]
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 64 * 1024))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Cookies as a browser keeps them, roughly: by host and path, for one person."""

    def __init__(self, site: "AppsSite") -> None:
        self.site = site
        self.jar: dict[tuple[str, str, str], str] = {}

    def get(self, path: str, **options: Any) -> Got:
        return self.ask("GET", path, **options)

    def ask(
        self,
        method: str,
        path: str,
        *,
        host: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        page: bool = True,
    ) -> Got:
        """One request, redirects not followed. `page`: as a person's click does it."""
        host = host or self.site.host
        sent = {"Host": host, **({"Accept": "text/html,*/*"} if page else {}), **(headers or {})}
        mine = [
            f"{name}={value}"
            for (of, below, name), value in self.jar.items()
            if of == host and (path + "/").startswith(below.rstrip("/") + "/")
        ]
        if mine:
            sent["Cookie"] = "; ".join([*mine, *([sent["Cookie"]] if "Cookie" in sent else [])])
        got = self.site.ask(method, path, sent, body)
        for line in got.all("set-cookie"):
            pair, *attributes = [each.strip() for each in line.split(";")]
            name, _, value = pair.partition("=")
            known = {key.lower(): text for key, _, text in (e.partition("=") for e in attributes)}
            self.jar[(host, known.get("path", "/"), name)] = value
        return got

    def post(self, path: str, fields: dict[str, str], **options: Any) -> Got:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            **options.pop("headers", {}),
        }
        return self.ask("POST", path, body=urlencode(fields).encode(), headers=headers, **options)

    def sign_in(self, name: str, password: str, onward: str = "/apps/") -> Got:
        page = self.get(f"/login?{urlencode({'next': onward})}").body.decode()
        fields = {"form": hidden(page, "form"), "next": hidden(page, "next")}
        return self.post("/login", {**fields, "name": name, "password": password})

    @property
    def cookie(self) -> str:
        """The Cookie header for apps at hutch's own address."""
        return "; ".join(
            f"{name}={value}"
            for (host, path, name), value in self.jar.items()
            if host == self.site.host and path == "/apps"
        )


def hidden(page: str, name: str) -> str:
    """The value of a hidden field of a form."""
    from html import unescape

    return unescape(page.partition(f'name="{name}" value="')[2].partition('"')[0])


class AppsSite:
    """A server in a thread. What it holds lives in its own event loop."""

    def __init__(self, database: str, folder: Path, **settings: Any) -> None:
        self._database, self._folder = database, folder
        self._settings = {"port_first": 1024, "port_last": 65535, **settings}
        # On the loop that a server runs on: its transports are not quite asyncio's.
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)
        self._ready: Future[None] = Future()
        self.loop: asyncio.AbstractEventLoop
        self.app = App()
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "AppsSite":
        self._thread.start()
        self._ready.result(30)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self.stopping()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def stopping(self) -> None:
        self.loop.call_soon_threadsafe(self.fastapi.state.stopping.set)

    def do(self, work: Any) -> Any:
        """The result of `work` done inside the server."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def browser(self, name: str | None = None) -> Browser:
        """A browser, signed in if somebody is named."""
        made = Browser(self)
        if name is not None:
            assert made.sign_in(name, self.passwords[name]).status == 303
        return made

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Got:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body is not None and "Transfer-Encoding" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Got(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    async def open_port(self, target: int, number: int, **wish: Any) -> None:
        """Lead a port of alice's box to what listens on this machine's loopback."""
        alice = self.lab.actors["alice"]
        wanted = ports.Wish(target, host_port=number, reach=Reach.NODE, **wish)
        _, _, operation = await ports.add(self.context, alice, "box", wanted)
        await self.until_done(operation.id)

    async def until_done(self, operation_id: str) -> None:
        from hutch.services import operations

        ended = await operations.wait(
            self.context, self.lab.actors["ada"], operation_id, timeout=20
        )
        assert ended.state == "done", ended.error

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            context = labs.open_context(self._database, self._folder, **self._settings)
            self.context = replace(context, engines=Engines(open_simulated))
            quota = context.settings.default_quota
            self.lab = await labs.fill(context.db, self._folder / "engine.db", quota)
            self.passwords = await labs.passwords()
            self.fastapi = create_app(self.context, [Runner(self.context)])
            config = uvicorn.Config(
                self.fastapi, port=0, log_config=None, access_log=False, http=PatientProtocol,
                server_header=False, timeout_graceful_shutdown=5, **WEBSOCKETS,
            )  # fmt: skip
            self._server = _Announcing(config, self)
            await self._server.serve()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def prepare(self) -> None:
        """Alice's instance, and the app at its ports 8888 (web) and 9999 (WebSockets)."""
        alice = self.lab.actors["alice"]
        instance, operation = await instances.create(
            self.context, alice, instances.Wish("box", cpus=1, memory=1024 * MiB)
        )
        self.box = instance.id
        await self.until_done(operation.id)
        self.tokens = {
            name: (await tokens.create(self.context, actor, "test", Scope.FULL, 1))[0]
            for name, actor in self.lab.actors.items()
        }
        web, sockets = await self.app.start()
        await self.open_port(8888, web, name="web")
        await self.open_port(9999, sockets, name="sockets")

    async def announce(self, port: int) -> None:
        self.port = port
        await self.prepare()
        self._ready.set_result(None)


class _Announcing(uvicorn.Server):
    """Says so once it answers."""

    def __init__(self, config: uvicorn.Config, owner: AppsSite) -> None:
        super().__init__(config)
        self._owner = owner

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        task = asyncio.create_task(
            self._owner.announce(self.servers[0].sockets[0].getsockname()[1])
        )
        task.add_done_callback(self._told)

    def _told(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._owner._ready.set_exception(task.exception())
