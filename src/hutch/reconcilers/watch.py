"""Listens to every node's engine, so that a change there is looked at within a second."""

import asyncio

import structlog

from hutch.domain.nodes import Node
from hutch.engine.base import Engine
from hutch.services.context import Context
from hutch.store import nodes

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.5
"""Changes come in bursts, and a machine that restarts is down for a moment: wait for the rest."""


class Watch:
    """What should be: one listener per node. What is: `_listeners`."""

    name = "watch"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._listeners: dict[str, tuple[Engine, asyncio.Task[None]]] = {}
        self._soon: asyncio.TimerHandle | None = None

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            wanted = {node.id: node for node in await nodes.list_nodes(session)}
        for node_id in self._listeners.keys() - wanted.keys():
            await self._stop(node_id)
        for node in wanted.values():
            engine = self._context.engines.of(node)
            known = self._listeners.get(node.id)
            if known is not None and known[0] is engine and not known[1].done():
                continue
            if known is not None:
                await self._stop(node.id)
            self._listeners[node.id] = (engine, asyncio.create_task(self._listen(node, engine)))
        return None

    async def close(self) -> None:
        for node_id in tuple(self._listeners):
            await self._stop(node_id)
        if self._soon is not None:
            self._soon.cancel()

    async def _listen(self, node: Node, engine: Engine) -> None:
        try:
            async for _ in engine.changes():
                self._hint()
        except Exception:
            # The next pass listens anew.
            log.exception("listening to an engine failed", node=node.name)

    def _hint(self) -> None:
        if self._soon is None:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(GATHER_SECONDS, self._wake)

    def _wake(self) -> None:
        self._soon = None
        self._context.hints.reconcile.set()

    async def _stop(self, node_id: str) -> None:
        _, task = self._listeners.pop(node_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
