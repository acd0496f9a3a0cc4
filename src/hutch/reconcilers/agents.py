"""Agents that fell silent: nothing is known of their nodes' accelerators, so none is granted.

That one speaks again is written down where it speaks, not here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from hutch.domain.nodes import Node
from hutch.domain.people import SYSTEM
from hutch.services.context import Context
from hutch.store import accelerators, events, nodes

log = structlog.get_logger(__name__)


LOOKS = 3
"""How often an agent is looked at within the time after which it counts as silent."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """When an agent last said something, by both clocks, and when this was last looked at."""

    seen_at: datetime
    since: float
    looked: float


class Agents:
    name = "agents"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        """By the node's id."""

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            everything = await nodes.list_nodes(session)
        longest = self._context.settings.agent_silence_seconds
        again: float | None = None
        for node in everything:
            if node.agent_seen_at is None or node.agent_silent_since is not None:
                self._heard.pop(node.id, None)
            elif self._silence(node.id, node.agent_seen_at) >= longest:
                await self._fell_silent(node)
            else:
                again = longest / LOOKS
        return again

    def _silence(self, node_id: str, seen_at: datetime) -> float:
        """Seconds since an agent said something.

        By a clock that nobody sets, as far as this server has watched: a leap of the other one is
        no silence.
        """
        now = self._clock()
        age = max(0.0, (self._context.now() - seen_at).total_seconds())
        known = self._heard.get(node_id)
        if known is None:
            since = now - age
        elif known.seen_at == seen_at:
            since = known.since
        else:
            # It was said after the last look, however old the other clock makes it.
            since = max(now - age, known.looked)
        self._heard[node_id] = _Heard(seen_at, since, now)
        return now - since

    async def _fell_silent(self, node: Node) -> None:
        now = self._context.now()
        async with self._context.db.write() as session:
            if not await nodes.silence_agent(session, node.id, node.agent_seen_at):
                return
            unknown = await accelerators.mark_unknown(session, node.id)
            await events.record(
                session,
                SYSTEM,
                now,
                "node.agent_silent",
                ("node", node.id, node.name),
                result="failed",
                accelerators=unknown,
            )
        log.warning("agent is silent", node=node.name, accelerators=unknown)
        self._context.hints.reconcile.set()
