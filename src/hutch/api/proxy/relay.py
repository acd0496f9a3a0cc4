"""One request passed on to an app, and its answer passed back, both as they come."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Send

from hutch.api.proxy.headers import BadHeaderError, Headers, Way, to_browser
from hutch.api.proxy.upstream import (
    Answer,
    BrokenAnswerError,
    Connection,
    Place,
    Pool,
    StaleError,
)
from hutch.errors import AppError, AppTimeoutError, HutchError

RECHECK_SECONDS = 5.0
"""How soon somebody who may no longer is cut off from what they have open."""


class CutOffError(Exception):
    """The answer had begun and cannot be ended well: the browser has to see that it is torn."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A request on its way to an app."""

    method: str
    target: bytes
    """The path with the query, as the app gets it."""
    headers: Headers
    """As the app gets them, but for those that frame the body."""
    length: bytes | None
    """Of the body, where it is known."""
    chunked: bool
    """The body comes without a length."""
    way: Way

    @property
    def has_body(self) -> bool:
        return self.chunked or self.length not in {None, b"0"}

    def framed(self) -> Headers:
        if self.chunked:
            return [*self.headers, (b"transfer-encoding", b"chunked")]
        if self.length is not None:
            return [*self.headers, (b"content-length", self.length)]
        return self.headers


class Watch:
    """Looks now and then whether somebody still may, while something of theirs is open."""

    def __init__(self, still: Callable[[], Awaitable[None]], end: Callable[[], None]) -> None:
        self._still = still
        self._end = end
        self._task: asyncio.Task[None] | None = None
        # Most requests are over long before: they get no task.
        self._timer = asyncio.get_running_loop().call_later(RECHECK_SECONDS, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                await self._still()
            except HutchError as error:
                # A database that is away for a moment says nothing about what somebody may.
                if error.status < 500 or isinstance(error, AppError):
                    self._end()
                    return
            await asyncio.sleep(RECHECK_SECONDS)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


class Relay:
    def __init__(self, pool: Pool, passing: Passing, place: Place, seconds: float) -> None:
        """`seconds` is how long the app may take to begin an answer, once it has everything."""
        self._pool = pool
        self._passing = passing
        self._place = place
        self._seconds = seconds
        self._connection: Connection | None = None
        self._limit: asyncio.Timeout | None = None
        self._sent_all = False
        self._gone = False
        self._done = False
        self.status = 0
        """Of the answer, once it has begun."""
        self.is_endless = False
        """The answer has no length: it may go on for as long as the app likes."""

    def end(self) -> None:
        """Break it off."""
        self._gone = True
        if self._connection is not None:
            self._connection.abort()

    async def run(self, receive: Receive, send: Send) -> None:
        """Raises AppError while nothing of an answer was sent, and CutOffError after that."""
        try:
            await self._once(receive, send, fresh=self._passing.has_body)
        except StaleError:
            # It was kept from before, and closed meanwhile. Nothing of a body has been read.
            if self._passing.has_body or self._gone:
                raise
            await self._once(receive, send, fresh=True)

    async def _once(self, receive: Receive, send: Send, *, fresh: bool) -> None:
        connection = await self._pool.take(self._place, fresh=fresh)
        self._connection = connection
        passing = self._passing
        connection.begin(passing.method, passing.target, passing.framed())
        self._sent_all = not passing.has_body
        uploading = asyncio.create_task(self._upload(receive, connection))
        try:
            answer = await self._answer(connection)
            await self._pass_back(answer, connection, send)
        except BaseException:
            connection.abort()
            raise
        finally:
            uploading.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await uploading
        if self._sent_all:
            self._pool.give_back(self._place, connection)
        else:
            # It answered before it had everything: what it still expects is not known.
            connection.abort()

    async def _upload(self, receive: Receive, connection: Connection) -> None:
        """Pass the body on, then wait for the browser to go away."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                # So it says also when the answer is complete.
                if not self._done:
                    self.end()
                return
            if self._sent_all:
                continue
            body: bytes = message.get("body", b"")
            if body:
                await connection.send(body, chunked=self._passing.chunked)
                self._put_off()
            if not message.get("more_body", False):
                if self._passing.chunked:
                    connection.end_chunks()
                self._sent_all = True

    def _put_off(self) -> None:
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def _answer(self, connection: Connection) -> Answer:
        try:
            async with asyncio.timeout(self._seconds) as self._limit:
                return await connection.answer()
        except TimeoutError:
            raise AppTimeoutError(
                f"The app did not begin to answer within {self._seconds:g} s.",
                hint="It may be busy: try again later.",
            ) from None
        finally:
            self._limit = None

    async def _pass_back(self, answer: Answer, connection: Connection, send: Send) -> None:
        if not 200 <= answer.status < 600:
            raise BrokenAnswerError(f"The app answers with the status {answer.status}.")
        try:
            headers = to_browser(answer.headers, self._passing.way)
        except BadHeaderError:
            raise BrokenAnswerError("The app's answer has a header that is not valid.") from None
        self.is_endless = not any(name == b"content-length" for name, _ in headers)
        self.status = answer.status
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        try:
            async for piece in connection.body():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except AppError:
            raise CutOffError from None
        if self._gone:
            raise CutOffError
        self._done = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})
