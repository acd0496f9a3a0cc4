"""Instances beside their containers.

A difference that someone made outside hutch is shown on the instance and never fought: hutch does
not start what an administrator stopped by hand. The one exception is a restart of the node or its
engine, which nobody meant for any instance: what should run is started again, see `restarts.py`.

An instance on which an operation works is left alone, here and below: the operation knows better.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hutch.domain.instances import ContainerRole, Drift, Instance, InstanceState
from hutch.domain.nodes import Node
from hutch.domain.operations import Operation
from hutch.domain.people import SYSTEM
from hutch.domain.ports import Port
from hutch.engine.base import Engine, Observed, Power
from hutch.operations.machine import forwards_of
from hutch.reconcilers.drift import AT_REST, Verdict, judge
from hutch.reconcilers.reach import answer, each_node
from hutch.reconcilers.restarts import Restarts
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.store import containers, events, instances, nodes, operations, ports
from hutch.store.db import Session

log = structlog.get_logger(__name__)

SUSPENDED_SECONDS = 60.0
"""A container that is neither running nor stopped for less than this is on its way."""
_LATEST = 50
"""How many of the latest operations are looked through for one that came in between."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One node's instances as the database has them."""

    instances: list[Instance]
    container: dict[str, str]
    """The name of the container by the instance's id."""
    ports: dict[str, list[Port]]
    """By the instance's id."""
    live: set[str]
    """The targets that operations work on."""


class Instances:
    name = "instances"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._restarts = Restarts(context, clock)
        self._suspended: dict[str, float] = {}
        """Since when containers are neither running nor stopped."""

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            everything = await nodes.list_nodes(session)
        return await each_node("comparing instances", everything, self._compare)

    async def _compare(self, node: Node) -> float | None:
        engine = self._context.engines.of(node)
        # Asked first: a list may come from a cache, also that of an engine which is away.
        status = await answer(engine.status())
        seen = {each.name: each for each in await answer(engine.containers())}
        self._note_suspended(seen)
        found = await self._load(node)
        restarted = status.boot_id != node.boot_id
        fallen: list[Instance] = []
        for instance in found.instances:
            if instance.state is InstanceState.FAILED:
                continue
            name = found.container.get(instance.id)
            container = seen.get(name) if name else None
            if restarted and self._restarts.fell(node, instance, container):
                fallen.append(instance)
                continue
            if target(instance.id) in found.live or self._is_on_its_way(container):
                continue
            forwards = forwards_of(node, found.ports.get(instance.id, []))
            if not judge(instance, container, forwards).is_known(instance):
                await self._set_right(node, engine, instance.id, name, restarted)
        if not restarted:
            return None
        running = frozenset(name for name, each in seen.items() if each.power is Power.RUNNING)
        return await self._restarts.bring_back(node, status, running, fallen, found.live)

    async def _load(self, node: Node) -> _Found:
        async with self._context.db.read() as session:
            rows = await instances.list_instances(session, node_id=node.id)
            current = {
                each.instance_id: each.engine_name
                for each in await containers.list_containers(session, node_id=node.id)
                if each.role is ContainerRole.CURRENT and each.instance_id is not None
            }
            leading = await ports.of_node(session, node.id)
            live = await operations.live_targets(session)
        return _Found(rows, current, leading, live)

    def _note_suspended(self, seen: dict[str, Observed]) -> None:
        """Remember since when; what is on other nodes is kept by its name being unique."""
        for name, each in seen.items():
            if each.power is Power.OTHER:
                self._suspended.setdefault(name, self._clock())
            elif self._suspended:
                self._suspended.pop(name, None)

    def _is_on_its_way(self, seen: Observed | None) -> bool:
        if seen is None or seen.power is not Power.OTHER:
            return False
        since = self._suspended.setdefault(seen.name, self._clock())
        return self._clock() - since < SUSPENDED_SECONDS

    async def _set_right(
        self, node: Node, engine: Engine, instance_id: str, name: str | None, restarted: bool
    ) -> None:
        """Look at one instance again, closely, and write what is different.

        The list may be older than what the database says by now. So the container is asked for
        anew, and nothing is written if an operation worked on the instance meanwhile.
        """
        async with self._context.db.read() as session:
            before = {each.id for each in await self._latest(session)}
            if await operations.live_operation(session, target(instance_id)) is not None:
                return
        seen = None if name is None else await answer(engine.get(name))
        async with self._context.db.write() as session:
            # Takes the row's lock: an operation that begins now waits for this transaction,
            # and one that has begun is visible below.
            await instances.update_instance(session, instance_id, id=instance_id)
            instance = await instances.get_instance(session, instance_id)
            current = await containers.current(session, instance_id)
            if (
                instance is None
                or (current.engine_name if current else None) != name
                or await self._was_worked_on(session, instance_id, before)
                or (restarted and self._restarts.fell(node, instance, seen))
                or self._is_on_its_way(seen)
            ):
                return
            leading = await ports.list_ports(session, instance_id)
            verdict = judge(instance, seen, forwards_of(node, leading))
            if not verdict.is_known(instance):
                await self._write(session, instance, verdict)

    async def _latest(self, session: Session) -> list[Operation]:
        return await operations.list_operations(session, limit=_LATEST)

    async def _was_worked_on(self, session: Session, instance_id: str, before: set[str]) -> bool:
        """Whether an operation works on the instance, or has begun and ended since `before`."""
        if await operations.live_operation(session, target(instance_id)) is not None:
            return True
        fresh = [each for each in await self._latest(session) if each.id not in before]
        return len(fresh) == _LATEST or any(each.target == target(instance_id) for each in fresh)

    async def _write(self, session: Session, instance: Instance, verdict: Verdict) -> None:
        if instance.state not in AT_REST:
            log.error(
                "instance was moving although no operation worked on it",
                instance=instance.id,
                state=instance.state.value,
            )
        await instances.set_state(session, instance.id, verdict.state)
        if verdict.state is InstanceState.FAILED:
            await instances.update_instance(session, instance.id, error=_LOST)
        if not verdict.is_same_drift(instance):
            await self._write_drift(session, instance, verdict)

    async def _write_drift(self, session: Session, instance: Instance, verdict: Verdict) -> None:
        now = self._context.now()
        was = None if instance.drift is None else instance.drift.code
        drift = None
        if verdict.code is not None:
            # The same difference in other words is as old as it was.
            known = instance.drift if was == verdict.code else None
            drift = Drift(verdict.code, verdict.message, known.since if known else now)
        await instances.set_drift(session, instance.id, drift)
        await events.record(
            session,
            SYSTEM,
            now,
            "instance.drift",
            ("instance", instance.id, instance.name),
            owner_id=instance.owner_id,
            code=verdict.code,
            message=verdict.message,
            was=was,
        )
        log.warning("instance drift", instance=instance.id, code=verdict.code, was=was)


_LOST = "Its creation was interrupted and nothing of it is left. Delete it and create it anew."
