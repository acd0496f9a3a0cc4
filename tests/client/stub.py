"""A server that answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    drop: bool = False
    """Close the connection instead of answering."""
    hang_up: bool = False
    """Close the connection after the answer, as servers do with those that are idle for long."""
    wait: threading.Event | None = None
    """Answer only once this is set."""


def as_json(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def refusal(status: int, code: str, **rest: Any) -> Answer:
    error = {"code": code, "message": "", "hint": "", "detail": {}, "request_id": "r1", **rest}
    return as_json({"error": error}, status)


class _Quiet(ThreadingHTTPServer):
    def __init__(self, stub: "Stub") -> None:
        self._hung_up = stub.hung_up
        super().__init__(("127.0.0.1", 0), _handler(stub))

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._hung_up.set()

    def handle_error(self, *_: object) -> None:
        """A client that went away in the middle is part of some tests."""


class Stub:
    """`answers` are given one after another, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        self.connections = 0
        self.hung_up = threading.Event()
        """Set once a connection is closed."""
        self._server = _Quiet(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            stub.connections += 1
            super().setup()

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            answer = stub.next()
            if answer.wait is not None:
                answer.wait.wait(10)
            if answer.drop:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(answer.body)
            self.close_connection = self.close_connection or answer.hang_up

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
