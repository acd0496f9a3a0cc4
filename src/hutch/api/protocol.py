"""HTTP connections that cannot be held open for nothing.

Before a request's head is whole nobody is known, so nothing may be kept for them: neither memory
for headers without end, nor a connection that never asks.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hutch.api.proxy import Front

LARGEST_HEAD = 64 * 1024
"""Bytes of a request line and headers."""
HEAD_SECONDS = 10.0
"""How long a client may take to send them."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to its patience."""

    _late: asyncio.TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the present head so far; None while no head is awaited."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head = None
        self._stop_waiting()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What is left of a chunk after a whole head is its body, which the application limits.
        if self._head is not None and not self.transport.is_closing():
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        front: Front | None = getattr(getattr(self.config.app, "state", None), "front", None)
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            self.send_400_response("Invalid HTTP request received.")
            return
        hosts = [value.decode("latin-1") for name, value in self.headers if name == b"host"]
        path = (url.path or b"").decode("latin-1")
        if front is None or not front.is_meant(path, hosts[0] if hosts else ""):
            super().handle_websocket_upgrade()
            taken = self.transport.get_protocol()
            if not getattr(taken, "handshake_initiated", True):
                # A line is too long for it, and it would say nothing and wait for ever.
                self.send_400_response("Invalid HTTP request received.")
            return
        # An app's is passed on as bytes: it goes past the server's own WebSockets.
        self.connections.discard(self)
        scope: dict[str, Any] = {
            **self.scope,
            "type": "websocket",
            "path": path,
            "raw_path": url.path or b"",
            "query_string": url.query or b"",
        }
        task = self.loop.create_task(front.tunnel(scope, self.transport))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head = 0
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
