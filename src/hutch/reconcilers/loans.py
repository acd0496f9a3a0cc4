"""Devices in containers, beside what leases say; and leases of machines that somebody stopped.

What differs is set right and told: a device without a lease is taken back as at the end of one, a
lease without its device gets it again. So does what goes on using a device that it has no lease of
any more: who hides an open file from the look at the end of the lease, in a socket's queue for
example, is found as soon as it is used. An instance on which an operation works is left alone, and
so is one on a node that is coming back: both know better.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from hutch.domain.accelerators import Accelerator
from hutch.domain.instances import Container, ContainerRole, InstanceState
from hutch.domain.leases import HOLDING, EndReason, Lease, LeaseState
from hutch.domain.nodes import Node
from hutch.domain.people import SYSTEM
from hutch.engine.base import Device, Engine, Observed, Power
from hutch.engine.plans import extra, missing, plan_all
from hutch.reconcilers.pauses import Pauses
from hutch.reconcilers.reach import answer, each_node
from hutch.services import scheduling, transitions
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.store import accelerators, containers, events, instances, leases, nodes, operations
from hutch.store.db import Session

log = structlog.get_logger(__name__)

STOPPED = timedelta(minutes=1)
"""A machine that was stopped outside hutch loses its leases after this long: a node that goes down
stops its machines first, and brings them back when it returns."""
_LATEST = 20
"""So many of an instance's latest leases are looked through for one that a device belonged to."""
_SETTLED = timedelta(seconds=15)
"""So long after the end of a lease its node's agent may still tell of its programs."""
_DOWN = frozenset({InstanceState.STOPPED, InstanceState.FAILED})


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says about one node."""

    node: Node
    engine: Engine
    leases: Mapping[str, Sequence[Lease]]
    """Those that have not ended, by the id of their instance."""
    containers: Mapping[str, Container]
    """Those that instances live in, by the instance's id."""
    pool: Sequence[Container]
    accelerators: Mapping[str, Accelerator]
    using: Mapping[str, frozenset[str]]
    """What each container's processes use, as the agent tells: accelerators' ids by its name."""

    def devices(self, held: Iterable[Lease]) -> tuple[Device, ...]:
        """What leases bring into their instance."""
        ids = _accelerators_of(held)
        return plan_all(each for id_, each in self.accelerators.items() if id_ in ids)


