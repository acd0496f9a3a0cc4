"""What the scheduler decides from, and what it decides: no rule of its own stands here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hutch.domain.leases import LeaseState


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator as the scheduler sees it."""

    id: str
    node_id: str
    model: str
    sharers: int
    """How many leases may hold it at once."""
    is_grantable: bool
    """In service, healthy, and its node answers. What is held stays held all the same."""

    def matches(self, model: str | None) -> bool:
        return suits(self.model, model)


def suits(model: str, wanted: str | None) -> bool:
    """Whether a model is what somebody wants who asked for one, or for any."""
    return wanted is None or wanted.casefold() in model.casefold()


@dataclass(frozen=True, slots=True)
class Request:
    """A live lease as the scheduler sees it."""

    id: str
    instance_id: str
    owner_id: str
    group_id: str | None
    node_id: str
    count: int
    model: str | None
    """A text that the device's model must contain, in whatever case."""
    duration: timedelta
    state: LeaseState
    requested_at: datetime
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    devices: tuple[str, ...] = ()
    """What it holds; empty in the queue."""
    reclaim_due: datetime | None = None
    """It was told that it ends then, because it is borrowed and somebody entitled waits."""
    reclaim_delivered: bool = False
    """Whether that warning has reached the person."""
    can_start: bool = True
    """Whether its instance runs, so that accelerators can be brought into it."""


@dataclass(frozen=True, slots=True)
class GroupShare:
    """A group's part of the lab."""

    guarantee: int
    limit: int | None
    weight: float


@dataclass(frozen=True, slots=True)
class Policy:
    protection: timedelta
    """So long a borrowed lease is safe from being reclaimed, from its grant on."""
    reclaim_warning: timedelta
    """From the warning to the end of a borrowed lease that is reclaimed."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision depends on."""

    now: datetime
    devices: Sequence[Device]
    requests: Sequence[Request]
    """Every live lease, in any order."""
    groups: Mapping[str, GroupShare]
    """By group id."""
    maximum: Mapping[str, int]
    """The most accelerators that a person may hold, by user id."""
    usage: Mapping[str, float]
    """Decayed accelerator-seconds by `group:ID`, and by `user:ID` for everyone."""
    policy: Policy


class Waiting(StrEnum):
    """What a waiting lease waits for."""

    INSTANCE = "instance"
    """Its instance does not run."""
    PERSON = "person"
    """The person holds as much as they may."""
    GROUP = "group"
    """The group holds as much as it may."""
    NO_SUCH_DEVICE = "no_such_device"
    """The node has not so many in service that match, held or free."""
    DEVICES = "devices"
    """Others hold them."""
    TURN = "turn"
    """Enough are free, and kept for somebody who comes first: it would stay beyond the moment at
    which they can start, or use up what their person or their group may hold."""
    RECLAIM = "reclaim"
    """Borrowed leases have been told to make room for it."""
    GUARANTEE = "guarantee"
    """Room is being made for another lease within its group's guarantee. Were this one, which
    is beyond that, to start now, it would use up what the other is entitled to."""


OWN_LIMITS = frozenset(
    {
        Waiting.INSTANCE,
        Waiting.PERSON,
        Waiting.GROUP,
        Waiting.NO_SUCH_DEVICE,
        Waiting.GUARANTEE,
    }
)
"""What holds a lease up whoever else waits: it neither holds up others nor keeps anything."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a lease waits."""

    waiting: Waiting
    position: int
    """Its place among those that wait for the same node: 1 is the head of the line. Who is held
    up by limits of their own stands in no line; this is then the place that they would have."""
    ahead: tuple[str, ...]
    """The leases before it in that line, at most ten, the first first."""
    free: int
    """Matching accelerators of its node that could be granted now, were nobody else waiting."""
    held_by: tuple[str, ...]
    """The leases whose accelerators it waits for, the first to end first, at most ten: of others
    for DEVICES and RECLAIM, the person's own for PERSON, the group's for GROUP."""
    projected_start: datetime | None
    """When it starts if every lease runs to its end, who has to make room does so on time, and
    nothing else changes. For the head of the line that is the moment that no later lease can put
    off; behind it an estimate, as if all went in line. None when nobody can tell, as when it waits
    for the person's own maximum to be raised."""
    is_guaranteed: bool
    """Whether it is within its group's guarantee."""

    def as_dict(self) -> dict[str, Any]:
        """As it is kept with the lease and travels in answers."""
        return {
            "waiting": self.waiting.value,
            "position": self.position,
            "ahead": list(self.ahead),
            "free": self.free,
            "held_by": list(self.held_by),
            "projected_start": self.projected_start and self.projected_start.isoformat(),
            "is_guaranteed": self.is_guaranteed,
        }


@dataclass(frozen=True, slots=True)
class Grant:
    request_id: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    grants: tuple[Grant, ...]
    expired: tuple[str, ...]
    """Leases whose time is up."""
    warn: Mapping[str, datetime]
    """Borrowed leases to be told that they end, and when: lease id to the moment."""
    reclaim: tuple[str, ...]
    """Borrowed leases that were told, whose time to leave has come."""
    pardon: tuple[str, ...]
    """Borrowed leases that were told, and are no longer needed: they may stay."""
    explanations: Mapping[str, Explanation]
    """One for every lease that still waits once the grants are made."""
    next_at: datetime | None
    """When time alone changes something next: an expiry, a warning that runs out."""
