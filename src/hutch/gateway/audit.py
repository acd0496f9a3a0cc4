"""Who came, written to the audit without making anyone wait for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import structlog

from hutch.domain.people import Actor
from hutch.errors import HutchError
from hutch.services import gateway
from hutch.services.context import Context
from hutch.services.gateway import Visit

_GATHER_SECONDS = 0.2
"""Logins that come together are written together."""
_AGAIN_SECONDS = 5.0
_ONE_REFUSAL_SECONDS = 60.0
"""Refusals of one address within so long after the first are one more record, with their number."""
_MOST = 10_000

log = structlog.get_logger("hutch.gateway")


class Audit:
    """Keeps visits until they are written: some milliseconds, or until the database is back."""

    def __init__(self, context: Context, clock: Callable[[], float]) -> None:
        self._context = context
        self._clock = clock
        self._visits: list[Visit] = []
        self._refusals: dict[str, tuple[float, Visit | None]] = {}
        self._changed = asyncio.Event()

    def entered(self, actor: Actor, fingerprint: str) -> None:
        self._add(Visit(actor, (fingerprint,), self._now()))

    def refused(self, address: str, request_id: str, fingerprints: tuple[str, ...]) -> None:
        """The first of an address is told at once, further ones once a minute."""
        actor = replace(gateway.NOBODY, address=address, request_id=request_id)
        visit = Visit(actor, fingerprints, self._now())
        if len(self._refusals) >= _MOST:
            return
        if address not in self._refusals:
            self._refusals[address] = self._clock() + _ONE_REFUSAL_SECONDS, None
            self._add(visit)
            return
        until, more = self._refusals[address]
        times = 1 if more is None else more.times + 1
        self._refusals[address] = until, replace(visit, times=times)

    def _now(self) -> datetime:
        return self._context.now()

    def _add(self, visit: Visit) -> None:
        if len(self._visits) < _MOST:
            self._visits.append(visit)
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await self._changed.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._gather_refusals()
            await self.write()

    def _gather_refusals(self, *, all_: bool = False) -> None:
        now = self._clock()
        for address, (until, more) in list(self._refusals.items()):
            if now >= until or all_:
                del self._refusals[address]
                if more is not None:
                    self._add(more)

    async def write(self, *, last: bool = False) -> None:
        """Write what there is; at the end also what would still be gathered."""
        if last:
            self._gather_refusals(all_=True)
        self._changed.clear()
        visits, self._visits = self._visits, []
        if not visits:
            return
        try:
            await gateway.record(self._context, visits)
        except HutchError as error:
            log.warning("Logins are not written yet", count=len(visits), reason=error.message)
            self._visits = visits + self._visits
        except Exception:
            log.exception("Logins could not be written", count=len(visits))
