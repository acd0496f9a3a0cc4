"""Leases: the queue looked at, what got stuck set going, and devices beside what leases say.

The pass of the scheduler belongs to whoever changes something; here it runs because time goes by,
and because a hint may have been lost. See `loans.py` for the devices.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import structlog

from hutch.domain.instances import InstanceState
from hutch.domain.leases import Lease, LeaseState
from hutch.domain.people import SYSTEM
from hutch.reconcilers.loans import Loans
from hutch.reconcilers.pauses import Pauses
from hutch.services import scheduling
from hutch.services.context import Context
from hutch.services.notices import deliver
from hutch.services.notices import target as notice_target
from hutch.services.transitions import ensure_detaching, reattach, target
from hutch.store import instances, leases, notices, operations
from hutch.store.db import Session

log = structlog.get_logger(__name__)

_MOVING = frozenset({LeaseState.ATTACHING, LeaseState.DETACHING})


class Leases:
    name = "leases"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._loans = Loans(context, clock)
        self._telling = Pauses(clock)

    async def reconcile(self) -> float | None:
        next_at = await self._schedule()
        async with self._context.db.read() as session:
            live = await leases.list_live(session)
            working = await operations.live_targets(session)
            delivered = await notices.delivered(session, _announced(live))
        stranded = [
            each for each in live if each.state in _MOVING and target(each.id) not in working
        ]
        untold = [each for each in live if _is_untold(each, delivered, working)]
        self._telling.keep(each.id for each in untold)
        if stranded or untold:
            await self._set_going(stranded, untold)
        again = await self._loans.compare(live, working)
        if next_at is not None:
            left = max(0.0, (next_at - self._context.now()).total_seconds())
            again = left if again is None else min(left, again)
        return again

    async def _schedule(self) -> datetime | None:
        """Look at the queue, where there is anything to look at; when to look again."""
        async with self._context.db.read() as session:
            if not await leases.list_live(session):
                return None
        return await scheduling.run_pass(self._context)

    async def _set_going(self, stranded: Sequence[Lease], untold: Sequence[Lease]) -> None:
        """Begin again what no operation works on although one should."""
        begun = 0
        async with self._context.db.write() as session:
            await leases.lock_leases(session)
            for each in stranded:
                begun += await self._move_on(session, each)
            for each in untold:
                begun += await self._tell_again(session, each)
        if begun:
            self._context.hints.work.set()

    async def _move_on(self, session: Session, stranded: Lease) -> bool:
        lease = await leases.get_lease(session, stranded.id)
        if lease is None or lease.state is not stranded.state:
            return False
        log.error("lease was moving although no operation worked on it", lease=lease.id)
        begin = reattach if lease.state is LeaseState.ATTACHING else ensure_detaching
        return await begin(session, self._context, SYSTEM, lease)

    async def _tell_again(self, session: Session, untold: Lease) -> bool:
        """Bring a notice that did not arrive, to a machine that may have been down."""
        if untold.announcement is None or not self._telling.is_due(untold.id):
            return False
        notice = await notices.get_notice(session, untold.announcement.notice_id)
        instance = await instances.get_instance(session, untold.instance_id)
        if notice is None or instance is None or instance.state is not InstanceState.RUNNING:
            return False
        self._telling.tried(untold.id)
        return await deliver(session, self._context, notice, instance.name)


def _announced(live: Sequence[Lease]) -> list[str]:
    return [each.announcement.notice_id for each in live if each.announcement is not None]


def _is_untold(lease: Lease, delivered: Mapping[str, datetime], working: set[str]) -> bool:
    told = lease.announcement
    return (
        told is not None
        and told.notice_id not in delivered
        and notice_target(told.notice_id) not in working
    )
