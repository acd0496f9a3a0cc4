"""Policies of idleness, as groups and nodes have them."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from hutch.api.fields import Body
from hutch.domain.groups import IdlePolicy, IdleWish

Minutes = Annotated[float, Field(ge=0, le=525_600, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Idle(TypedDict):
    """When accelerators that nobody computes on are taken back."""

    window_minutes: Annotated[float, Field(description="So long idle; 0: never taken back.")]
    threshold_percent: Annotated[float, Field(description="Idle is what computes less than this.")]
    warning_minutes: Annotated[float, Field(description="From the warning to the end.")]


class NewIdle(Body):
    """What is left out stays, or is as in the lab."""

    window_minutes: Minutes | None = Field(None, description="0: never taken back.")
    threshold_percent: Percent | None = None
    warning_minutes: Annotated[float, Field(ge=0, le=10_080, allow_inf_nan=False)] | None = None


def as_json(policy: IdlePolicy | None) -> Idle | None:
    if policy is None:
        return None
    return {
        "window_minutes": policy.window.total_seconds() / 60,
        "threshold_percent": round(policy.threshold * 100, 6),
        "warning_minutes": policy.warning.total_seconds() / 60,
    }


def wish(body: NewIdle | None) -> IdleWish | None:
    if body is None:
        return None
    return IdleWish(
        window=_minutes(body.window_minutes),
        threshold=None if body.threshold_percent is None else body.threshold_percent / 100,
        warning=_minutes(body.warning_minutes),
    )


def _minutes(count: float | None) -> timedelta | None:
    return None if count is None else timedelta(minutes=count)
