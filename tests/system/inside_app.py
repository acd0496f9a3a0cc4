"""A small web application for inside an instance, which has Python and no packages.

`python3 inside_app.py 8000` listens at every address, `… 8001 127.0.0.1` at loopback alone.
"""

import base64
import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return None

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo()
        elif kind == "bytes":
            self._send(int(rest))
        elif kind == "events":
            self._events()
        else:
            self._answer(f"{self.path} {self.headers.get('X-Forwarded-User')}".encode())

    def do_PUT(self) -> None:
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 256 * 1024))
            left -= len(piece)
            digest.update(piece)
        self._answer(digest.hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, left: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        piece = bytes(256 * 1024)
        while left:
            left -= self.wfile.write(piece[:left])

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(10_000):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.05)

    def _echo(self) -> None:
        """Send every message back, as far as they are shorter than 64 KiB."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        while True:
            first, second = self.rfile.read(2)
            size = second & 0x7F
            head = bytes([first, size])
            if size == 126:
                more = self.rfile.read(2)
                size, head = int.from_bytes(more, "big"), head + more
            mask, masked = self.rfile.read(4), self.rfile.read(size)
            content = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
            self.wfile.write(head + content)
            if first & 0x0F == 8:
                self.close_connection = True
                return


if __name__ == "__main__":
    port, address = int(sys.argv[1]), (sys.argv[2:] or ["0.0.0.0"])[0]
    ThreadingHTTPServer((address, port), Handler).serve_forever()
