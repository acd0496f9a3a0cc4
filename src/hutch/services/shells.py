"""Shells in instances that somebody sees through this process, kept for a while without anyone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from hutch.domain.instances import Instance
from hutch.domain.people import Actor
from hutch.engine.base import Engine
from hutch.engine.terminals import EngineTerminal
from hutch.errors import HutchError, TooManyRequestsError

SCROLLBACK = 256 * 1024
"""Bytes of what was printed that a new connection is shown."""
PIECE = 64 * 1024
ALONE_SECONDS = 0.05
"""Pause between two reads while nobody is there: what prints without end is not to cost much."""
_OPENS_WITHIN = 30.0

# The two arguments are an account that hutch checked and an id that hutch made: neither can be
# anything but letters, digits and '-'.
_SHELL = """\
export LANG="${LANG:-C.UTF-8}"
if command -v tmux >/dev/null 2>&1; then
    exec runuser -l "$1" --session-command "LANG=$LANG exec tmux -u new-session -A -s $2"
fi
exec runuser -l "$1" --session-command "LANG=$LANG exec \\"\\$SHELL\\" -l"
"""

log = structlog.get_logger("hutch.terminals")
Send = Callable[[bytes], Awaitable[None]]


class Session:
    """One shell, and who sees it at the moment."""

    def __init__(self, owner_id: str, instance: Instance, session_id: str) -> None:
        self.user_id = owner_id
        self.instance = instance
        self.id = session_id
        self.ended = asyncio.Event()
        self.failure: HutchError | None = None
        self._scrollback = bytearray()
        self._terminal: EngineTerminal | None = None
        self._opened = asyncio.Event()
        self._viewer: _Viewer | None = None
        self._task: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def is_watched(self) -> bool:
        return self._viewer is not None

    async def begin(self, engine: Engine, name: str, columns: int, rows: int) -> None:
        """Start the shell. Raises what the engine refuses with."""
        self._task = asyncio.create_task(self._run(engine, name, columns, rows))
        opening = asyncio.create_task(self._opened.wait())
        ending = asyncio.create_task(self.ended.wait())
        try:
            async with asyncio.timeout(_OPENS_WITHIN):
                await asyncio.wait((opening, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            ending.cancel()
        if self.failure is not None:
            raise self.failure

    async def _run(self, engine: Engine, name: str, columns: int, rows: int) -> None:
        argv = ["sh", "-c", _SHELL, "sh", self.instance.owner_name, f"hutch-{self.id}"]
        try:
            async with engine.terminal(
                name, argv, environment={"TERM": "xterm-256color"}, columns=columns, rows=rows
            ) as terminal:
                self._terminal = terminal
                self._opened.set()
                await self._pass_on(terminal)
        except HutchError as error:
            self.failure = error
        except Exception:
            log.exception("a terminal broke", instance=self.instance.name)
        finally:
            self.ended.set()

    async def _pass_on(self, terminal: EngineTerminal) -> None:
        while content := await terminal.read():
            for start in range(0, len(content), PIECE):
                piece = content[start : start + PIECE]
                self._scrollback += piece
                if len(self._scrollback) > 2 * SCROLLBACK:
                    del self._scrollback[:-SCROLLBACK]
                viewer = self._viewer
                if viewer is not None:
                    # Nothing more is read, and the shell waits, until this is taken.
                    await viewer.show(piece)
            if self._viewer is None:
                await asyncio.sleep(ALONE_SECONDS)

    async def write(self, content: bytes) -> None:
        if self._terminal is not None:
            await self._terminal.write(content)

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None:
            await self._terminal.resize(columns, rows)

    def replay(self) -> bytes:
        """What was printed last, from the beginning of a line on where there is one."""
        last = bytes(self._scrollback[-SCROLLBACK:])
        if len(last) < SCROLLBACK:
            return last
        return last[last.find(b"\n", 0, 4096) + 1 :]

    @asynccontextmanager
    async def watched(self, send: Send, keep_seconds: float) -> AsyncGenerator["_Viewer"]:
        """Show it to somebody; whoever saw it before sees it no longer."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._viewer is not None:
            self._viewer.leave()
        viewer = _Viewer(send)
        # What it has missed comes first; what is printed meanwhile waits for that.
        async with viewer.turn:
            self._viewer = viewer
            missed = self.replay()
            if missed:
                await send(missed)
        try:
            yield viewer
        finally:
            viewer.leave()
            if self._viewer is viewer:
                self._viewer = None
                loop = asyncio.get_running_loop()
                self._expiry = loop.call_later(keep_seconds, self.end)

    def end(self) -> None:
        """End the shell."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._task is not None:
            self._task.cancel()
        self.ended.set()


class _Viewer:
    """One connection at which a shell is seen."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.turn = asyncio.Lock()
        self.left = asyncio.Event()

    def leave(self) -> None:
        self.left.set()

    async def show(self, piece: bytes) -> None:
        """Send a piece, unless this connection is over before it is taken."""
        sending = asyncio.ensure_future(self._show(piece))
        leaving = asyncio.ensure_future(self.left.wait())
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await sending

    async def _show(self, piece: bytes) -> None:
        async with self.turn:
            if not self.left.is_set():
                await self._send(piece)


class Shells:
    """The shells of this process."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str, str], Session] = {}

    def find(self, actor: Actor, instance: Instance, session_id: str) -> Session | None:
        session = self._sessions.get((actor.user_id, instance.id, session_id))
        return None if session is None or session.ended.is_set() else session

    def check_room(self, actor: Actor, most: int) -> None:
        """Raise TooManyRequestsError when a person who may have `most` can have no more."""
        self._who_makes_room(actor.user_id, most)

    def add(self, session: Session, most: int) -> None:
        """Take a new one in. Raises TooManyRequestsError when its person can have no more."""
        alone = self._who_makes_room(session.user_id, most)
        if alone is not None:
            self.remove(alone)
        self._sessions[(session.user_id, session.instance.id, session.id)] = session

    def _who_makes_room(self, user_id: str, most: int) -> Session | None:
        """The one that was left alone longest, if there is no room without that."""
        own = [each for key, each in self._sessions.items() if key[0] == user_id]
        if len(own) < most:
            return None
        alone = next((each for each in own if not each.is_watched), None)
        if alone is None:
            raise TooManyRequestsError(f"You have {most} terminals open.", retry_after=60)
        return alone

    def remove(self, session: Session) -> None:
        session.end()
        self._sessions.pop((session.user_id, session.instance.id, session.id), None)

    def sweep(self) -> None:
        for session in [each for each in self._sessions.values() if each.ended.is_set()]:
            self.remove(session)

    def close(self) -> None:
        for session in list(self._sessions.values()):
            self.remove(session)
