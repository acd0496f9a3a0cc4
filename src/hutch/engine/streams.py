"""A connection to what listens inside a container: what every engine offers of one."""

from typing import Protocol

LINGER_SECONDS = 5.0
"""For how long what was written may still be taken after the end of a connection."""


class EngineStream(Protocol):
    """A connection. Little is read ahead for whoever does not take it."""

    async def read(self) -> bytes:
        """What came next; empty once the other side has closed."""
        ...

    async def write(self, content: bytes) -> None:
        """Waits while the other side does not take it; lost without a word once that has closed."""
        ...
