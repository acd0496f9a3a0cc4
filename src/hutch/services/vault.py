"""Secrets at rest, and secrets that are shown once."""

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hutch.errors import ConfigurationError


class Vault:
    """Seals what the database must not hold in clear (AES-128-CBC with HMAC-SHA256, Fernet)."""

    def __init__(self, key: bytes) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise ConfigurationError(
                "The secret key is damaged.", hint="Restore secret.key from your backup."
            ) from None

        self._key = key
        self.lab = hashlib.sha256(b"hutch lab " + key).hexdigest()[:12]
        """Names this installation on the containers it makes; tells nothing about the key."""

    def seal(self, clear: bytes) -> bytes:
        return self._fernet.encrypt(clear)

    def open(self, sealed: bytes) -> bytes:
        """Raises ConfigurationError when it was sealed with another key."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise ConfigurationError(
                "A secret in the database was sealed with another key.",
                hint="secret.key must be the file that belongs to this database.",
            ) from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose: always the same of this key, and telling nothing about it."""
        derivation = HKDF(
            algorithm=SHA256(), length=32, salt=None, info=f"hutch {purpose}".encode()
        )
        return derivation.derive(self._key)


def open_vault(file: Path) -> Vault:
    """The vault of a key file, which is made, readable by its owner alone, if it is not there."""
    try:
        return Vault(file.read_bytes())
    except FileNotFoundError:
        pass
    # Written aside and linked into place: a crash never leaves half a key, and of two servers
    # that start at once both use the one that was linked first.
    aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(Fernet.generate_key())
        handle.flush()
        os.fsync(handle.fileno())
    try:
        os.link(aside, file)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return Vault(file.read_bytes())


TOKEN_PREFIX = "hutch_"  # noqa: S105 - lets secret scanners recognise a leaked token
AGENT_PREFIX = "hutch_node_"
"""What the token of a node's agent begins with."""


def new_token(prefix: str = TOKEN_PREFIX) -> str:
    """A token of 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


def new_password() -> str:
    """A password for a person to type once: 20 characters without look-alikes, about 98 bits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    groups = ["".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4)]
    return "-".join(groups)
