"""A session of somebody who logs in to the gateway itself: one command, run and brought back."""

# asyncssh says nothing of the types that its channels carry.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Mapping
from typing import Any, cast

import asyncssh
import structlog
from asyncssh.constants import EXTENDED_DATA_STDERR

from hutch.cli import remote
from hutch.cli.exits import FAILED, UNAVAILABLE, USAGE
from hutch.domain.people import Actor
from hutch.errors import HutchError, TooManyRequestsError
from hutch.gateway import commands, messages
from hutch.gateway.commands import NoCommandError
from hutch.gateway.passes import Passes
from hutch.gateway.smith import CutOffError, Smith
from hutch.gateway.streams import Source, Target
from hutch.gateway.wire import Connection, Held
from hutch.services.slots import Slots

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_LARGEST = 10_000
_CHUNK = 64 * 1024
_END_OF_TRANSMISSION = b"\x04"
_SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}

log = structlog.get_logger("hutch.gateway")


class Errands:
    """What all errands of a gateway share."""

    def __init__(self, smith: Smith, passes: Passes, server_url: str) -> None:
        self.smith = smith
        self.passes = passes
        self.server_url = server_url
        self.slots = Slots("commands", each=8, all_=64)


class Errand(Held, asyncssh.SSHServerSession[bytes]):
    """One session. What the command says is read no faster than the client takes it."""

    def __init__(self, errands: Errands, guest: object, actor: Actor, place: str) -> None:
        super().__init__()
        self._errands = errands
        self._guest = guest
        self._actor = actor
        self._place = place
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._connection: Connection | None = None
        self._terminal: tuple[str, tuple[int, int, int, int]] | None = None
        self._line: str | None = None
        self._refusal = ""
        self._sources: list[Source] = []
        self._target: Target | None = None
        self._early: bytearray | None = bytearray()
        """What was typed before there was a command to read it; None when nobody will."""
        self._has_ended_input = False
        self._id: int | None = None
        self._master: int | None = None

    # ---- what the client asks for -------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        self._channel = cast("asyncssh.SSHServerChannel[bytes]", chan)
        self._connection = cast("Connection", self._channel.get_connection())
        self._connection.add_source(self)

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        term = term_type if _TERM.fullmatch(term_type) else "dumb"
        self._terminal = term, term_size
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._line = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        # It is answered below: ssh does not show why a subsystem is refused.
        is_copy = subsystem == "sftp"
        text = messages.NO_FILES if is_copy else messages.NO_SUBSYSTEM.format(name=subsystem[:80])
        self._refusal = text
        return True

    def session_started(self) -> None:
        if self._connection is not None:
            self._connection.create_task(self._run())

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._master is not None:
            _resize(self._master, (width, height, pixwidth, pixheight))

    def signal_received(self, signal: str) -> None:
        self._signal(_SIGNALS.get(signal))

    def break_received(self, msec: int) -> bool:
        self._signal(signal.SIGINT)
        return True

    def _signal(self, number: signal.Signals | None) -> None:
        if number is not None and self._id is not None:
            self._errands.smith.signal(self._id, number)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._target is not None:
            self._target.write(data)
        elif self._early is not None:
            self._early += data
            if len(self._early) > _CHUNK:
                self._set_reading(wanted=False)

    def eof_received(self) -> bool:
        self._has_ended_input = True
        if self._target is not None:
            self._end_input()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        if self._connection is not None:
            self._connection.sources.discard(self)
        self._signal(signal.SIGHUP)
        self._close()

    def pause_writing(self) -> None:
        self.hold("window")

    def resume_writing(self) -> None:
        self.release("window")

    def stop_reading(self) -> None:
        for source in self._sources:
            source.pause()

    def go_on_reading(self) -> None:
        for source in self._sources:
            source.resume()

    # ---- running it ---------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            code = await self._do()
        except NoCommandError as error:
            code = self._fail(str(error), USAGE)
        except TooManyRequestsError:
            code = self._fail(messages.TOO_MANY_COMMANDS, UNAVAILABLE)
        except HutchError as error:
            code = self._fail(f"{error.message} {error.hint}".strip(), UNAVAILABLE)
        except CutOffError:
            code = self._fail(messages.CUT_OFF, FAILED)
        except Exception:
            log.exception("An errand failed", person=self._actor.name)
            code = self._fail(messages.BROKEN, FAILED)
        if self._channel is not None:
            self._channel.exit(code)

    def _fail(self, text: str, code: int) -> int:
        if self._channel is not None:
            end = "\r\n" if self._terminal else "\n"
            self._channel.write(f"{text}{end}".encode(), EXTENDED_DATA_STDERR)
        return code

    async def _do(self) -> int:
        if self._refusal:
            raise NoCommandError(self._refusal)
        words = commands.parse(self._line)
        with self._errands.slots.take(self._actor.user_id):
            token = await self._errands.passes.of(self._guest, self._actor)
            log.info("Command", person=self._actor.name, command=words[0])
            ended = await self._begin(words, self._environment(token))
            try:
                # Its streams end when nobody has them any more; then nothing is left to be said.
                await asyncio.gather(*(source.ended() for source in self._sources))
                return await ended
            finally:
                self._close()

    def _environment(self, token: str) -> dict[str, str]:
        """All of it: nothing of the gateway's, and of the client's what a terminal needs."""
        given = {} if self._channel is None else self._channel.get_environment()
        kept = {name: "1" for name in ("NO_COLOR",) if given.get(name)}
        return {
            "HOME": "/nonexistent",
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": self._terminal[0] if self._terminal else "dumb",
            "HUTCH_URL": self._errands.server_url,
            "HUTCH_TOKEN": token,
            remote.GATEWAY: self._place,
            remote.ADDRESS: self._actor.address or "",
            **{name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ},
            **kept,
        }

    async def _begin(self, words: list[str], environment: dict[str, str]) -> "asyncio.Future[int]":
        tty = self._terminal is not None
        streams = self._open_terminal() if tty else self._open_pipes(commands.wants_input(words))
        try:
            self._id, ended = await self._errands.smith.begin(words, environment, streams, tty=tty)
        finally:
            for stream in streams:
                os.close(stream)
        if self._channel is None:
            # The client left meanwhile.
            self._signal(signal.SIGHUP)
        return ended

    def _open_terminal(self) -> list[int]:
        """A pseudo-terminal; the command's side of it."""
        master, its = os.openpty()
        os.set_blocking(master, False)
        self._master = master
        if self._terminal is not None:
            _resize(master, self._terminal[1])
        self._take_input(Target(os.dup(master), self._want))
        self._sources = [Source(master, self._say)]
        self._start_sources()
        return [its]

    def _open_pipes(self, with_input: bool) -> list[int]:
        """A pipe for each stream; the command's sides of them."""
        read_out, write_out = os.pipe()
        read_error, write_error = os.pipe()
        for number in (read_out, read_error):
            os.set_blocking(number, False)
        self._sources = [Source(read_out, self._say), Source(read_error, self._say_error)]
        self._start_sources()
        if not with_input:
            self._early = None
            self._set_reading(wanted=True)
            return [os.open(os.devnull, os.O_RDONLY), write_out, write_error]
        read_in, write_in = os.pipe()
        os.set_blocking(write_in, False)
        self._take_input(Target(write_in, self._want))
        return [read_in, write_out, write_error]

    def _start_sources(self) -> None:
        if self.is_held:
            self.stop_reading()

    def _take_input(self, target: Target) -> None:
        self._target = target
        early, self._early = self._early, None
        self._set_reading(wanted=True)
        target.write(bytes(early or b""))
        if self._has_ended_input:
            self._end_input()

    def _end_input(self) -> None:
        if self._target is None:
            return
        if self._master is not None:
            self._target.write(_END_OF_TRANSMISSION)
        else:
            self._target.end()

    def _want(self, wanted: bool) -> None:
        """The command is behind with its input, or is no longer."""
        self._set_reading(wanted=wanted)

    def _set_reading(self, *, wanted: bool) -> None:
        if self._channel is not None:
            (self._channel.resume_reading if wanted else self._channel.pause_reading)()

    def _say(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)

    def _say_error(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data, EXTENDED_DATA_STDERR)

    def _close(self) -> None:
        self._master = None
        for each in (*self._sources, *([self._target] if self._target else ())):
            each.close()


def _resize(terminal: int, size: tuple[int, int, int, int]) -> None:
    width, height, *pixels = (max(0, min(each, _LARGEST)) for each in size)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, *pixels))
