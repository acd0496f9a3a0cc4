"""Leases on which nobody computes: told first, then taken back.

A verdict needs a whole window of observations: where the node's agent was silent there is none, and
nothing is announced or taken back. Computing again withdraws the announcement, and so does an
extension, after which a new window begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import structlog

from hutch.domain.groups import IdlePolicy
from hutch.domain.idleness import Kind, Verdict, judge
from hutch.domain.leases import Announcement, EndReason, Lease, LeaseState
from hutch.domain.people import SYSTEM
from hutch.services import announcements, scheduling, transitions
from hutch.services.context import Context
from hutch.store import accelerators, groups, leases, nodes, notices
from hutch.store.accelerators import Sample
from hutch.store.db import Session

log = structlog.get_logger(__name__)

_QUIET = frozenset({Kind.HOLDING, Kind.IDLE})
_LATE = timedelta(minutes=5)
"""Samples are as old as they are long, and their span may begin before the window."""


@dataclass(frozen=True, slots=True)
class _Policies:
    """Who says when idle accelerators go back: the group, else the node, else the lab."""

    groups: Mapping[str, IdlePolicy | None]
    nodes: Mapping[str, IdlePolicy | None]
    lab: IdlePolicy

    def of(self, lease: Lease) -> IdlePolicy:
        return self.groups.get(lease.group_id or "") or self.nodes.get(lease.node_id) or self.lab


class Idleness:
    name = "idleness"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            active = await leases.list_live(session, states={LeaseState.ACTIVE})
            if not active:
                return None
            policies = await self._policies(session)
        waits = [await self._look(lease, policies.of(lease)) for lease in active]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _policies(self, session: Session) -> _Policies:
        return _Policies(
            {each.id: each.idle for each in await groups.list_groups(session)},
            {each.id: each.idle for each in await nodes.list_nodes(session)},
            self._context.settings.idle_policy,
        )

    async def _look(self, lease: Lease, policy: IdlePolicy) -> float | None:
        """Judge one lease and do what follows; seconds until what was announced is due."""
        now = self._context.now()
        verdict = await self._judge(lease, policy, now)
        # Whether its notice has arrived is asked where it is acted on.
        if decide(lease, verdict, policy, now, delivered=True) is not Act.NOTHING:
            await self._act(lease.id, verdict, policy, now)
        told = _told(lease)
        if told is None or told.due <= now:
            return None
        return (told.due - now).total_seconds()

    async def _judge(self, lease: Lease, policy: IdlePolicy, now: datetime) -> Verdict:
        """What the samples say of the time that counts for this lease."""
        async with self._context.db.read() as session:
            found = await accelerators.list_samples(
                session, lease.accelerators, now - policy.window - _LATE
            )
        samples: dict[str, list[Sample]] = {each: [] for each in lease.accelerators}
        for each in found:
            samples[each.accelerator_id].append(each)
        return judge(samples, policy, now, held_since=_counts_since(lease))

    async def _act(
        self, lease_id: str, verdict: Verdict, policy: IdlePolicy, now: datetime
    ) -> None:
        context = self._context
        async with context.db.write() as session:
            await leases.lock_leases(session)
            lease = await leases.get_lease(session, lease_id)
            if lease is None or lease.state is not LeaseState.ACTIVE:
                return
            told = _told(lease)
            delivered = told is not None and bool(
                await notices.delivered(session, [told.notice_id])
            )
            act = decide(lease, verdict, policy, now, delivered=delivered)
            if act is not Act.NOTHING:
                evidence = {**(lease.evidence or {}), "idleness": _noted(verdict)}
                await leases.update_lease(session, lease.id, evidence=evidence)
            if act is Act.WARN:
                due = now + policy.warning
                await announcements.warn(session, context, lease, EndReason.IDLE, due)
            elif act is Act.WITHDRAW:
                await announcements.withdraw(session, context, SYSTEM, lease, "busy again")
            elif act is Act.RECLAIM:
                await transitions.begin_detach(session, context, SYSTEM, lease, EndReason.IDLE)
        if act in {Act.WARN, Act.WITHDRAW, Act.RECLAIM}:
            log.info("idle lease", lease=lease_id, act=act.value, verdict=verdict.kind.value)
            context.hints.work.set()
            context.hints.changed(lease_id)
            scheduling.poke(context)


class Act(Enum):
    """What follows from a verdict."""

    NOTHING = "nothing"
    NOTE = "note"
    """It is another one than the lease shows."""
    WARN = "warn"
    WITHDRAW = "withdraw"
    RECLAIM = "reclaim"


def decide(
    lease: Lease, verdict: Verdict, policy: IdlePolicy, now: datetime, *, delivered: bool
) -> Act:
    """What to do about an active lease. `delivered`: the person has seen what was announced."""
    told = _told(lease)
    quiet = verdict.kind in _QUIET
    if told is not None and (verdict.kind is Kind.BUSY or not policy.window):
        return Act.WITHDRAW
    if told is not None and quiet and delivered and told.due <= now:
        return Act.RECLAIM
    if told is None and quiet and _may_be_told(lease, now + policy.warning):
        return Act.WARN
    return Act.NOTE if _is_news(lease, verdict) else Act.NOTHING


def _told(lease: Lease) -> Announcement | None:
    """What was announced to the holder because nobody computed."""
    told = lease.announcement
    return told if told is not None and told.reason is EndReason.IDLE else None


def _may_be_told(lease: Lease, due: datetime) -> bool:
    """Whether it ends later than that anyway, and is not about to be taken for another reason."""
    told = lease.announcement
    if told is not None and told.reason is EndReason.PREEMPTED:
        return False
    return lease.expires_at is None or lease.expires_at > due


def _is_news(lease: Lease, verdict: Verdict) -> bool:
    """Whether the lease shows another verdict, or an older view of a lease that is quiet."""
    shown: dict[str, Any] = (lease.evidence or {}).get("idleness", {})
    if shown.get("verdict") != verdict.kind.value:
        return True
    return verdict.kind in _QUIET and (
        shown.get("accelerators") != verdict.evidence.get("accelerators")
    )


def _noted(verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is kept with the lease."""
    since = None if verdict.since is None else verdict.since.isoformat()
    return {**verdict.evidence, "verdict": verdict.kind.value, "since": since}


def _counts_since(lease: Lease) -> datetime | None:
    """The beginning of the time on which it is judged: since it began, or was extended."""
    extended = (lease.evidence or {}).get("extended_at")
    moments = [lease.active_at, None if extended is None else datetime.fromisoformat(extended)]
    return max((each for each in moments if each is not None), default=None)