class Loans:
    def __init__(self, context: Context, clock: Callable[[], float]) -> None:
        self._context = context
        self._pauses = Pauses(clock)
        self._ending = Pauses(clock)

    async def compare(self, live: Sequence[Lease], working: set[str]) -> float | None:
        """Set right what differs; seconds after which to look again, if that is soon.

        `live`: every lease that has not ended, `working`: what operations work on.
        """
        async with self._context.db.read() as session:
            everything = await nodes.list_nodes(session)
            using = await _used_by_containers(session)
        self._ending.keep(using)
        self._pauses.keep(each.id for each in live if each.state is LeaseState.ACTIVE)
        return await each_node(
            "comparing leases",
            everything,
            lambda node: self._compare(
                node, [each for each in live if each.node_id == node.id], working, using
            ),
        )

    async def _compare(
        self,
        node: Node,
        live: Sequence[Lease],
        working: set[str],
        using: Mapping[str, frozenset[str]],
    ) -> float | None:
        engine = self._context.engines.of(node)
        if (await answer(engine.status())).boot_id != node.boot_id:
            return None
        seen = {each.name: each for each in await answer(engine.containers())}
        if not live and not any(each.devices or each.name in using for each in seen.values()):
            return None
        known = await self._load(node, engine, live, using)
        for row in known.pool:
            if (found := seen.get(row.engine_name)) is not None and found.devices:
                await self._take_from(known, found.name, [each.name for each in found.devices])
        waits: list[float] = []
        for instance_id in known.leases.keys() | known.containers.keys():
            if target(instance_id) not in working:
                row = known.containers.get(instance_id)
                found = seen.get(row.engine_name) if row else None
                waits += await self._look(known, instance_id, found, working)
        return min(waits, default=None)

    async def _load(
        self,
        node: Node,
        engine: Engine,
        live: Sequence[Lease],
        using: Mapping[str, frozenset[str]],
    ) -> _Known:
        async with self._context.db.read() as session:
            rows = await containers.list_containers(session, node_id=node.id)
            cards = await accelerators.list_accelerators(session, node_id=node.id)
        by_instance: dict[str, list[Lease]] = {}
        for lease in live:
            by_instance.setdefault(lease.instance_id, []).append(lease)
        return _Known(
            node=node,
            engine=engine,
            leases=by_instance,
            containers={
                each.instance_id: each
                for each in rows
                if each.role is ContainerRole.CURRENT and each.instance_id is not None
            },
            pool=[each for each in rows if each.role is ContainerRole.POOL],
            accelerators={each.id: each for each in cards},
            using=using,
        )

    async def _look(
        self, known: _Known, instance_id: str, seen: Observed | None, working: set[str]
    ) -> list[float]:
        """Compare one instance; seconds after which to look again, if that is soon."""
        live = known.leases.get(instance_id, ())
        if seen is None or seen.power is Power.STOPPED:
            return await self._end(instance_id) if live else []
        held = [each for each in live if each.state in HOLDING]
        if extra(seen.devices, known.devices(held)):
            await self._take_back(known, instance_id, seen.name)
        elif known.using.get(seen.name, frozenset()) - _accelerators_of(held):
            await self._end_users(known, instance_id, seen.name)
        if seen.power is Power.RUNNING:
            for lease in held:
                is_at_rest = transitions.target(lease.id) not in working
                lacks = missing(seen.devices, known.devices([lease]))
                if lease.state is LeaseState.ACTIVE and is_at_rest and lacks:
                    await self._bring_back(known, lease, seen.name)
        return []

    async def _end(self, instance_id: str) -> list[float]:
        """End the leases of a machine that does not run, and which nobody is about to start."""
        async with self._context.db.write() as session:
            await leases.lock_leases(session)
            instance = await instances.get_instance(session, instance_id)
            if await operations.live_operation(session, target(instance_id)) is not None:
                return []
            if instance is not None and instance.state not in _DOWN:
                return []
            if instance is not None and instance.drift is not None:
                left = instance.drift.since + STOPPED - self._context.now()
                if left > timedelta(0):
                    return [left.total_seconds()]
            reason = EndReason.DELETED if instance is None else EndReason.STOPPED
            ended = await transitions.end_all(
                session, self._context, SYSTEM, reason, instance_id=instance_id
            )
        if ended:
            self._context.hints.work.set()
            scheduling.poke(self._context)
        return []

    async def _bring_back(self, known: _Known, lease: Lease, container: str) -> None:
        """Give a lease the devices again that its container has lost."""
        if not self._pauses.is_due(lease.id):
            return
        seen = await answer(known.engine.get(container))
        lost = () if seen is None else missing(seen.devices, known.devices([lease]))
        if not lost:
            return
        async with self._context.db.write() as session:
            await leases.lock_leases(session)
            present = await leases.get_lease(session, lease.id)
            if (
                present is None
                or present.state is not LeaseState.ACTIVE
                or await operations.live_operation(session, target(lease.instance_id)) is not None
                or not await transitions.reattach(session, self._context, SYSTEM, present)
            ):
                return
            await self._tell_mended(session, present, "attached", [each.name for each in lost])
        self._pauses.tried(lease.id)
        self._context.hints.work.set()

    async def _take_back(self, known: _Known, instance_id: str, container: str) -> None:
        """Take devices from an instance's container that none of its leases has."""
        seen = await answer(known.engine.get(container))
        if seen is None:
            return
        async with self._context.db.write() as session:
            await leases.lock_leases(session)
            if await operations.live_operation(session, target(instance_id)) is not None:
                return
            live = await leases.list_live(session, instance_id=instance_id, states=HOLDING)
            strange = extra(seen.devices, known.devices(live))
            former = await self._former(session, known, instance_id, strange)
            if former is not None:
                # As at its end: what has them open is named, asked and ended.
                await transitions.ensure_detaching(session, self._context, SYSTEM, former)
                await self._tell_mended(session, former, "detached", strange)
        if former is not None:
            self._context.hints.work.set()
        elif strange:
            await self._take_from(known, container, strange)

    async def _end_users(self, known: _Known, instance_id: str, container: str) -> None:
        """End what uses an accelerator of a lease of its instance that has ended."""
        if not self._ending.is_due(container):
            return
        async with self._context.db.write() as session:
            await leases.lock_leases(session)
            live = await leases.list_live(session, instance_id=instance_id, states=HOLDING)
            strange = known.using[container] - _accelerators_of(live)
            past = await leases.list_leases(session, limit=_LATEST, instance_id=instance_id)
            former = next((each for each in past if strange & _accelerators_of([each])), None)
            if former is None or not self._has_settled(former):
                return
            if not await transitions.ensure_detaching(session, self._context, SYSTEM, former):
                return
            names = [known.accelerators[each].found.address for each in strange]
            await self._tell_mended(session, former, "ended", sorted(names))
        self._ending.tried(container)
        self._context.hints.work.set()

    def _has_settled(self, former: Lease) -> bool:
        ended = former.ended_at
        return ended is not None and ended + _SETTLED < self._context.now()

    async def _former(
        self, session: Session, known: _Known, instance_id: str, strange: Sequence[str]
    ) -> Lease | None:
        """The instance's lease that devices belonged to."""
        for lease in await leases.list_leases(session, limit=_LATEST, instance_id=instance_id):
            if {each.name for each in known.devices([lease])} & set(strange):
                return lease
        return None

    async def _take_from(self, known: _Known, container: str, strange: Sequence[str]) -> None:
        """Take devices from a container that never had a lease of them."""
        log.error("container had devices without a lease", container=container, devices=strange)
        await known.engine.detach(container, strange)
        async with self._context.db.write() as session:
            await events.record(
                session,
                SYSTEM,
                self._context.now(),
                "lease.mended",
                ("node", known.node.id, known.node.name),
                how="detached",
                devices=list(strange),
            )

    async def _tell_mended(
        self, session: Session, lease: Lease, how: str, devices: Sequence[str]
    ) -> None:
        log.warning("devices differ from a lease", lease=lease.id, how=how, devices=devices)
        await events.record(
            session,
            SYSTEM,
            self._context.now(),
            "lease.mended",
            ("lease", lease.id, lease.instance_name),
            owner_id=lease.owner_id,
            how=how,
            devices=list(devices),
        )


async def _used_by_containers(session: Session) -> dict[str, frozenset[str]]:
    """The accelerators that processes of each container use, as agents told last."""
    found: dict[str, set[str]] = {}
    for accelerator_id, reading in (await accelerators.list_readings(session)).items():
        for each in reading.processes:
            if each.container is not None:
                found.setdefault(each.container, set()).add(accelerator_id)
    return {name: frozenset(ids) for name, ids in found.items()}


def _accelerators_of(held: Iterable[Lease]) -> frozenset[str]:
    return frozenset(each for lease in held for each in lease.accelerators)
