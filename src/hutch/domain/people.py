"""People and what proves who they are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hutch.domain.limits import Holding


class Role(StrEnum):
    ADMIN = "admin"
    MEMBER = "member"


class Scope(StrEnum):
    """What a token may be used for."""

    FULL = "full"
    READ = "read"
    BROWSER = "browser"
    """Kept by a browser as a cookie: it opens apps, and the API does not take it."""


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    role: Role
    disabled_at: datetime | None
    created_at: datetime
    keys_version: int
    """Grows with every change of the person's SSH keys; instances catch up with it."""
    quota: Holding
    """The person's own maximum, defaults of the lab already filled in."""
    accelerators: int | None = None
    """The most accelerators that they may hold; None: the lab's default."""


@dataclass(frozen=True, slots=True)
class SshKey:
    id: str
    user_id: str
    title: str
    type: str
    public: str
    """The key as one line of an authorized_keys file without its comment."""
    fingerprint: str
    """SHA256 fingerprint as `ssh-keygen -l` prints it."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    id: str
    user_id: str
    title: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and from where: everything that authorisation and the audit need to know."""

    user_id: str
    name: str
    role: Role
    scope: Scope = Scope.FULL
    token_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    manages: str | None = None
    """The id of the group that they manage."""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


SYSTEM = Actor(user_id="", name="hutch", role=Role.ADMIN)
"""hutch itself, when a reconciler acts."""
