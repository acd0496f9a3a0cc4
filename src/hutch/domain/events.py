"""Events: who did what to what, when, from where, with what result."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: datetime
    actor_id: str | None
    actor_name: str
    action: str
    """`noun.verb`, such as `instance.create`."""
    target_kind: str
    target_id: str
    target_name: str
    owner_id: str | None
    result: str
    """`ok`, `failed`, `refused`, or `requested` for what an operation will carry out."""
    address: str | None
    request_id: str | None
    detail: dict[str, Any]
