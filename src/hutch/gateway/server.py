"""One gateway process: its listening sockets, its connections, and its end.

SIGTERM   accepts nothing more and ends when the last session has ended
SIGHUP    the same, after the seconds that a newer version needs to come up beside it
SIGINT    ends every session, and itself; so does a second SIGTERM
"""

import asyncio
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import asyncssh
import structlog
from asyncssh.constants import DISC_TOO_MANY_CONNECTIONS, MSG_DISCONNECT

from hutch.domain.ssh_config import split_place
from hutch.errors import ConfigurationError, HutchError
from hutch.gateway import messages
from hutch.gateway.audit import Audit
from hutch.gateway.board import Board
from hutch.gateway.errand import Errands
from hutch.gateway.guest import Guest
from hutch.gateway.limits import Limits, unit
from hutch.gateway.passes import Passes
from hutch.gateway.smith import Smith
from hutch.gateway.watch import Watch
from hutch.gateway.wire import Connection
from hutch.services.context import Context
from hutch.services.hostkeys import gateway_host_key
from hutch.settings import Settings

VERSION = "hutch"
CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com",
    "aes256-ctr", "aes192-ctr", "aes128-ctr",
)  # fmt: skip
_MACS = (
    "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256",
    "hmac-sha2-512",
)  # fmt: skip
_SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
_QUEUE = 1024
"""Connections that the system keeps until they are accepted."""
_AT_ONCE = 64
"""Connections accepted before anything else has its turn."""
_HAND_OVER_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0
_MOST_FAREWELLS = 128
"""Connections that are told at once why they are turned away; others are closed."""
_PAUSE_SECONDS = 0.5
"""Pause when no file can be opened any more."""

log = structlog.get_logger("hutch.gateway")


