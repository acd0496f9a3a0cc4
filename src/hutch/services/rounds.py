"""Work that looks at everything each time: done once for all who ask for it together."""

import asyncio
from collections.abc import Awaitable, Callable


class Rounds:
    """Runs one round at a time. Who asks while one runs gets the next one, with all others."""

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def ask(self, work: Callable[[], Awaitable[None]]) -> asyncio.Future[None]:
        """The end of a round of `work` that begins after this call; nobody has to wait for it.

        `work` is the same for all who ask, and keeps its errors to itself. It goes on when the
        caller is cancelled.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running, work))
        return asyncio.shield(self._next)

    async def _after(
        self, running: asyncio.Task[None] | None, work: Callable[[], Awaitable[None]]
    ) -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        await work()
