"""Bringing back what ran before a node, or its engine, restarted.

The engine's `boot_id` differs from the stored one until everything that should run has been begun;
it is stored last, so a crash in between does it all again, and what was begun already is found
running or busy. Incus starts most containers by itself: hutch waits until that has come to rest.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

import structlog

from hutch.domain.instances import Desired, Instance, InstanceState
from hutch.domain.nodes import Node
from hutch.domain.operations import Kind
from hutch.domain.people import SYSTEM
from hutch.engine.base import NodeStatus, Observed, Power
from hutch.errors import BusyError
from hutch.reconcilers.drift import STOPPED_OUTSIDE
from hutch.reconcilers.settling import SETTLE_SECONDS, Settling
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.services.operations import enqueue
from hutch.store import events, instances, nodes
from hutch.store.db import lock

log = structlog.get_logger(__name__)

SHUTDOWN = timedelta(minutes=5)
"""A node that goes down stops its containers first. A stop noticed no longer than this before it
was last seen was part of that; an older one was somebody's wish."""


class _ChangedError(Exception):
    """Someone else was faster: nothing of the transaction is wanted any more."""


class Restarts:
    def __init__(self, context: Context, clock: Callable[[], float]) -> None:
        self._context = context
        self._settling = Settling(clock)

    def fell(self, node: Node, instance: Instance, seen: Observed | None) -> bool:
        """Whether an instance is down because its node restarted, if it did."""
        return (
            instance.desired is Desired.RUNNING
            and seen is not None
            and seen.power is Power.STOPPED
            and not _was_stopped_before(node, instance)
        )

    async def bring_back(
        self,
        node: Node,
        status: NodeStatus,
        running: frozenset[str],
        fallen: Sequence[Instance],
        live: Collection[str],
    ) -> float | None:
        """Start what has fallen once the node has settled, then take the restart as dealt with.

        Answers after how many seconds to look again. `live` are the targets of live operations.
        """
        left = self._settling.left(node.id, status.boot_id, running)
        if left > 0:
            return left
        started = 0
        for instance in fallen:
            if target(instance.id) not in live:
                started += await self._start(instance)
        if started:
            self._context.hints.work.set()
        # What something else works on, a snapshot for one, may still be down when that ends.
        blocked = [
            instance
            for instance in fallen
            if target(instance.id) in live and instance.state is not InstanceState.STARTING
        ]
        if blocked and not self._settling.is_overdue(node.id):
            return SETTLE_SECONDS
        await self._deal_with(node, status, started)
        self._settling.done(node.id)
        return None

    async def _start(self, instance: Instance) -> bool:
        """Begin to start one instance; False when someone is at it, or no longer wants it."""
        try:
            async with self._context.db.write() as session:
                # First of all: from here on nobody else can begin anything on this instance.
                operation = await enqueue(
                    session,
                    self._context,
                    SYSTEM,
                    Kind.INSTANCE_START,
                    target(instance.id),
                    owner_id=instance.owner_id,
                    label=instance.name,
                    params={"instance": instance.id},
                    message="Waiting to begin: the node has restarted",
                )
                known = await instances.get_instance(session, instance.id)
                if known is None or known.desired is not Desired.RUNNING:
                    raise _ChangedError  # noqa: TRY301 - undoes the transaction
                await instances.update_instance(
                    session, instance.id, state=InstanceState.STARTING.value, drift=None
                )
                await events.record(
                    session,
                    SYSTEM,
                    self._context.now(),
                    "instance.start",
                    ("instance", instance.id, instance.name),
                    owner_id=instance.owner_id,
                    result="requested",
                    operation=operation.id,
                    reason="the node has restarted",
                )
        except (BusyError, _ChangedError):
            return False
        return True

    async def _deal_with(self, node: Node, status: NodeStatus, started: int) -> None:
        now = self._context.now()
        async with self._context.db.write() as session:
            await lock(session, f"node:{node.id}")
            known = await nodes.get_node(session, node.id)
            if known is None or known.boot_id != node.boot_id:
                return
            await nodes.update_node(session, node.id, boot_id=status.boot_id, seen_at=now)
            await events.record(
                session,
                SYSTEM,
                now,
                "node.restarted",
                ("node", node.id, node.name),
                started=started,
            )
        log.info("node has restarted", node=node.name, instances_started=started)


def _was_stopped_before(node: Node, instance: Instance) -> bool:
    """Whether someone had stopped it by hand well before the node went down."""
    drift = instance.drift
    return (
        drift is not None
        and drift.code == STOPPED_OUTSIDE
        and node.seen_at is not None
        and drift.since < node.seen_at - SHUTDOWN
    )
