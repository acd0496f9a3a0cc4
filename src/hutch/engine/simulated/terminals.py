"""A terminal of a simulated machine: it echoes, and runs the programs that there are, line by line.

Of its own it knows `stty size`, `flood` (prints without end, until Ctrl-C) and `exit`.
"""

import asyncio
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from hutch.engine.simulated import programs
from hutch.engine.simulated.programs import Process
from hutch.engine.simulated.state import State

_PROMPT = b"$ "
_FLOOD = b"the quick brown fox jumps over the lazy dog\r\n" * 360
_INTERRUPT, _END, _ERASE = 3, 4, 127


@asynccontextmanager
async def opened(
    state: State, name: str, check_alive: Callable[[], None], *, columns: int, rows: int
) -> AsyncGenerator["Terminal"]:
    terminal = Terminal(state, name, check_alive, columns, rows)
    running = asyncio.create_task(terminal.run())
    try:
        yield terminal
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Terminal:
    """As `hutch.engine.terminals.EngineTerminal` says."""

    def __init__(
        self, state: State, name: str, check_alive: Callable[[], None], columns: int, rows: int
    ) -> None:
        self._state = state
        self._name = name
        self._check_alive = check_alive
        self._size = columns, rows
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        # As a real terminal: who prints waits for who reads.
        self._printed: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)
        self._flooding: asyncio.Task[None] | None = None
        self._has_ended = False

    async def read(self) -> bytes:
        if self._has_ended and self._printed.empty():
            return b""
        return await self._printed.get()

    async def write(self, content: bytes) -> None:
        self._check_alive()
        await self._typed.put(content)

    async def resize(self, columns: int, rows: int) -> None:
        self._size = columns, rows

    async def run(self) -> None:
        line = bytearray()
        try:
            await self._printed.put(_PROMPT)
            while True:
                for typed in await self._typed.get():
                    if typed == _INTERRUPT:
                        await self._stop_flood()
                        line.clear()
                        await self._printed.put(b"^C\r\n" + _PROMPT)
                    elif typed == _END and not line:
                        return
                    elif typed == _ERASE:
                        del line[-1:]
                    elif typed not in b"\r\n":
                        line.append(typed)
                        await self._printed.put(bytes([typed]))
                    elif await self._enter(bytes(line)):
                        return
                    else:
                        line.clear()
        finally:
            await self._stop_flood()
            self._has_ended = True
            with suppress(asyncio.QueueFull):
                self._printed.put_nowait(b"")

    async def _enter(self, line: bytes) -> bool:
        """Do what a line says; whether it ends the shell."""
        await self._printed.put(b"\r\n")
        try:
            argv = shlex.split(line.decode(errors="replace"))
        except ValueError:
            argv = ["sh:", "bad", "quotes"]
        if argv == ["exit"]:
            return True
        if argv == ["flood"]:
            self._flooding = asyncio.create_task(self._flood())
            return False
        if argv == ["stty", "size"]:
            await self._printed.put(f"{self._size[1]} {self._size[0]}\r\n".encode())
        elif argv:
            known = programs.ENVIRONMENT
            process = Process(self._state, self._name, argv, b"", known, 0, 0, "/")
            ran = await programs.run(process)
            await self._printed.put((ran.stdout + ran.stderr).replace(b"\n", b"\r\n") or b"\r")
        await self._printed.put(_PROMPT)
        return False

    async def _flood(self) -> None:
        while True:
            await self._printed.put(_FLOOD)

    async def _stop_flood(self) -> None:
        if self._flooding is not None:
            self._flooding.cancel()
            await asyncio.gather(self._flooding, return_exceptions=True)
            self._flooding = None
