"""Fair shares: how past usage fades, and who comes before whom because of it.

Usage is counted in accelerator-seconds. What was used a half-life ago counts half, so that who has
had much comes later for a while, and not for ever:

    U(t) = Σ over holdings of ∫ count · 2^(-(t - s) / half-life) ds
"""

import math
from datetime import datetime, timedelta

_LN2 = math.log(2)


def decay(value: float, since: datetime, until: datetime, half_life: timedelta) -> float:
    """What usage that was `value` at `since` counts at `until`.

    A clock that was set back does not make past usage grow: then it is `value`.
    """
    if until <= since:
        return value
    return value * 0.5 ** ((until - since) / half_life)


def usage_of(
    count: int, since: datetime, until: datetime, at: datetime, half_life: timedelta
) -> float:
    """What holding `count` accelerators from `since` to `until` counts at `at`, in
    accelerator-seconds.

    The integral above in closed form. What lies after `at` has not been used yet.
    """
    until = min(until, at)
    if until <= since:
        return 0.0
    ends, begins = (until - at) / half_life, (since - at) / half_life
    # expm1 keeps the digits of an interval that is short beside the half-life.
    span = 0.5**-ends * -math.expm1((begins - ends) * _LN2)
    return count * half_life.total_seconds() / _LN2 * span


def share_of(usage: float, weight: float) -> float:
    """What the order of the line goes by: the smaller, the sooner. A weight that is not above 0
    has no share of its own, and comes after all that have."""
    return usage / weight if weight > 0 else math.inf
