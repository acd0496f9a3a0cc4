"""Requests that take long: given up as soon as nobody waits for the answer any more."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


async def attended(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None when it was given up as the client went away or the server stops.

    Only for requests without a body, or whose body has been read.
    """
    stopping: asyncio.Event = request.app.state.stopping
    working = asyncio.ensure_future(work)
    ends = [asyncio.ensure_future(_gone(request)), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait([working, *ends], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, *ends):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(working, *ends, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
