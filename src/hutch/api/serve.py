"""Running the server."""

import asyncio
import gc
import os
import signal
import socket
from types import FrameType
from typing import Any

import structlog
import uvicorn

from hutch.api.app import create_app, open_context
from hutch.api.protocol import PatientProtocol
from hutch.errors import ConfigurationError
from hutch.logs import configure_logs
from hutch.operations.runner import Runner
from hutch.reconcilers import Reconcilers
from hutch.settings import Settings
from hutch.store import migrate

log = structlog.get_logger("hutch.server")

STOP_SECONDS = 5
"""What requests in progress get when the server stops; those that only wait end at once."""
_WAITING_CONNECTIONS = 2048
WEBSOCKETS: dict[str, Any] = {
    # Not the one that "auto" takes, which needs a part of websockets that is on its way out.
    "ws": "websockets-sansio",
    # Bytes of one message; a longer one ends the connection.
    "ws_max_size": 1024**2,
    "ws_per_message_deflate": False,
    # How often the other end is asked whether it is there, and how long it may take, in seconds.
    "ws_ping_interval": 10.0,
    "ws_ping_timeout": 10.0,
}


class _Server(uvicorn.Server):
    """Tells the application to end its waits as soon as stopping begins.

    uvicorn tells it only after the last request has ended, which is what they wait for.
    """

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again at the end: a stop that was asked for would
        # look like a crash.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Migrate the database, then answer until SIGTERM or SIGINT.

    Raises ConfigurationError when the address cannot be listened on.
    """
    listener = _listen(settings.listen_host, settings.listen_port)
    configure_logs(settings.log_level, settings.log_format)
    # Whatever is made from here on (database, key, sockets) is nobody else's to read.
    os.umask(0o077)
    migrate.upgrade(settings.database)
    context = open_context(settings)
    app = create_app(context, (Runner(context), Reconcilers(context)))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=PatientProtocol,
        **WEBSOCKETS,
        lifespan="on",
        log_config=None,
        access_log=False,
        # hutch looks at X-Forwarded-For itself, and believes less of it.
        proxy_headers=False,
        server_header=False,
        backlog=_WAITING_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    _calm_collector()
    log.info("Listening", host=settings.listen_host, port=settings.listen_port)
    _Server(config, app.state.stopping).run(sockets=[listener])


def _calm_collector() -> None:
    """Let Python look for cycles seldom, and never among what stays.

    An answer about two thousand instances allocates enough to make it look through everything
    several times, which takes longer than the answer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"hutch cannot listen on {host} port {port}: {error.strerror}.",
            hint="Set listen_host and listen_port to an address of this machine that is free.",
        ) from None
    return listener
