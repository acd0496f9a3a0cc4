"""A process that has the command line loaded, and makes a process of it for each command.

`python -m hutch.gateway.forge`, with one end of a pair of sockets as its standard input. Starting
Python for each command would take longer than the command does: a copy of this process begins at
once. Each command is a process of its own, in a session of its own, with nothing of the gateway's:
its streams come over the socket, its environment is what the request says, and it ends with the
gateway at the latest.

    to here     {"run": ID, "words": [...], "environment": {...}, "tty": BOOL}   with its streams
                {"signal": NUMBER, "id": ID}
    from here   {"ended": ID, "code": NUMBER}
"""

import ctypes
import fcntl
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import termios
from contextlib import suppress
from importlib import import_module
from io import FileIO, TextIOWrapper
from typing import Any

from hutch.cli.app import MODULES, OVER_SSH, run

LONGEST_REQUEST = 160 * 1024
MOST_STREAMS = 3
_SOON = "rich.console rich.progress rich.table typer.rich_utils shlex getpass tempfile".split()
"""What some commands import when they run."""
_KILLED_BY = 128
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CPU_SECONDS = 600
_MEMORY = 2 * 1024**3
_FILES = 64


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    _load()
    # Everybody inherits it: it must not be the gateway's end.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    Forge(control).serve()


def _load() -> None:
    for module, commands in MODULES.items():
        if OVER_SSH.intersection(commands):
            import_module(f"hutch.cli.{module}")
    for name in _SOON:
        import_module(name)
    # What is there now stays: no child copies it only to look for garbage.
    gc.collect()
    gc.freeze()


class Forge:
    """Answers one gateway's requests until that one is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ids: dict[int, int] = {}
        """The request's id by the process's."""

    def serve(self) -> None:
        told, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(tell)
        signal.signal(signal.SIGCHLD, _do_nothing)
        # A signal of the terminal or the service is for the gateway; this one goes when that does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(told, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if told in ready:
                    os.read(told, 4096)
                    self._tell_ended()
                if self._control in ready and not self._take():
                    break
        for pid in self._ids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    def _take(self) -> bool:
        """Do what is asked; False when there is nobody left to ask."""
        data, streams, _, _ = socket.recv_fds(self._control, LONGEST_REQUEST, MOST_STREAMS)
        if not data:
            return False
        asked: dict[str, Any] = json.loads(data)
        if "run" in asked:
            self._run(asked, streams)
        else:
            self._signal(asked["id"], asked["signal"])
        for stream in streams:
            os.close(stream)
        return True

    def _run(self, asked: dict[str, Any], streams: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            _become(asked["words"], asked["environment"], streams, tty=asked["tty"])
        self._ids[pid] = asked["run"]

    def _signal(self, id_: int, number: int) -> None:
        for pid, known in self._ids.items():
            if known == id_:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _tell_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            told = {"ended": self._ids.pop(pid), "code": code if code >= 0 else _KILLED_BY - code}
            self._control.send(json.dumps(told).encode())


def _do_nothing(_number: int, _frame: object) -> None:
    """What matters is that a byte is written when the signal comes."""


def _become(
    words: list[str], environment: dict[str, str], streams: list[int], *, tty: bool
) -> None:
    """Be the command, to its end."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _confine()
        os.setsid()
        if tty:
            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for wanted in range(MOST_STREAMS):
            os.dup2(streams[0 if tty else wanted], wanted)
        os.closerange(MOST_STREAMS, _FILES * 16)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = TextIOWrapper(_reader(0), encoding="utf-8")
        sys.stdout = TextIOWrapper(_writer(1), encoding="utf-8", line_buffering=tty)
        sys.stderr = TextIOWrapper(_writer(2), encoding="utf-8", line_buffering=True)
        code = _code_of(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        # Whatever it is: this must never come back as a second forge.
        code = code or 1
    finally:
        os._exit(code)


def _reader(number: int) -> Any:
    from io import BufferedReader

    return BufferedReader(FileIO(number, "r", closefd=False))


def _writer(number: int) -> Any:
    from io import BufferedWriter

    return BufferedWriter(FileIO(number, "w", closefd=False))


def _code_of(words: list[str]) -> int:
    try:
        return run(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def _confine() -> None:
    """End with the forge, gain no rights, and take no more of the machine than a command needs."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
