"""Operations: durable work in progress that a person can watch."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Every kind of operation, `noun_verb`."""

    INSTANCE_CREATE = "instance_create"
    INSTANCE_START = "instance_start"
    INSTANCE_STOP = "instance_stop"
    INSTANCE_RESTART = "instance_restart"
    INSTANCE_REBUILD = "instance_rebuild"
    INSTANCE_CONFIGURE = "instance_configure"
    INSTANCE_DELETE = "instance_delete"
    SNAPSHOT_CREATE = "snapshot_create"
    SNAPSHOT_RESTORE = "snapshot_restore"
    SNAPSHOT_DELETE = "snapshot_delete"
    KEYS_PUSH = "keys_push"
    PORT_ADD = "port_add"
    PORT_REMOVE = "port_remove"
    POOL_ADD = "pool_add"
    POOL_REMOVE = "pool_remove"
    LEASE_ATTACH = "lease_attach"
    LEASE_DETACH = "lease_detach"
    NOTICE_DELIVER = "notice_deliver"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It could not be done and what it had begun was undone."""
    CANCELLED = "cancelled"
    """Someone asked for the opposite while it ran; what it had begun was undone."""
    STUCK = "stuck"
    """It keeps meeting an error that nobody foresaw; an administrator looks, then retries it."""


LIVE = frozenset({OperationState.PENDING, OperationState.RUNNING, OperationState.STUCK})
RUNNABLE = frozenset({OperationState.PENDING, OperationState.RUNNING})
"""Those that go on by themselves."""
ENDED = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    kind: str
    target: str
    """What it works on, `noun:id`. At most one live operation has a given target."""
    owner_id: str | None
    """Whose thing it works on: who may watch it."""
    params: dict[str, Any]
    """What was asked. Never changed."""
    data: dict[str, Any]
    """What the steps decided on the way, saved before they act on it."""
    state: OperationState
    step: str
    undoing: bool
    cancel_requested: bool
    attempts: int
    """Errors in a row at the present step."""
    run_at: datetime
    lease_token: str | None
    lease_until: datetime | None
    progress: float
    """0 to 1."""
    message: str
    """What it is doing, for people."""
    error: dict[str, Any] | None
    created_by: str
    """The name of who asked."""
    request_id: str | None
    created_at: datetime
    finished_at: datetime | None
