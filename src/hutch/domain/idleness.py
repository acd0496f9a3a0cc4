"""Whether anybody computes on what a lease holds, and what says so.

The window slides: what counts is the time up to now, for as long as the policy says, without a
gap. Where something was not observed, nobody is accused of anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from hutch.domain.groups import IdlePolicy
from hutch.domain.sizes import MiB

HELD_MEMORY = 256 * MiB
"""An accelerator with more than that in use is held by somebody: drivers keep less for themselves.
"""
_JITTER = timedelta(seconds=5)
"""Samples come a little late, and that is no gap."""


class Kind(StrEnum):
    BUSY = "busy"
    """Somebody computed within the window."""
    HOLDING = "holding"
    """Nobody computed, and memory of the accelerator is in use."""
    IDLE = "idle"
    UNKNOWN = "unknown"
    """The window was not observed without a gap."""


class Sample(Protocol):
    """What an accelerator did in one span of time."""

    @property
    def at(self) -> datetime:
        """The end of the span."""
        ...

    @property
    def seconds(self) -> float:
        """Its length."""
        ...

    @property
    def utilisation(self) -> float | None:
        """Mean over the span, 0 to 1; None when the accelerator does not tell."""
        ...

    @property
    def peak(self) -> float | None:
        """The most that was seen in it, 0 to 1."""
        ...

    @property
    def memory_used(self) -> int | None:
        """Bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    since: datetime | None
    """Since when nobody has computed on any of them; when somebody last did, if that was within
    the window; None when it is not known."""
    evidence: dict[str, Any]
    """What was seen, by accelerator: plain values, to be kept with the lease."""


def judge(
    samples: Mapping[str, Sequence[Sample]],
    policy: IdlePolicy,
    now: datetime,
    *,
    held_since: datetime | None = None,
) -> Verdict:
    """The verdict on a lease, from the samples of each accelerator that it holds, by its id.

    It is busy if any of them is, and idle only if all are. `held_since`: what was before that was
    somebody else's doing, and is left out; a lease younger than the window is never idle.
    """
    seen = {
        id_: _look(_own(each, held_since), policy, now) for id_, each in sorted(samples.items())
    }
    kinds = {each.kind for each in seen.values()}
    kind = next((kind for kind in _GRAVITY if kind in kinds), Kind.UNKNOWN)
    moments = [each.since for each in seen.values() if each.since and kind in (each.kind, *_QUIET)]
    return Verdict(
        kind,
        since=max(moments) if moments and kind is not Kind.UNKNOWN else None,
        evidence={
            "at": now.isoformat(),
            "window_seconds": policy.window.total_seconds(),
            "threshold": policy.threshold,
            "accelerators": {id_: each.evidence for id_, each in seen.items()},
        },
    )


_QUIET = (Kind.HOLDING, Kind.IDLE)
_GRAVITY = (Kind.BUSY, Kind.UNKNOWN, *_QUIET)
"""One that is busy speaks for all; one that is unknown, for all that are not."""


def _own(samples: Sequence[Sample], held_since: datetime | None) -> list[Sample]:
    kept = [each for each in samples if held_since is None or _begin(each) >= held_since]
    return sorted(kept, key=lambda each: each.at)


def _begin(sample: Sample) -> datetime:
    return sample.at - timedelta(seconds=sample.seconds)


def _most(sample: Sample) -> float:
    """The most that was seen. A burst counts, however short: who computes now and then computes."""
    return max(sample.utilisation or 0.0, sample.peak or 0.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of one accelerator."""

    kind: Kind
    since: datetime | None
    evidence: dict[str, Any]


def _look(samples: Sequence[Sample], policy: IdlePolicy, now: datetime) -> _Seen:
    window = [each for each in samples if each.at > now - policy.window]
    kind, since = Kind.UNKNOWN, None
    # A sample from the future: the clock was set back, and what was when is not certain.
    if policy.window > timedelta() and not any(each.at > now + _JITTER for each in samples):
        kind, since = _judge(samples, policy, now)
    evidence = {
        "verdict": kind.value,
        "since": None if since is None else since.isoformat(),
        "samples": len(window),
        "mean": _mean(window),
        "peak": max(map(_most, window), default=None),
        "memory_used": window[-1].memory_used if window else None,
        "last_sample": window[-1].at.isoformat() if window else None,
    }
    return _Seen(kind, since, evidence)


def _judge(
    samples: Sequence[Sample], policy: IdlePolicy, now: datetime
) -> tuple[Kind, datetime | None]:
    begin = now - policy.window
    window = [each for each in samples if each.at > begin]
    busy = [each.at for each in window if _most(each) >= policy.threshold]
    if busy:
        return Kind.BUSY, busy[-1]
    quiet_since = _quiet_since(samples, policy, now)
    if not window or quiet_since > begin + _JITTER:
        return Kind.UNKNOWN, None
    if any(each.utilisation is None for each in window):
        return Kind.UNKNOWN, None
    is_held = (samples[-1].memory_used or 0) > HELD_MEMORY
    return (Kind.HOLDING if is_held else Kind.IDLE), quiet_since


def _quiet_since(samples: Sequence[Sample], policy: IdlePolicy, now: datetime) -> datetime:
    """Since when it was seen without a gap that nobody computed; `now` if it was not.

    The span that is still going on has no sample yet, so the last one may be a span old.
    """
    quiet_since, slack = now, _JITTER
    if samples:
        slack += timedelta(seconds=samples[-1].seconds)
    for sample in reversed(samples):
        half = timedelta(seconds=sample.seconds / 2)
        is_gap = quiet_since - sample.at > slack + half
        if is_gap or sample.utilisation is None or _most(sample) >= policy.threshold:
            break
        quiet_since, slack = min(quiet_since, _begin(sample)), _JITTER
    return quiet_since


def _mean(samples: Sequence[Sample]) -> float | None:
    told = [(each.utilisation, each.seconds) for each in samples if each.utilisation is not None]
    seconds = sum(span for _, span in told)
    return sum(share * span for share, span in told) / seconds if seconds > 0 else None
