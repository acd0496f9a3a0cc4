"""Snapshots: an instance's disk at one moment, on the same node."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SnapshotKind(StrEnum):
    MANUAL = "manual"
    BEFORE_RESTORE = "before-restore"
    """Taken by hutch before it restores another one: the way back. One is kept."""


class SnapshotState(StrEnum):
    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    instance_id: str
    name: str
    kind: SnapshotKind
    state: SnapshotState
    created_at: datetime
