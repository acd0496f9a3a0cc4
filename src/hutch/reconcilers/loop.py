"""Runs every reconciler at start, when something changed, and now and then in any case.

Each has a task of its own, so one that fails or waits for a silent engine holds up no other. What
wakes them is only a hint: whatever was missed is found by the next pass, at the latest after
`settings.reconcile_seconds`. Several servers may do this at once, since everything is written in
transactions that look again first.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from hutch.errors import HutchError
from hutch.reconcilers.agents import Agents
from hutch.reconcilers.idleness import Idleness
from hutch.reconcilers.instances import Instances
from hutch.reconcilers.keys import Keys
from hutch.reconcilers.leases import Leases
from hutch.reconcilers.nodes import Nodes
from hutch.reconcilers.orphans import Orphans
from hutch.reconcilers.ports import Ports
from hutch.reconcilers.retention import Retention
from hutch.reconcilers.shares import Shares
from hutch.reconcilers.warm_pool import WarmPool
from hutch.reconcilers.watch import Watch
from hutch.services.context import Context

log = structlog.get_logger(__name__)

SHORTEST_PAUSE = 0.25
"""Seconds between two passes of one reconciler, however often it is woken."""
BREATHER = 10.0
"""It pauses for this many times what its pass took, so that it never takes the machine over."""
JITTER = 0.2
"""The share of a pause that is left to chance, so that several servers do not march in step."""


class Reconciler(Protocol):
    @property
    def name(self) -> str: ...

    async def reconcile(self) -> float | None:
        """Look once, and set right. Seconds after which to look again, if that is soon."""
        ...


class Reconcilers:
    """All reconcilers of one server."""

    def __init__(self, context: Context, reconcilers: Sequence[Reconciler] | None = None) -> None:
        self._context = context
        self._watch = Watch(context)
        self._reconcilers: Sequence[Reconciler] = reconcilers or (
            Nodes(context),
            Agents(context),
            self._watch,
            Instances(context),
            Leases(context),
            Idleness(context),
            Orphans(context),
            Keys(context),
            Shares(context),
            Ports(context),
            WarmPool(context),
            Retention(context),
        )
        self._woken = {each.name: asyncio.Event() for each in self._reconcilers}

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_hints_on())
                for reconciler in self._reconcilers:
                    group.create_task(self._repeat(reconciler))
        finally:
            await self.close()

    async def once(self) -> None:
        """One pass of each, one after the other."""
        for reconciler in self._reconcilers:
            await self._try(reconciler)

    async def close(self) -> None:
        """Stop listening to the engines; `run` does that itself when it ends."""
        await self._watch.close()

    async def _pass_hints_on(self) -> None:
        while True:
            await self._context.hints.reconcile.wait()
            self._context.hints.reconcile.clear()
            for woken in self._woken.values():
                woken.set()

    async def _repeat(self, reconciler: Reconciler) -> None:
        woken = self._woken[reconciler.name]
        longest = self._context.settings.reconcile_seconds
        while True:
            # Cleared before the pass: what changes while it looks makes it look again.
            woken.clear()
            started = time.monotonic()
            again = await self._try(reconciler)
            took = time.monotonic() - started
            shortest = min(longest, max(SHORTEST_PAUSE, BREATHER * took))
            await asyncio.sleep(shortest * random.uniform(1 - JITTER, 1))  # noqa: S311
            wait = longest if again is None else min(longest, again)
            left = max(0.0, wait * random.uniform(1 - JITTER, 1) - shortest)  # noqa: S311
            # Not `wait_for`: before Python 3.12 it forgets a cancellation that meets a hint.
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await woken.wait()

    async def _try(self, reconciler: Reconciler) -> float | None:
        try:
            return await reconciler.reconcile()
        except HutchError as error:
            log.warning("reconciler gave up until its next pass", reconciler=reconciler.name,
                        code=error.code, reason=error.message)  # fmt: skip
        except Exception:
            log.exception("reconciler failed", reconciler=reconciler.name)
        return None
