"""One connection to a hutch server: JSON there, JSON or an error of hutch's own back.

It stands on the standard library's http.client: httpx would cost the command line three tenths
of a second at every start.
"""

import http.client
import json
import select
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from hutch import __version__
from hutch.client.failures import from_answer
from hutch.errors import ConfigurationError, UnavailableError

Query = Mapping[str, str | int | bytes | None]

LONGEST_ANSWER = 256 * 1024 * 1024
"""More than this is not an answer of hutch but a mistake or an attack."""


class Transport:
    """Requests to one server, over one connection that is kept open. Not for several threads."""

    def __init__(
        self, url: str, token: str | None, *, timeout: float, on_behalf_of: str | None = None
    ) -> None:
        parts = _checked(url)
        self._on_behalf_of = on_behalf_of
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._base = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one request; the decoded answer, None for one without content.

        Parts of `query` that are None are left out. Raises the HutchError that the server
        answered, or UnavailableError when there is no answer within `timeout` seconds.
        """
        target = self._target(path, query)
        payload = None if body is None else json.dumps(body).encode("utf-8")
        status, location, content = self._exchange(method, target, payload, timeout)
        self._check(status, location, content)
        return self.decoded(status, content)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Query,
        headers: dict[str, str],
        content: Iterator[bytes] | None = None,
    ) -> Generator[http.client.HTTPResponse]:
        """Send one request over a connection of its own; its answer, not read yet.

        `content` is sent as it comes. Raises as `request` does.
        """
        connection = self._open()
        connection.timeout = self._timeout
        try:
            try:
                answer = self._begin(
                    connection, method, self._target(path, query), headers, content
                )
            except (OSError, http.client.HTTPException) as error:
                raise self._silent(error) from None
            if answer.status >= 300:
                self._check(
                    answer.status, answer.getheader("Location"), answer.read(LONGEST_ANSWER)
                )
            yield answer
        finally:
            connection.close()

    def _begin(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: dict[str, str],
        content: Iterator[bytes] | None,
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, target, body=content, headers=self._headers() | headers)
        except (BrokenPipeError, ConnectionResetError):
            # The server has said no in the middle of it: the answer is there to be read.
            if connection.sock is None:
                raise
        return connection.getresponse()

    def _target(self, path: str, query: Query | None) -> str:
        asked = {key: value for key, value in (query or {}).items() if value is not None}
        return self._base + path + ("?" + urlencode(asked, errors="replace") if asked else "")

    def _check(self, status: int, location: str | None, content: bytes) -> None:
        if status >= 400:
            raise from_answer(self.url, status, content)
        if 300 <= status < 400:
            raise UnavailableError(
                f"{self.url} sends on to {location or 'another address'}.",
                hint="Give that address: `hutch login --url URL`.",
                url=self.url,
            )

    def decoded(self, status: int, content: bytes) -> Any:
        """What an answer says; None for one without content."""
        if status == 204 or not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise from_answer(self.url, status, b"") from None

    def _exchange(
        self, method: str, target: str, payload: bytes | None, timeout: float | None
    ) -> tuple[int, str | None, bytes]:
        fresh = self._connection is None
        try:
            return self._send(method, target, payload, timeout)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            # A kept connection that the server has closed meanwhile looks like this. Only what
            # changes nothing is sent a second time.
            if fresh or method != "GET":
                raise self._silent(error) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._silent(error) from None
        try:
            return self._send(method, target, payload, timeout)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._silent(error) from None

    def _send(
        self, method: str, target: str, payload: bytes | None, timeout: float | None
    ) -> tuple[int, str | None, bytes]:
        limit = timeout or self._timeout
        if self._connection is not None and _was_closed(self._connection):
            # The server ends what is idle for long, such as while a person thinks about a question.
            self.close()
        connection = self._connection or self._open()
        self._connection = connection
        connection.timeout = limit
        if connection.sock is not None:
            connection.sock.settimeout(limit)
        headers = self._headers()
        if payload is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, target, body=payload, headers=headers)
        answer = connection.getresponse()
        content = answer.read(LONGEST_ANSWER)
        return answer.status, answer.getheader("Location"), content

    def websocket(self) -> tuple[str, dict[str, str]]:
        """The address with the scheme of WebSockets, and the headers of a request."""
        scheme, rest = self.url.split("://", 1)
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}", self._headers()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"hutch/{__version__}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._on_behalf_of:
            headers["X-Forwarded-For"] = self._on_behalf_of
        return headers

    def _open(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port)
        return http.client.HTTPConnection(self._host, self._port)

    def _silent(self, error: Exception) -> UnavailableError:
        """Nobody answered: say at which address, why, and what to do."""
        hint = "Is the server running (`hutch up`, or `hutch server`)? Is the address right?"
        if isinstance(error, TimeoutError):
            reason, hint = "it did not answer in time", "Try again; it may be busy or restarting."
        elif isinstance(error, ConnectionRefusedError):
            reason = "nothing listens there"
        elif type(error).__name__ in {"SSLCertVerificationError", "SSLError"}:
            reason = f"its certificate or encryption is refused ({error})"
            hint = "Use the name that the certificate is for, or set SSL_CERT_FILE to its CA."
        elif type(error).__name__ == "gaierror":
            reason = f"there is no host {self._host!r}"
            hint = "Check the address: `hutch login --url URL`, or HUTCH_URL."
        else:
            reason = str(error) or type(error).__name__
        return UnavailableError(
            f"hutch at {self.url} cannot be reached: {reason}.", hint=hint, url=self.url
        )


def _was_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has ended an idle connection: nothing else can be read from one."""
    if connection.sock is None:
        return False
    idle = select.poll()
    idle.register(connection.sock, select.POLLIN)
    return bool(idle.poll(0))


def _checked(url: str) -> Any:
    hint = "Give it as http://HOST:PORT or https://HOST: `hutch login --url URL`, or HUTCH_URL."
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigurationError(f"{url!r} is not an address of a server.", hint=hint) from None
    control = any(ord(character) <= 32 or ord(character) == 127 for character in url)
    named = parts.scheme in {"http", "https"} and parts.hostname and port_is_valid
    # Name and password in an address end up in logs and process lists.
    if control or not named or parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(f"{url!r} is not an address of a server.", hint=hint)
    return parts
