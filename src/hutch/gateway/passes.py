"""Tokens with which commands act for the people that gave them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from hutch.domain.people import Actor
from hutch.errors import HutchError
from hutch.services import tokens
from hutch.services.context import Context

_LASTING = timedelta(minutes=10)
"""Of a token that nobody gives back, because the gateway was killed."""
_PROLONG_SECONDS = 120.0
_TITLE = "ssh session"

log = structlog.get_logger("hutch.gateway")


class Passes:
    """Lends each connection a token when it first needs one, and takes it back at its end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lent: dict[object, asyncio.Future[tuple[str, str]]] = {}
        self._returned: set[str] = set()
        self._changed = asyncio.Event()

    async def of(self, guest: object, actor: Actor) -> str:
        """The token of a connection. Raises HutchError."""
        known = self._lent.get(guest)
        if known is None:
            known = asyncio.ensure_future(self._lend(actor))
            self._lent[guest] = known
        try:
            clear, _ = await asyncio.shield(known)
        except HutchError:
            self._lent.pop(guest, None)
            raise
        return clear

    async def _lend(self, actor: Actor) -> tuple[str, str]:
        clear, token = await tokens.lend(self._context, actor, _TITLE, _LASTING)
        return clear, token.id

    def end(self, guest: object) -> None:
        """A connection is over."""
        known = self._lent.pop(guest, None)
        if known is not None:
            known.add_done_callback(self._take_back)

    def _take_back(self, lent: "asyncio.Future[tuple[str, str]]") -> None:
        if not lent.cancelled() and lent.exception() is None:
            self._returned.add(lent.result()[1])
            self._changed.set()

    async def run(self) -> None:
        """Give back what was returned, and prolong the others, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_PROLONG_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                await self._quietly(self._prolong)
            self._changed.clear()
            await self._quietly(self.give_back)

    async def _prolong(self) -> None:
        lent = [each.result()[1] for each in self._lent.values() if _is_lent(each)]
        if lent:
            await tokens.prolong(self._context, lent, _LASTING)

    async def give_back(self) -> None:
        returned, self._returned = self._returned, set()
        if returned:
            try:
                await tokens.give_back(self._context, returned)
            except HutchError:
                self._returned |= returned
                raise

    async def _quietly(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except HutchError as error:
            log.warning("Tokens of sessions are not kept up to date", reason=error.message)
        except Exception:
            log.exception("Tokens of sessions could not be kept up to date")


def _is_lent(lent: "asyncio.Future[tuple[str, str]]") -> bool:
    return lent.done() and not lent.cancelled() and lent.exception() is None
