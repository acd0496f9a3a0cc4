"""Short texts that hutch gives out and knows again: nobody else can make or change one."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from hutch.services.vault import Vault

LONGEST = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Tickets:
    """Tickets for one purpose; one for another is worth nothing here."""

    def __init__(self, vault: Vault, purpose: str) -> None:
        self._key = vault.derive(f"ticket {purpose}")

    def give(self, content: str, until: datetime) -> str:
        """A ticket that says `content` until a moment."""
        seconds = int((until - _EPOCH) / timedelta(seconds=1))
        said = urlsafe_b64encode(f"{seconds} {content}".encode()).decode().rstrip("=")
        return f"{said}.{self._seal(said)}"

    def read(self, ticket: str, now: datetime) -> str | None:
        """What a ticket says; None for one that is not ours, or whose time is over."""
        said, _, seal = ticket.partition(".")
        if len(ticket) > LONGEST or not ticket.isascii():
            return None
        if not hmac.compare_digest(seal, self._seal(said)):
            return None
        text = urlsafe_b64decode(said + "=" * (-len(said) % 4)).decode()
        seconds, _, content = text.partition(" ")
        return content if now < _EPOCH + timedelta(seconds=int(seconds)) else None

    def _seal(self, said: str) -> str:
        digest = hmac.digest(self._key, said.encode(), sha256)
        return urlsafe_b64encode(digest).decode().rstrip("=")
