"""The scheduling transaction: look at everything, decide, and carry the decision out, at once.

One pass at a time over all servers: it takes its turn before it looks (`lock_leases`), as does
everything else that gives or takes accelerators, so that what it decides on is still so when it
writes. A pass that fails changes nothing; the next one decides anew.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from hutch.domain.leases import EndReason, Lease, LeaseState
from hutch.domain.people import SYSTEM
from hutch.domain.scheduler import Plan, Policy, Request, Situation, decide
from hutch.errors import HutchError
from hutch.services.announcements import warn, withdraw
from hutch.services.context import Context
from hutch.services.transitions import begin_detach, grant
from hutch.store import leases, scheduling
from hutch.store.db import Session
from hutch.store.scheduling import Picture

log = structlog.get_logger(__name__)


def poke(context: Context) -> asyncio.Future[None]:
    """Have the queue looked at now; the answer is the end of that pass, if anybody wants it.

    Called after every commit that changes what a decision depends on. Many calls while one pass
    runs lead to one more. Losing one costs time: the reconciler looks as well.
    """

    async def one_pass() -> None:
        try:
            await run_pass(context)
        except HutchError as error:
            log.warning("no look at the queue now", code=error.code, reason=error.message)
        except Exception:
            log.exception("the look at the queue failed")

    return context.scheduling.ask(one_pass)


async def run_pass(context: Context) -> datetime | None:
    """Grant, warn, reclaim and end what is due now. When time alone changes something next."""
    async with context.db.write() as session:
        await leases.lock_leases(session)
        picture = await read(session, context, context.now())
        # Only now: who waited for a turn must not decide by an older clock than who had it, and
        # what is granted must not begin before that which was seen to have ended.
        now = context.now()
        plan = decide(situation(context, picture, now))
        changed = await _apply(session, context, picture, plan, now)
    for lease_id in changed:
        context.hints.changed(lease_id)
    if changed:
        context.hints.work.set()
    return min(filter(None, (plan.next_at, _next_reminder(context, picture, now))), default=None)


async def read(session: Session, context: Context, now: datetime) -> Picture:
    """Everything that decisions about leases depend on; after `lock_leases`."""
    settings = context.settings
    return await scheduling.read(
        session,
        now,
        silence=timedelta(seconds=settings.agent_silence_seconds),
        quota=settings.quota_accelerators,
        half_life=timedelta(hours=settings.usage_half_life_hours),
    )


def situation(context: Context, picture: Picture, now: datetime) -> Situation:
    """The same in the scheduler's words."""
    settings = context.settings
    return Situation(
        now=now,
        devices=picture.devices,
        requests=picture.requests,
        groups=picture.groups,
        maximum=picture.maximum,
        usage=picture.usage,
        policy=Policy(
            protection=timedelta(minutes=settings.borrow_protection_minutes),
            reclaim_warning=timedelta(minutes=settings.reclaim_warning_minutes),
        ),
    )


async def _apply(
    session: Session, context: Context, picture: Picture, plan: Plan, now: datetime
) -> set[str]:
    """Write a plan down; the leases that it changed."""
    remind = _to_remind(context, picture, now) - {*plan.expired, *plan.reclaim, *plan.warn}
    touched = await leases.get_leases(session, _touched(plan) | remind)
    by_id = {lease.id: lease for lease in touched}
    changed: set[str] = set()
    for lease_id, reason in _endings(plan):
        if await begin_detach(session, context, SYSTEM, by_id[lease_id], reason):
            changed.add(lease_id)
    for lease_id in plan.pardon:
        await withdraw(session, context, SYSTEM, by_id[lease_id], "no longer needed")
        changed.add(lease_id)
    for lease_id, due in plan.warn.items():
        if _is_news(by_id[lease_id], due):
            await warn(session, context, by_id[lease_id], EndReason.PREEMPTED, due)
            changed.add(lease_id)
    free = _Slots(picture)
    for given in plan.grants:
        lease = by_id[given.request_id]
        if await grant(session, context, lease, free.take(given.devices), now):
            changed.add(lease.id)
    for lease_id in sorted(remind):
        lease = by_id[lease_id]
        if lease.expires_at is not None:
            await warn(session, context, lease, EndReason.EXPIRED, lease.expires_at)
            changed.add(lease_id)
    for lease_id, explanation in plan.explanations.items():
        said = explanation.as_dict()
        if picture.explained.get(lease_id) != said:
            await leases.update_lease(session, lease_id, explanation=said)
            changed.add(lease_id)
    return changed


def _touched(plan: Plan) -> set[str]:
    granted = {each.request_id for each in plan.grants}
    return {*plan.expired, *plan.reclaim, *plan.pardon, *plan.warn, *granted}


def _endings(plan: Plan) -> Iterable[tuple[str, EndReason]]:
    yield from ((lease_id, EndReason.EXPIRED) for lease_id in plan.expired)
    yield from ((lease_id, EndReason.PREEMPTED) for lease_id in plan.reclaim)


def _is_news(lease: Lease, due: datetime) -> bool:
    """Whether a warning of being reclaimed says more than what the holder was told already."""
    told = lease.announcement
    return told is None or told.reason is EndReason.EXPIRED or told.due > due


class _Slots:
    """The places of accelerators that are free, as a plan takes them."""

    def __init__(self, picture: Picture) -> None:
        self._sharers = {device.id: device.sharers for device in picture.devices}
        self._taken: dict[str, set[int]] = {}
        for each in picture.held:
            self._taken.setdefault(each.accelerator_id, set()).add(each.slot)

    def take(self, devices: Iterable[str]) -> dict[str, int]:
        """The lowest free place of each."""
        slots: dict[str, int] = {}
        for device in devices:
            taken = self._taken.setdefault(device, set())
            # With none left it is the first: the index refuses that, and the pass.
            slots[device] = min(set(range(self._sharers[device])) - taken, default=0)
            taken.add(slots[device])
        return slots


def _reminder(context: Context, request: Request, picture: Picture) -> datetime | None:
    """When the holder is to be told that the time is nearly up; None if they have been told."""
    warning = timedelta(minutes=context.settings.lease_warning_minutes)
    if request.state is not LeaseState.ACTIVE or request.expires_at is None or not warning:
        return None
    if request.id in picture.announced:
        return None
    # A short lease is not announced as ending when it has only begun.
    return request.expires_at - min(warning, request.duration / 2)


def _to_remind(context: Context, picture: Picture, now: datetime) -> set[str]:
    moments = ((each.id, _reminder(context, each, picture)) for each in picture.requests)
    return {lease_id for lease_id, moment in moments if moment is not None and moment <= now}


def _next_reminder(context: Context, picture: Picture, now: datetime) -> datetime | None:
    moments = (_reminder(context, each, picture) for each in picture.requests)
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
