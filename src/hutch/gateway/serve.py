"""`hutch gateway`: starts gateway processes that share a port, and keeps as many of them running.

SIGTERM   nothing more is accepted; ends when the last session has ended. A second one: at once
SIGHUP    ends at once itself, for a newer version to be started; its processes accept what comes
          until that one does, and end when their last session has ended
SIGINT    ends every session at once
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import structlog

from hutch.gateway import board
from hutch.gateway.board import Board
from hutch.gateway.server import open_sockets
from hutch.logs import configure_logs
from hutch.settings import Settings

_FEWEST_PROCESSORS = 4
"""Processors for each process; beyond `_MOST` of them others had better be started by hand."""
_MOST = 4
_PAUSE_SECONDS = 1.0
"""Pause before a process that ended is replaced."""
_LOOK_SECONDS = 0.5
_FILES = 65536
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)

log = structlog.get_logger("hutch.gateway")


def serve(settings: Settings) -> None:
    """Run until told to end. Raises ConfigurationError when the port cannot be listened on."""
    for one in open_sockets(settings.gateway_host, settings.gateway_port):
        one.close()
    configure_logs(settings.log_level, settings.log_format)
    os.umask(0o077)
    _allow_files()
    # Looked at one after the other below, so that none comes between two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _Processes(settings).keep()


def how_many(settings: Settings) -> int:
    """The number of processes: as set, or after the number of processors."""
    if settings.gateway_processes:
        return settings.gateway_processes
    return max(1, min(_MOST, (os.cpu_count() or 1) // _FEWEST_PROCESSORS))


def _allow_files() -> None:
    """A connection is two open files, and most systems allow a thousand unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Processes:
    """The processes that this one has started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows = how_many(settings)
        self._shared = board.make(self._rows)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        """By the row that each has of what they share."""
        self._is_ending = False
        self._next_start = 0.0

    def keep(self) -> None:
        """Start them, replace those that end, and return when it is time to."""
        while not self._is_ending or self._running:
            self._fill()
            got = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS)
            self._forget_ended()
            if got is None or got.si_signo == signal.SIGCHLD:
                continue
            number = signal.Signals(got.si_signo)
            self._pass_on(number)
            if number is signal.SIGHUP:
                return

    def _fill(self) -> None:
        free = [row for row in range(self._rows) if row not in self._running]
        if not free or self._is_ending or time.monotonic() < self._next_start:
            return
        self._next_start = time.monotonic() + _PAUSE_SECONDS
        for row in free:
            self._running[row] = self._start(row)

    def _forget_ended(self) -> None:
        ended = [row for row, each in self._running.items() if each.poll() is not None]
        for row in ended:
            del self._running[row]
            # Its connections went with it.
            Board.of(self._shared, row, self._rows).clear(row)

    def _start(self, row: int) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "hutch.gateway.worker"],
            stdin=subprocess.PIPE,
            # A signal of the terminal comes here, and from here in order.
            start_new_session=True,
            preexec_fn=_unblock,
            pass_fds=(self._shared,),
        )
        # Not among its arguments, and not in its environment: it may hold a password.
        if process.stdin is not None:
            shared = json.dumps((self._shared, row, self._rows))
            process.stdin.write(f"{self._settings.model_dump_json()}\n{shared}\n".encode())
            process.stdin.flush()
        log.info("Started", process=process.pid)
        return process

    def _pass_on(self, number: signal.Signals) -> None:
        self._is_ending = True
        for process in self._running.values():
            process.send_signal(number)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
