"""Speaks to one Incus or LXD server: HTTP, its background operations, its websockets.

Whatever goes wrong leaves here as one of hutch's errors. Nothing that is sent is ever logged:
bodies carry keys and environments.
"""

import asyncio
import json
import logging
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import httpx
import structlog
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidStatus, WebSocketException

from hutch.errors import (
    ConfigurationError,
    EngineConflictError,
    EngineError,
    EngineNotFoundError,
    EngineUnavailableError,
)

log = structlog.get_logger(__name__)

Json = dict[str, Any]
ANSWER_WITHIN = 30.0
"""Seconds for an answer to one request; what takes longer is an operation."""
_LONG_POLL = 3600
"""Seconds that one wait for an operation stays open before it is asked again."""
_SUCCESS = 200
_SWITCHED = 101
_HTTPS = 443
_STREAM_BUFFER = 1024 * 1024
_CANCELLED = 401
_NOT_THERE = 404
_CONFLICTS = {_CANCELLED, 409, 412}
_NOT_READY = 503
_RUNNING_BELOW = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_CONFLICT = re.compile(
    r"already exists|already defined|already running|already in use|\bbusy\b|in use|"
    r"unavailable on this server|"  # a pool or a network, just after the server was started
    r"matching .* operation|ETag doesn't match|already created",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"(instance|snapshot|image|profile|network|pool) not found|no such object|image not provided",
    re.IGNORECASE,
)
_DEBUG, _INFO = logging.DEBUG, logging.INFO


class OperationLostError(EngineUnavailableError):
    """The server no longer knows an operation: whether it was done, only its object can tell."""


