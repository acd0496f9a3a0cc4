"""Borrowed leases that must make room: when each can at the earliest, and which of them do."""

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from hutch.domain.leases import LeaseState
from hutch.domain.situation import Policy, Request

PATIENCE = timedelta(minutes=1)
"""So long after its end was due a warning may still arrive. Then somebody else is looked for."""
BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


def micros(span: timedelta) -> int:
    """Whole microseconds: exact, where seconds in a float are not, and they do not overflow."""
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


class Standing(IntEnum):
    """How far a borrowed lease is on its way out; the first are taken before the others."""

    TOLD = 0
    """Its warning has arrived."""
    BEING_TOLD = 1
    """Its warning is on its way."""
    UNTOLD = 2
    UNREACHED = 3
    """Its warning did not arrive in time. It cannot be relied on."""
    ARRIVING = 4
    """It is still on its way into the instance, and cannot be told before it has arrived. Nobody
    who was told is let off for it."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a borrowed lease can be made to leave."""

    at: int
    """Microseconds from now, at the earliest."""
    standing: Standing


Leave = Callable[[Request], Exit | None]


def exit_of(request: Request, now: datetime, policy: Policy) -> Exit:
    """How a borrowed lease can be made to leave.

    Who was not told has to be told first, and not while the lease is protected.
    """
    warning = micros(policy.reclaim_warning)
    if request.reclaim_due is None:
        granted_at = request.granted_at or BEFORE_ALL
        protected = max(0, micros(granted_at - now) + micros(policy.protection))
        is_there = request.state is LeaseState.ACTIVE
        return Exit(protected + warning, Standing.UNTOLD if is_there else Standing.ARRIVING)
    due = max(0, micros(request.reclaim_due - now))
    if request.reclaim_delivered:
        return Exit(due, Standing.TOLD)
    if now < request.reclaim_due + PATIENCE:
        return Exit(due, Standing.BEING_TOLD)
    return Exit(warning, Standing.UNREACHED)


def is_due(request: Request, now: datetime) -> bool:
    """Whether a borrowed lease was told to leave, and its time has come. One that is still on its
    way into the instance is left alone until it has arrived."""
    return (
        request.state is LeaseState.ACTIVE
        and request.reclaim_delivered
        and request.reclaim_due is not None
        and request.reclaim_due <= now
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """What it would bring if a borrowed lease left."""

    request: Request
    standing: Standing
    devices: frozenset[str]

    def rank(self, missing: int, covered: AbstractSet[str]) -> tuple[int, datetime, str]:
        """The more, the better, up to what is missing; then the later granted, the better."""
        gain = min(missing, len(self.devices - covered))
        return (gain, self.request.granted_at or BEFORE_ALL, self.request.id)


def choose(need: int, offers: Sequence[Offer]) -> list[Offer]:
    """The borrowed leases that leave, so that `need` devices come free of those that they offer.

    Those that were told already come first. Beyond them as few as possible, and of those that
    would do, the one that was granted last. None is superfluous.
    """
    chosen: list[Offer] = []
    covered: Counter[str] = Counter()
    for standing in sorted({offer.standing for offer in offers}):
        pool = [offer for offer in offers if offer.standing is standing]
        while pool and len(covered) < need:
            missing = need - len(covered)
            best = max(pool, key=lambda offer: offer.rank(missing, covered.keys()))
            if best.devices <= covered.keys():
                break
            pool.remove(best)
            chosen.append(best)
            covered.update(best.devices)
    # What a large one brings may make a small one that came before it superfluous.
    spare = len(covered) - need
    for offer in reversed(chosen):
        alone = [device for device in offer.devices if covered[device] == 1]
        if len(alone) <= spare:
            spare -= len(alone)
            covered.subtract(offer.devices)
            chosen.remove(offer)
    return chosen
