"""`hutch shell`: a shell in an instance over one WebSocket. `~.` after a new line leaves it."""

import json
import os
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hutch.cli import exits
from hutch.cli.connection import connect, resolve
from hutch.cli.messages import PANEL_INSTANCES
from hutch.cli.options import InstanceName
from hutch.cli.words import shells as words
from hutch.errors import ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from hutch.client.client import Client

WINDOW = 1024 * 1024
"""Bytes that may be on their way: few, so that Ctrl-C is soon seen to work."""
_ENDED = 1000
_PATIENCE = 60.0
"""Seconds for which a lost connection is tried again."""


def add_to(app: typer.Typer) -> None:
    app.command("shell", help=words.HELP["shell"], rich_help_panel=PANEL_INSTANCES)(shell)


def shell(
    name: InstanceName,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help=words.SESSION)
    ] = None,
) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise exits.UsageError(words.NO_TERMINAL, hint=words.USE_EXEC)
    with connect() as client:
        ref = resolve(client, name)
        view = _View(client, ref, name, session)
        with _raw(sys.stdin.fileno()):
            code = view.run()
    if code is None:
        sys.stderr.write(words.LEFT.format(name=name, session=view.session) + "\n")
    elif code in words.ENDS:
        raise ForbiddenError(words.ENDS[code])
    elif code != _ENDED:
        hint = words.GO_BACK.format(name=name, session=view.session)
        raise UnavailableError(words.GONE, hint=hint)


@contextmanager
def _raw(terminal: int) -> Generator[None]:
    """Let every key through, until the end of the block."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class _View:
    """What is typed goes there, what is printed comes here, over one connection after another."""

    def __init__(self, client: "Client", ref: str, name: str, session: str | None) -> None:
        self._client = client
        self._ref = ref
        self._name = name
        self.session = session
        self._socket: ClientConnection | None = None
        self._has_left = False
        self._resized = threading.Event()

    def run(self) -> int | None:
        """The code with which it ended; None when the person left it."""
        # It ends with this process: a read from a terminal cannot be called back.
        threading.Thread(target=self._type, daemon=True).start()
        threading.Thread(target=self._resize, daemon=True).start()
        signal.signal(signal.SIGWINCH, self._notice)
        lost_at: float | None = None
        while True:
            try:
                with self._client.open_terminal(self._ref, self.session, *_size(), WINDOW) as it:
                    self._socket, lost_at = it, None
                    code = self._show(it)
            except UnavailableError:
                if self.session is None:
                    raise
                code = 0
            self._socket = None
            if self._has_left:
                return None
            if code == _ENDED or code in words.ENDS:
                return code
            if lost_at is None:
                lost_at = time.monotonic()
                sys.stderr.write(f"\r\n{words.LOST}\r\n")
            if time.monotonic() - lost_at > _PATIENCE:
                return code
            time.sleep(1)

    def _show(self, socket: "ClientConnection") -> int:
        """Print what comes until the connection ends; its code, 0 for none."""
        from websockets.exceptions import ConnectionClosed

        came = told = 0
        out = sys.stdout.buffer
        try:
            for message in socket:
                if isinstance(message, bytes):
                    out.write(message)
                    out.flush()
                    came += len(message)
                    if came - told >= WINDOW // 4:
                        told = came
                        socket.send(json.dumps({"type": "ack", "bytes": came}))
                else:
                    self._hear(json.loads(message))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0
        return _ENDED

    def _hear(self, told: dict[str, Any]) -> None:
        if told.get("type") == "open":
            wanted, self.session = self.session, str(told["session"])
            if wanted is not None and told["new"]:
                sys.stderr.write(words.NEW_ONE + "\r\n")

    def _notice(self, number: int, frame: FrameType | None) -> None:
        # Not sent from here: what this interrupts may be in the middle of sending.
        self._resized.set()

    def _resize(self) -> None:
        while self._resized.wait():
            self._resized.clear()
            columns, rows = _size()
            self._send(json.dumps({"type": "resize", "columns": columns, "rows": rows}))

    def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        socket = self._socket
        if socket is not None:
            # What is typed while nobody is there is lost, as with any terminal.
            with suppress(ConnectionClosed):
                socket.send(message)

    def _type(self) -> None:
        keys = _Keys()
        while typed := os.read(sys.stdin.fileno(), 4096):
            passed = keys.taken(typed)
            if passed:
                self._send(passed)
            if keys.has_left:
                self._has_left = True
                if self._socket is not None:
                    self._socket.close()
                return


class _Keys:
    """Looks for `~.` after a new line among what is typed."""

    def __init__(self) -> None:
        self.has_left = False
        self._is_new_line = True
        self._has_tilde = False

    def taken(self, typed: bytes) -> bytes:
        """What of it is for the shell."""
        passed = bytearray()
        for key in typed:
            if self._has_tilde and key == ord("."):
                self.has_left = True
                break
            if self._has_tilde:
                passed.append(ord("~"))
            self._has_tilde = self._is_new_line and not self._has_tilde and key == ord("~")
            self._is_new_line = key in b"\r\n"
            if not self._has_tilde:
                passed.append(key)
        return bytes(passed)


def _size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines
