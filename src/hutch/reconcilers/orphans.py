"""Containers without a row, and rows of the pool without a container.

hutch never silently deletes what it does not know: after a database was restored from a backup,
a container without a row may be a person's machine. So an orphan is reported. It is removed only
when this process itself saw its row while it was nobody's, or on its way in or out: then it is
what a broken-off creation or deletion left in the engine.
"""

import time
from collections.abc import Callable

import structlog

from hutch.domain.instances import Container, ContainerRole
from hutch.domain.nodes import Node
from hutch.domain.operations import LIVE, Kind
from hutch.domain.people import SYSTEM
from hutch.engine.base import Observed
from hutch.errors import BusyError
from hutch.reconcilers.reach import answer, each_node
from hutch.reconcilers.warm_pool import TakenError, making, removing, withdraw
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import containers, events, nodes, operations
from hutch.store.db import lock

log = structlog.get_logger(__name__)

LEFT_SECONDS = 600.0
"""How long a leftover is only looked at: whatever still makes or removes it has ended by then."""
MOST_LEFTOVERS = 3
"""More than this many at once are not the leftovers of a crash, but a database that lost rows."""
_MANY = 1000
_PASSING = frozenset({Kind.INSTANCE_CREATE.value, Kind.INSTANCE_DELETE.value})


class Orphans:
    name = "orphans"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._since: dict[str, dict[str, float]] = {}
        """By node: since when a container is known to have no row."""
        self._expendable: set[str] = set()
        """Ids of containers that held nothing of anyone's when their row was last seen."""
        self._removed: set[str] = set()
        """Orphans whose removal has been begun."""

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            everything = await nodes.list_nodes(session)
        return await each_node("looking for orphans", everything, self._look)

    async def _look(self, node: Node) -> None:
        if node.unreachable_since is not None:
            return
        engine = self._context.engines.of(node)
        await answer(engine.status())
        seen = {each.name: each for each in await answer(engine.containers())}
        # Read after the list: a row is there before its container, and goes after it.
        async with self._context.db.read() as session:
            rows = await containers.list_containers(session)
            live = await operations.list_operations(session, states=LIVE, limit=_MANY)
        named = {row.engine_name for row in rows}
        passing = {each.params.get("instance") for each in live if each.kind in _PASSING}
        self._note_expendable(rows, passing)
        orphans = [each for name, each in seen.items() if name not in named]
        await self._handle(node, await self._certain(node, orphans))
        targets = {each.target for each in live}
        for row in rows:
            if row.node_id == node.id and _is_leftover(row, row.engine_name in seen, targets):
                await self._remove_row(node, row)

    def _note_expendable(self, rows: list[Container], passing: set[str | None]) -> None:
        for row in rows:
            if row.role is not ContainerRole.CURRENT or row.instance_id in passing:
                self._expendable.add(row.id)
            else:
                self._expendable.discard(row.id)
        if len(self._expendable) > _MANY:
            self._expendable &= {row.id for row in rows}

    async def _certain(self, node: Node, orphans: list[Observed]) -> list[Observed]:
        """Those that are still there: the list may be older than the rows."""
        known = self._since.get(node.id, {})
        engine = self._context.engines.of(node)
        return [
            each
            for each in orphans
            if each.name in known or await answer(engine.get(each.name)) is not None
        ]

    async def _handle(self, node: Node, orphans: list[Observed]) -> None:
        before = self._since.get(node.id, {})
        now = self._clock()
        self._since[node.id] = {each.name: before.get(each.name, now) for each in orphans}
        self._removed &= {name for names in self._since.values() for name in names}
        fresh = [each for each in orphans if each.name not in before]
        if fresh:
            await self._report(node, fresh)
        leftovers = [
            each
            for each in orphans
            if self._is_ours(each) and each.labels.get("container") in self._expendable
        ]
        if len(leftovers) > MOST_LEFTOVERS:
            return
        for each in leftovers:
            old = now - self._since[node.id][each.name] >= LEFT_SECONDS
            if old and each.name not in self._removed:
                await self._remove_container(node, each)

    def _is_ours(self, seen: Observed) -> bool:
        return seen.labels.get("lab") == self._context.vault.lab

    async def _report(self, node: Node, orphans: list[Observed]) -> None:
        """Log it, and record it unless another server, or this one before, has done so."""
        for each in orphans:
            log.warning("container without a row", node=node.name, container=each.name,
                        of_this_lab=self._is_ours(each))  # fmt: skip
        now = self._context.now()
        async with self._context.db.write() as session:
            await lock(session, "orphans")
            told = await events.list_events(session, limit=_MANY, action="container.orphan")
            known = {event.target_id for event in told}
            for each in orphans:
                if each.name not in known:
                    await events.record(
                        session,
                        SYSTEM,
                        now,
                        "container.orphan",
                        ("container", each.name, each.name),
                        node=node.name,
                        of_this_lab=self._is_ours(each),
                    )

    async def _remove_container(self, node: Node, orphan: Observed) -> None:
        container_id = orphan.labels["container"]
        try:
            async with self._context.db.write() as session:
                if await containers.get_container(session, container_id) is not None:
                    return
                await enqueue(
                    session,
                    self._context,
                    SYSTEM,
                    Kind.POOL_REMOVE,
                    removing(container_id),
                    owner_id=None,
                    label=orphan.name,
                    params={
                        "container": container_id,
                        "node": node.id,
                        "engine_name": orphan.name,
                    },
                )
        except BusyError:
            return
        self._removed.add(orphan.name)
        log.warning("removing a leftover container", node=node.name, container=orphan.name)
        self._context.hints.work.set()

    async def _remove_row(self, node: Node, row: Container) -> None:
        there = await answer(self._context.engines.of(node).get(row.engine_name)) is not None
        try:
            async with self._context.db.write() as session:
                known = await containers.get_container(session, row.id)
                made = await operations.live_operation(session, making(node.id))
                targets = {made.target} if made else set[str]()
                if known is None or not _is_leftover(known, there, targets):
                    return
                await withdraw(session, self._context, row)
        except (BusyError, TakenError):
            return
        log.warning("removing a leftover of the pool", node=node.name, container=row.engine_name)
        self._context.hints.work.set()


def _is_leftover(row: Container, there: bool, live: set[str]) -> bool:
    """Whether a row stands for nothing that anyone could still get.

    `live` are the targets of live operations: what they make or remove is theirs.
    """
    if row.instance_id is not None or removing(row.id) in live:
        return False
    if row.role is not ContainerRole.POOL:
        return True
    return not (there and row.ready) and making(row.node_id) not in live
