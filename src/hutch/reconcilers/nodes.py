"""What each node's engine says of itself: whether it answers, its version, its capacity.

`boot_id` is not kept up here, and `seen_at` stands still once the engine has restarted: both tell
the reconciler of instances what to bring back, and it writes them when that has been begun.
"""

from datetime import timedelta
from typing import Any

import structlog

from hutch.domain.nodes import Node
from hutch.domain.people import SYSTEM
from hutch.engine.base import NodeStatus
from hutch.errors import EngineError, EngineUnavailableError, HutchError
from hutch.reconcilers.reach import answer, each_node
from hutch.services.context import Context
from hutch.store import events, nodes
from hutch.store.db import lock

log = structlog.get_logger(__name__)

SEEN_EVERY = timedelta(seconds=60)
"""How exact `seen_at` is: writing it at every look would keep the disk from ever sleeping."""
_NOTABLE = 100
"""The part of a node's disk, one hundredth, by which its use must change to be written at once."""


class Nodes:
    name = "nodes"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            everything = await nodes.list_nodes(session)
        return await each_node("looking at a node", everything, self._look)

    async def _look(self, node: Node) -> None:
        try:
            status = await answer(self._context.engines.of(node).status())
        except (EngineUnavailableError, EngineError) as error:
            if node.unreachable_since is None:
                await self._lost(node, error)
            return
        if node.unreachable_since is not None:
            await self._returned(node, status)
            return
        values = self._news(node, status)
        if values:
            async with self._context.db.write() as session:
                await nodes.update_node(session, node.id, **values)

    def _news(self, node: Node, status: NodeStatus) -> dict[str, Any]:
        """What is worth writing of a node that answered before and answers now."""
        told = {
            "cpus": status.cpus,
            "memory": status.memory,
            "disk": status.disk,
            "version": status.version,
        }
        has = node.capacity
        changed = (has.cpus, has.memory, has.disk, node.version) != tuple(told.values())
        filled = abs(status.disk_used - node.disk_used) * _NOTABLE > status.disk
        values: dict[str, Any] = told if changed else {}
        if changed or filled:
            values |= {"disk_used": status.disk_used}
        if status.boot_id == node.boot_id and self._is_old(node):
            values |= {"disk_used": status.disk_used, "seen_at": self._context.now()}
        return values

    def _is_old(self, node: Node) -> bool:
        # The distance, not the age: a clock that was set back must not stop the writing.
        return node.seen_at is None or abs(self._context.now() - node.seen_at) > SEEN_EVERY

    async def _lost(self, node: Node, error: HutchError) -> None:
        now = self._context.now()
        async with self._context.db.write() as session:
            await lock(session, f"node:{node.id}")
            known = await nodes.get_node(session, node.id)
            if known is None or known.unreachable_since is not None:
                return
            await nodes.update_node(session, node.id, unreachable_since=now)
            await events.record(
                session,
                SYSTEM,
                now,
                "node.unreachable",
                ("node", node.id, node.name),
                result="failed",
                reason=error.message,
            )
        log.warning("node does not answer", node=node.name, reason=error.message)

    async def _returned(self, node: Node, status: NodeStatus) -> None:
        now = self._context.now()
        async with self._context.db.write() as session:
            await lock(session, f"node:{node.id}")
            known = await nodes.get_node(session, node.id)
            if known is None or known.unreachable_since is None:
                return
            away = max(0, round((now - known.unreachable_since).total_seconds()))
            await nodes.update_node(
                session, node.id, unreachable_since=None, **self._news(known, status)
            )
            await events.record(
                session,
                SYSTEM,
                now,
                "node.returned",
                ("node", node.id, node.name),
                away_seconds=away,
            )
        log.info("node answers again", node=node.name, away_seconds=away)
        # What waited for it, the instances on it above all, is looked at now.
        self._context.hints.reconcile.set()