class Gateway:
    """Everything that the connections of one process share."""

    def __init__(self, context: Context, board: Board | None = None) -> None:
        self.context = context
        self.limits = Limits(context.settings, board=board)
        self.guests: set[Guest] = set()
        self.is_draining = False
        self._loop = asyncio.get_running_loop()
        self.audit = Audit(context, self._loop.time)
        self.errands = Errands(Smith(), Passes(context), server_url(context.settings))
        self._sockets: list[socket.socket] = []
        self._options = _options(self)
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serve on these sockets until told to end, and the last session is over."""
        self._listen_to_signals()
        watch = Watch(self.context, self)
        for work in (self.audit.run(), watch.run(), self.errands.passes.run()):
            self._keep(asyncio.create_task(work))
        await self.errands.smith.start()
        self._sockets = sockets
        for listener in sockets:
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        log.info("Listening", addresses=[each.getsockname()[:2] for each in sockets])
        await self._ended.wait()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.audit.write(last=True)
        with suppress(HutchError):
            await self.errands.passes.give_back()
        await self.errands.smith.close()
        log.info("Ended")

    def place(self, sockname: tuple[str, int]) -> str:
        """How people reach this gateway, as HOST:PORT; where it is not set, as this one did."""
        settings = self.context.settings
        host, port = sockname[:2]
        if settings.gateway_address:
            host, port = split_place(settings.gateway_address, settings.gateway_port)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def later(self, seconds: float, act: Callable[[str], None], text: str) -> None:
        self._loop.call_later(seconds, act, text)

    def _keep(self, task: "asyncio.Task[object]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- the end ------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self.drain)
        self._loop.add_signal_handler(signal.SIGHUP, self.hand_over)
        self._loop.add_signal_handler(signal.SIGINT, self.end)

    def hand_over(self) -> None:
        """Drain as soon as another gateway has had the time to begin."""
        self._loop.call_later(_HAND_OVER_SECONDS, lambda: self.is_draining or self.drain())

    def drain(self) -> None:
        """Accept nothing more, and end when the last session has. The second time: now."""
        if self.is_draining:
            self.end()
            return
        self.is_draining = True
        log.info("Ending when the last session has ended", sessions=len(self.guests))
        for listener in self._sockets:
            # What has connected already is this process's: nobody else gets it.
            self._accept(listener)
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._sockets = []
        self._look_for_end()

    def end(self) -> None:
        """End every session now."""
        if not self.is_draining:
            self.drain()
        for guest in list(self.guests):
            guest.dismiss(messages.ENDING)
        self._loop.call_later(_PAUSE_SECONDS, self._ended.set)

    def left(self, guest: Guest) -> None:
        self.guests.discard(guest)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self.is_draining and not self.guests:
            self._ended.set()

    # ---- connections --------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._rest(listener, error)
                return
            connection.setblocking(False)
            refusal = self.limits.admit(unit(peer[0]))
            if not refusal:
                self._keep(self._loop.create_task(self._begin(connection)))
            elif len(self._tasks) < _MOST_FAREWELLS:
                self._keep(self._loop.create_task(_turn_away(connection, refusal)))
            else:
                connection.close()

    async def _begin(self, connection: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(self._new, connection)

    def _new(self) -> Connection:
        return Connection(self._loop, self._options)

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """Out of files, most likely: the next attempt would fail as well, and at once."""
        log.error("A connection could not be accepted", reason=str(error.strerror))
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(_PAUSE_SECONDS, self._go_on, listener)

    def _go_on(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self._loop.add_reader(listener.fileno(), self._accept, listener)


def server_url(settings: Settings) -> str:
    """Where the commands that people give here reach the server."""
    if settings.gateway_server_url:
        return settings.gateway_server_url
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    host = everywhere.get(settings.listen_host, settings.listen_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.listen_port}"


def _options(gateway: Gateway) -> asyncssh.SSHServerConnectionOptions:
    settings = gateway.context.settings
    _, host_key = gateway_host_key(gateway.context.vault)
    return asyncssh.SSHServerConnectionOptions(
        server_factory=partial(Guest, gateway),
        server_host_keys=[asyncssh.import_private_key(host_key)],
        server_version=VERSION,
        encryption_algs=CIPHERS,
        mac_algs=_MACS,
        signature_algs=_SIGNATURES,
        # What comes through is encrypted already, and does not get smaller.
        compression_algs=None,
        login_timeout=settings.gateway_login_seconds,
        # Held to by `Watch`, and by the system's own probes of silent connections.
        keepalive_interval=0,
        password_auth=False,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        line_editor=False,
        encoding=None,
        config=None,
    )


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets that other gateway processes may share the port with.

    An empty `host` is every address of the machine. Raises ConfigurationError.
    """
    wanted = [host] if host else ["0.0.0.0", "::"]  # noqa: S104
    found: list[socket.socket] = []
    for each in wanted:
        try:
            found.append(_listening(each, port))
        except OSError as error:
            # A machine without IPv6 listens on IPv4 alone.
            if host or not found:
                for one in found:
                    one.close()
                raise ConfigurationError(
                    f"The gateway cannot listen on {each} port {port}: {error.strerror}.",
                    hint="Set gateway_host and gateway_port to what is free on this machine.",
                ) from None
    return found


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def _turn_away(connection: socket.socket, reason: str) -> None:
    """Say why, in the one packet that may come before keys are exchanged (RFC 4253, 11.1).

    What the client says is read for a moment, or it would not come to reading this.
    """
    text = reason.encode()
    payload = struct.pack(">BII", MSG_DISCONNECT, DISC_TOO_MANY_CONNECTIONS, len(text)) + text
    payload += struct.pack(">I", 0)
    padding = -(5 + len(payload)) % 8 + 8
    packet = struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
    loop = asyncio.get_running_loop()
    with connection, suppress(OSError):
        connection.send(f"SSH-2.0-{VERSION}\r\n".encode() + packet)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_FAREWELL_SECONDS):
            while await loop.sock_recv(connection, 4096):
                pass
