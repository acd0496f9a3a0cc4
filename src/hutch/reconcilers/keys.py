"""Instances that lack their owner's latest SSH keys: a push that failed, or was overtaken."""

import time
from collections.abc import Callable

from hutch.domain.people import SYSTEM
from hutch.services.context import Context
from hutch.services.keys import push_keys
from hutch.store import instances, operations

FIRST_PAUSE = 15.0
"""Seconds until an instance whose push did not help is tried again; doubled each time."""
LONGEST_PAUSE = 3600.0


class Keys:
    name = "keys"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._tried: dict[str, tuple[int, float]] = {}
        """Per instance that is behind: pushes begun, and when the next may begin."""

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            behind = {found[0] for found in await instances.behind_on_keys(session)}
            if not behind and not self._tried:
                return None
            live = await operations.live_targets(session)
        self._tried = {key: value for key, value in self._tried.items() if key in behind}
        now = self._clock()
        idle = {key for key in behind if f"keys:{key}" not in live}
        due = {key for key in idle if self._tried.get(key, (0, now))[1] <= now}
        if not due:
            return None
        async with self._context.db.write() as session:
            begun = await push_keys(session, self._context, SYSTEM)
        for key in idle:
            times = self._tried.get(key, (0, now))[0]
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(times, 16))
            self._tried[key] = (times + 1, now + pause)
        if begun:
            self._context.hints.work.set()
        return None
