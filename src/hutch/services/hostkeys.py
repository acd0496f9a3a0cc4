"""SSH host keys: made by hutch, so that it knows them before anyone connects."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hutch.services.vault import Vault


def new_host_key() -> tuple[str, bytes]:
    """A new Ed25519 host key: the public line, and the private file in OpenSSH's format."""
    return _written(Ed25519PrivateKey.generate())


def gateway_host_key(vault: Vault) -> tuple[str, bytes]:
    """The gateway's own, in the same two forms.

    It is derived from `secret.key`: so every gateway of a lab has the same one, the server can tell
    it to people, and a backup that has `secret.key` has it too. It is kept nowhere.
    """
    return _written(Ed25519PrivateKey.from_private_bytes(vault.derive("gateway host key")))


def _written(key: Ed25519PrivateKey) -> tuple[str, bytes]:
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return public.decode("ascii"), private
