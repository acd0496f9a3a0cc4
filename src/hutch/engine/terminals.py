"""A program on a terminal of its own inside a container: what every engine offers of one."""

from typing import Protocol


class EngineTerminal(Protocol):
    """One program with its terminal. Nothing is read ahead for whoever does not take it."""

    async def read(self) -> bytes:
        """What it printed next; empty once it has ended."""
        ...

    async def write(self, content: bytes) -> None:
        """What somebody types. Lost without a word when the program has ended."""
        ...

    async def resize(self, columns: int, rows: int) -> None: ...
