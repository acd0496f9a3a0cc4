"""Groups: people who share a guarantee, a limit and a weight for accelerators."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hutch.errors import InvalidLimitError

LONGEST_IDLE = timedelta(days=365)
LONGEST_WARNING = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When accelerators that nobody computes on are taken back."""

    window: timedelta
    """So long must they have been idle without a break. Zero: never taken back."""
    threshold: float
    """Utilisation below which an accelerator counts as idle, 0 to 1."""
    warning: timedelta
    """From the delivered warning to the end of the lease."""

    @classmethod
    def parse(cls, kept: Mapping[str, float] | None) -> "IdlePolicy | None":
        """From what `as_dict` gave; None stays None."""
        if kept is None:
            return None
        return cls(
            timedelta(seconds=kept["window"]),
            kept["threshold"],
            timedelta(seconds=kept["warning"]),
        )

    def as_dict(self) -> dict[str, float]:
        """As it is kept: times in seconds."""
        return {
            "window": self.window.total_seconds(),
            "threshold": self.threshold,
            "warning": self.warning.total_seconds(),
        }


@dataclass(frozen=True, slots=True)
class IdleWish:
    """What of a policy of idleness is to change. None: as it is, or as in the lab."""

    window: timedelta | None = None
    threshold: float | None = None
    warning: timedelta | None = None

    def on(self, policy: IdlePolicy) -> IdlePolicy:
        """The policy with these changes. Raises InvalidLimitError for what makes no sense."""
        wished = IdlePolicy(
            policy.window if self.window is None else self.window,
            policy.threshold if self.threshold is None else self.threshold,
            policy.warning if self.warning is None else self.warning,
        )
        if not timedelta(0) <= wished.window <= LONGEST_IDLE:
            raise InvalidLimitError("idle window", str(wished.window), "0 to 365 days")
        if not 0 <= wished.threshold <= 1:
            given = f"{wished.threshold * 100:g} %"
            raise InvalidLimitError("idle threshold", given, "0 to 100 %")
        if not timedelta(0) <= wished.warning <= LONGEST_WARNING:
            raise InvalidLimitError("idle warning", str(wished.warning), "0 to 7 days")
        return wished


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str
    guarantee: int
    """Accelerators that other groups' borrowing never keeps from it."""
    limit: int | None
    """The most it may hold at once, borrowed ones included; None: no limit of its own."""
    weight: float
    """Its share of what is contended for, beside the others' weights."""
    idle: IdlePolicy | None
    """None: the node's, or the lab's."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    user_id: str
    user_name: str
    is_manager: bool
