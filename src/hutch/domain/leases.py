"""Leases: a time-limited right of one instance to N accelerators, and its place in the queue."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class LeaseState(StrEnum):
    QUEUED = "queued"
    ATTACHING = "attaching"
    """Granted: the accelerators are its own, and on their way into the instance."""
    ACTIVE = "active"
    DETACHING = "detaching"
    """Over: the accelerators are on their way out, and nobody else's until they have left."""
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a lease ended, or is ending."""

    RELEASED = "released"
    EXPIRED = "expired"
    IDLE = "idle"
    PREEMPTED = "preempted"
    """Borrowed, and reclaimed for a group within its guarantee."""
    CANCELLED = "cancelled"
    """It never got beyond the queue."""
    STOPPED = "stopped"
    """Its instance was stopped, and a stopped instance holds nothing."""
    DELETED = "deleted"
    """Its instance was deleted."""
    NODE_LOST = "node_lost"
    FAILED = "failed"
    """The accelerators could not be brought into the instance."""


HOLDING = frozenset({LeaseState.ATTACHING, LeaseState.ACTIVE, LeaseState.DETACHING})
"""The states in which accelerators are held."""
LIVE = HOLDING | {LeaseState.QUEUED}


@dataclass(frozen=True, slots=True)
class Announcement:
    """What was announced to the holder of a lease, and when it will happen."""

    reason: EndReason
    at: datetime
    """When it was decided."""
    due: datetime
    """When the lease ends if nothing changes."""
    notice_id: str
    """The notice that tells the person; nothing ends before it was delivered."""


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    instance_id: str
    instance_name: str
    owner_id: str
    owner_name: str
    group_id: str | None
    group_name: str | None
    """The group it is counted to: its owner's when it was asked for."""
    node_id: str
    node_name: str
    count: int
    """How many accelerators: all of them, or none."""
    model: str | None
    """Only accelerators whose model contains this text, in whatever case."""
    duration: timedelta
    state: LeaseState
    end_reason: EndReason | None
    requested_at: datetime
    granted_at: datetime | None
    active_at: datetime | None
    expires_at: datetime | None
    """`granted_at` and the duration, with every extension; None in the queue."""
    ended_at: datetime | None
    accelerators: tuple[str, ...]
    """Ids of what it holds, or held."""
    announcement: Announcement | None
    evidence: dict[str, Any] | None
    """What the verdict of idleness was based on."""
    explanation: dict[str, Any] | None
    """Why it waits, as the last pass of the scheduler saw it: `scheduler.Explanation.as_dict`."""
    error: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person must be told."""

    id: str
    user_id: str
    instance_id: str | None
    lease_id: str | None
    kind: str
    """`lease.warned`, `lease.ended`, `lease.granted`, …"""
    text: str
    created_at: datetime
    delivered_at: datetime | None
    """When it was written where the person sees it: on their terminals and in their machine."""
    read_at: datetime | None
