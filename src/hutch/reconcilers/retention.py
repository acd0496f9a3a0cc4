"""Forgets what is too old to be kept: events, ended operations, tokens, failed sign-ins."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from hutch.services.context import Context
from hutch.store import accelerators, events, notices, operations, revocations, tokens

log = structlog.get_logger(__name__)

EVERY = 3600.0
"""Seconds between two cleanings."""
_A_DAY = timedelta(days=1)


class Retention:
    """Once an hour, and only by a clock that has run evenly for that hour.

    A server whose clock wakes up years ahead must not delete the audit before someone has set it
    right.
    """

    name = "retention"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._even_since: tuple[float, datetime] | None = None

    async def reconcile(self) -> float | None:
        now = self._context.now()
        if self._even_since is None:
            self._even_since = (self._clock(), now)
            return None
        started, at = self._even_since
        passed = self._clock() - started
        jumped = abs((now - at).total_seconds() - passed) > EVERY / 2
        if passed < EVERY and not jumped:
            return None
        self._even_since = (self._clock(), now)
        if jumped:
            log.warning("the clock has jumped: nothing old is deleted for an hour")
            return None
        await self._clean(now)
        return None

    async def _clean(self, now: datetime) -> None:
        settings = self._context.settings
        window = timedelta(seconds=settings.login_window_seconds)
        async with self._context.db.write() as session:
            old_events = await events.delete_before(
                session, now - timedelta(days=settings.events_days)
            )
            ended = await operations.delete_ended(
                session, now - timedelta(days=settings.operations_days)
            )
            expired = await tokens.delete_expired(session, now - _A_DAY)
            await tokens.delete_failures(session, now - max(window, _A_DAY))
            await accelerators.delete_samples(session, now - timedelta(days=settings.samples_days))
            await revocations.delete_done(session, now - _A_DAY)
            await notices.delete_before(session, now - timedelta(days=settings.operations_days))
        if old_events or ended or expired:
            log.info("deleted what was old", events=old_events, operations=ended, tokens=expired)
