"""Work that may never come back: what asks a device may wait for a driver that has hung."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, from a thread that keeps no program from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = work()
        except Exception as error:
            failure = error
            _tell(loop, result, lambda: result.set_exception(failure))
        else:
            _tell(loop, result, lambda: result.set_result(value))

    threading.Thread(target=run, daemon=True).start()
    return await result


def _tell(
    loop: asyncio.AbstractEventLoop, result: "asyncio.Future[T]", tell: Callable[[], None]
) -> None:
    def unless_nobody_waits() -> None:
        if not result.done():
            tell()

    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(unless_nobody_waits)
