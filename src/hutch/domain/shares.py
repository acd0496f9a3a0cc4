"""Shares: what the owner of an instance lets another person do with it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Share:
    id: str
    instance_id: str
    user_id: str
    """With whom it is shared."""
    user_name: str
    read_only_view: bool
    """They may look, and nothing else: none of their SSH keys goes in."""
    until: datetime | None
    created_at: datetime

    def has_ended(self, now: datetime) -> bool:
        return self.until is not None and self.until <= now