def part(name: str) -> str:
    """A name as one part of a URL's path, refused unless it is made of harmless characters."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise EngineError(f"{name[:80]!r} is not a name that an engine takes.")
    return quote(name, safe="")


@dataclass(frozen=True, slots=True)
class Certificates:
    """How to prove oneself to a server over https, and how to know it."""

    certificate: Path
    key: Path
    server: Path
    """The server's own certificate: it signs itself, so it is pinned instead of verified."""

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.server))
            context.check_hostname = False
            context.load_cert_chain(str(self.certificate), str(self.key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"The certificates for the engine cannot be used: {error}.",
                hint="Check the paths of the client's certificate and key and of the server's.",
            ) from error
        return context


class Client:
    """One server, one project. Raises EngineUnavailableError when the server does not answer."""

    def __init__(self, url: str, project: str, *, certificates: Certificates | None = None) -> None:
        parts = urlsplit(url)
        self.url = url
        self.project = project
        self.socket: str | None = None
        self._ssl: ssl.SSLContext | None = None
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            self.socket = parts.path
            self._authority = "incus"
            transport = httpx.AsyncHTTPTransport(uds=parts.path, limits=_UNLIMITED)
        elif parts.scheme == "https" and parts.hostname and certificates:
            self._ssl = certificates.context()
            self._authority = parts.netloc
            transport = httpx.AsyncHTTPTransport(
                verify=self._ssl, limits=_UNLIMITED, trust_env=False
            )
        else:
            raise ConfigurationError(
                f"{url!r} with{'' if certificates else 'out'} certificates is no engine's address.",
                hint="Give unix:///path/to/unix.socket, or https://host:8443 with certificates.",
            )
        self._http = httpx.AsyncClient(
            transport=transport,
            base_url=f"{'https' if self._ssl else 'http'}://{self._authority}",
            timeout=ANSWER_WITHIN,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    # -- requests ------------------------------------------------------------------------------

    async def get(self, path: str, **params: str | int) -> Any:
        """The metadata of what is at `path`, under /1.0."""
        try:
            return _metadata(await self._request("GET", path, params=params), path)
        except _ConnectionDroppedError:
            # A connection kept from before the server restarted; reading twice harms nobody.
            return _metadata(await self._request("GET", path, params=params), path)

    async def find(self, path: str, **params: str | int) -> Any:
        """As `get`, but None where there is nothing."""
        try:
            return await self.get(path, **params)
        except EngineNotFoundError:
            return None

    async def send(
        self, method: str, path: str, body: Json | None = None, *, etag: str | None = None
    ) -> Json:
        """Ask for a change and wait until it is made; the operation's metadata, if it had any.

        Raises OperationLostError when the server forgot the operation meanwhile.
        """
        operation = await self.begin(method, path, body, etag=etag)
        return await self.wait(operation["id"]) if operation.get("id") else operation

    async def begin(
        self, method: str, path: str, body: Json | None = None, *, etag: str | None = None
    ) -> Json:
        """Ask for a change; the operation that the server began for it."""
        headers = {"If-Match": etag} if etag else {}
        answer = await self._request(method, path, body=body, headers=headers)
        return cast("Json", _metadata(answer, path) or {})

    async def get_with_etag(self, path: str) -> tuple[Json, str]:
        answer = await self._request("GET", path)
        return cast("Json", _metadata(answer, path)), answer.headers.get("ETag", "")

    async def wait(self, operation_id: str) -> Json:
        """Wait for an operation's end, without polling. Raises what it failed with."""
        operation = await self.ended(operation_id)
        if operation["status_code"] != _SUCCESS:
            message = str(operation.get("err") or operation.get("status"))
            raise refusal(int(operation["status_code"]), message, path="operation")
        return operation

    async def ended(self, operation_id: str) -> Json:
        """Wait for an operation's end and answer how it ended, also when it failed.

        Raises OperationLostError when the server does not know it.
        """
        path = f"/operations/{part(operation_id)}"
        operation: Json = {"status_code": 0}
        while operation["status_code"] < _RUNNING_BELOW:
            params = {"timeout": _LONG_POLL}
            answer = await self._request(
                "GET", f"{path}/wait", params=params, timeout=_LONG_POLL + 60
            )
            body = _body(answer)
            if body.get("type") == "error":
                # Incus answers with the operation's own error here; the operation says more. It
                # is kept for 5 s after its end.
                body = _body(await self._request("GET", path))
            if body.get("type") == "error":
                log.warning("engine operation lost", reason=str(body.get("error")))
                raise OperationLostError(
                    "The engine forgot what it was doing.", hint="Look at the instance."
                )
            operation = cast("Json", body["metadata"])
        return operation

    async def cancel(self, operation_id: str) -> None:
        """Ask the server to give an operation up; quiet when it has ended."""
        try:
            await self._request("DELETE", f"/operations/{part(operation_id)}")
        except EngineError as error:
            log.debug("engine operation not cancelled", reason=error.message)

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[httpx.Response]:
        """Raw content at `path`, to be read piece by piece. Raises as `get` does."""
        try:
            async with self._http.stream(
                "GET", f"/1.0{path}", params={"project": self.project, **params}
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                    _metadata(answer, path)
                yield answer
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_WITHIN,
    ) -> httpx.Response:
        try:
            return await self._http.request(
                method,
                f"/1.0{path}",
                params={"project": self.project, **(params or {})},
                json=body,
                headers=headers,
                timeout=timeout,
            )
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> EngineUnavailableError:
        reason = str(error) or type(error).__name__
        log.warning("engine unavailable", url=self.url, reason=reason)
        kind = (
            _ConnectionDroppedError
            if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
            else EngineUnavailableError
        )
        return kind(
            f"The engine at {self.url} does not answer: {reason}.",
            hint="Check that Incus runs on the node: `incus info` there, or `hutch node list`.",
        )

    # -- websockets ----------------------------------------------------------------------------

    @asynccontextmanager
    async def websocket(
        self, path: str, *, keepalive: float | None = None, **params: str
    ) -> AsyncGenerator[ClientConnection]:
        """A websocket at `path`. `keepalive` seconds between pings find a peer that is gone."""
        resource = f"/1.0{path}?{urlencode({'project': self.project, **params})}"
        options: dict[str, Any] = {
            "compression": None,
            "max_size": None,
            "ping_interval": keepalive,
            "ping_timeout": keepalive,
            "open_timeout": ANSWER_WITHIN,
            "close_timeout": 1,
        }
        try:
            if self.socket:
                connecting = unix_connect(self.socket, f"ws://incus{resource}", **options)
            else:
                connecting = connect(
                    f"wss://{self._authority}{resource}", ssl=self._ssl, proxy=None, **options
                )
            connection = await connecting
        except InvalidStatus as error:
            answer = httpx.Response(
                error.response.status_code, content=bytes(error.response.body or b"")
            )
            message = str(_body(answer).get("error"))
            raise refusal(answer.status_code, message, path=path) from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise self._unavailable(error) from error
        try:
            yield connection
        finally:
            # Nothing that either side still has to say matters to the other.
            connection.transport.abort()

    # -- other protocols -----------------------------------------------------------------------

    @asynccontextmanager
    async def upgraded(
        self, path: str, protocol: str
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection at `path` that speaks another protocol. Raises as `get` does."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reader, writer = await self._open_stream()
        except (OSError, TimeoutError) as error:
            raise self._unavailable(error) from error
        try:
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    await self._upgrade(reader, writer, path, protocol)
            except (OSError, EOFError, TimeoutError) as error:
                raise self._unavailable(error) from error
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.socket:
            return await asyncio.open_unix_connection(self.socket, limit=_STREAM_BUFFER)
        parts = urlsplit(self.url)
        return await asyncio.open_connection(
            parts.hostname, parts.port or _HTTPS, ssl=self._ssl, limit=_STREAM_BUFFER
        )

    async def _upgrade(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, protocol: str
    ) -> None:
        target = f"/1.0{path}?{urlencode({'project': self.project})}"
        head = (
            f"GET {target} HTTP/1.1\r\nHost: {self._authority}\r\n"
            f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n\r\n"
        )
        writer.write(head.encode("ascii"))
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        code = int(status.split()[1])
        if code == _SWITCHED:
            return
        length = [line.partition(":")[2] for line in lines if line.lower().startswith("content-l")]
        body = await reader.readexactly(min(int(length[0]), _STREAM_BUFFER)) if length else b""
        _metadata(httpx.Response(code, content=body), path)
        raise EngineUnavailableError(f"The engine at {self.url} does not speak {protocol}.")


class _ConnectionDroppedError(EngineUnavailableError):
    """A connection ended without an answer."""


_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=16)
"""Waiting for an operation holds a connection; none must wait for one because of that."""


def refusal(status: int, message: str, *, path: str) -> EngineError:
    """The error for what the server said, with the server's own words."""
    missing = status == _NOT_THERE or bool(_NOT_FOUND.search(message))
    # That something is not there is often just what the caller wanted to know.
    log.log(_DEBUG if missing else _INFO, "engine refused", path=path, reason=message)
    text = f"The engine refused: {message}"
    if not text.endswith((".", "!")):
        text += "."
    if missing:
        return EngineNotFoundError(text, hint="It may just have been deleted: look again.")
    if status in _CONFLICTS or _CONFLICT.search(message):
        return EngineConflictError(text, hint=_TRY_AGAIN)
    if "NVIDIA container tools" in message:
        return EngineError(text, hint=_NVIDIA)
    return EngineError(text, hint="The engine's log on the node says more.")


_NVIDIA = "Install libnvidia-container-tools on the node: `nvidia-container-cli info` has to work."
_TRY_AGAIN = "Something else is being done with it: try again in a moment."


def _body(answer: httpx.Response) -> Json:
    """The body of an answer; one of type `error` for everything that is not a success."""
    try:
        body = cast("Json", answer.json())
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = {"type": "error", "error": f"{answer.status_code} {answer.reason_phrase}"}
    if answer.is_error:
        body["type"] = "error"
    return body


def _metadata(answer: httpx.Response, path: str) -> Any:
    body = _body(answer)
    if body.get("type") != "error":
        return body.get("metadata")
    code = int(body.get("error_code") or answer.status_code)
    message = str(body.get("error") or answer.reason_phrase)
    if code == _NOT_READY:
        log.warning("engine not ready", reason=message)
        raise EngineUnavailableError(f"The engine is not ready: {message}.")
    raise refusal(code, message, path=path)


async def cancel(task: asyncio.Task[Any]) -> None:
    """End a task and wait until it has."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
