"""The gateway's end of the forge: starts it, asks it for processes, hears when they end."""

import asyncio
import itertools
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence

import structlog

_LONGEST_ANSWER = 4096

log = structlog.get_logger("hutch.gateway")


class CutOffError(Exception):
    """The forge is gone, and with it every command."""


class Smith:
    """One forge, started when it is first needed and again when it has died."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._ids = itertools.count()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Have a forge. It takes half a second to be warm; what is asked meanwhile waits for it."""
        async with self._starting:
            if self._control is not None:
                return
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "hutch.gateway.forge",
                    stdin=its.fileno(),
                    env=_environment(),
                )
            ours.setblocking(False)
            self._control = ours
            self._loop.add_reader(ours.fileno(), self._hear)

    async def close(self) -> None:
        """End the forge, and with it what it made."""
        process = self._process
        self._lose()
        if process is not None:
            await process.wait()

    async def begin(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        streams: Sequence[int],
        *,
        tty: bool,
    ) -> tuple[int, asyncio.Future[int]]:
        """Start a command on these streams, which are the caller's to close: its id, and its end.

        The end has the exit code, or CutOffError. Raises CutOffError when there is no forge.
        """
        await self.start()
        id_ = next(self._ids)
        asked = {"run": id_, "words": list(words), "environment": environment, "tty": tty}
        ended: asyncio.Future[int] = self._loop.create_future()
        self._waiting[id_] = ended
        self._ask(asked, streams)
        return id_, ended

    def signal(self, id_: int, number: int) -> None:
        """Send a signal to a command, if it still runs."""
        if id_ in self._waiting:
            self._ask({"signal": number, "id": id_})

    def _ask(self, asked: Mapping[str, object], streams: Sequence[int] = ()) -> None:
        data = json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            if self._control is None:
                raise CutOffError
            socket.send_fds(self._control, [data], list(streams))
        except OSError as error:
            log.warning("The forge could not be asked", reason=str(error))
            self._lose()
            raise CutOffError from None

    def _hear(self) -> None:
        try:
            data = b"" if self._control is None else self._control.recv(_LONGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.error("The forge is gone")
            self._lose()
            return
        told: dict[str, int] = json.loads(data)
        ended = self._waiting.pop(told["ended"], None)
        if ended is not None and not ended.done():
            ended.set_result(told["code"])

    def _lose(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        waiting, self._waiting = self._waiting, {}
        for ended in waiting.values():
            if not ended.done():
                ended.set_exception(CutOffError())


def _environment() -> dict[str, str]:
    """Nothing of hutch's own settings, which may hold a password."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HUTCH_")}
