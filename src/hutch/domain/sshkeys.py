"""Public SSH keys as people paste them: read, judged, and named by fingerprint."""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from hutch.errors import InvalidKeyError, WeakKeyError

LONGEST_LINE = 16 * 1024
LEAST_RSA_BITS = 2048
"""NIST SP 800-131A: RSA below 2048 bits is not acceptable."""

_CURVES = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65),
}
_ED25519 = {"ssh-ed25519", "sk-ssh-ed25519@openssh.com"}
_HINT = "Paste one line of a .pub file, such as ~/.ssh/id_ed25519.pub: 'ssh-ed25519 AAAA… comment'."


@dataclass(frozen=True, slots=True)
class PublicKey:
    type: str
    public: str
    """`type base64`, without options or comment: what goes into an authorized_keys file."""
    comment: str
    fingerprint: str
    """As `ssh-keygen -lf` prints it: SHA256 and the base64 of the hash without padding."""


def parse_public_key(line: str) -> PublicKey:
    """Read one line `type base64 [comment]` (RFC 4253 section 6.6 for what is inside).

    Raises InvalidKeyError for anything else, a private key and a line with options among it, and
    WeakKeyError for kinds and sizes that no longer protect anything.
    """
    text = line.strip()
    if "PRIVATE KEY" in text:
        raise InvalidKeyError(
            "This is a private key.", hint="Keep it secret, and give the file that ends in .pub."
        )
    if len(text) > LONGEST_LINE or "\n" in text or "\r" in text or "\0" in text:
        raise InvalidKeyError("This is not one line with one SSH public key.", hint=_HINT)
    kind, _, rest = text.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind in {"ssh-dss", "ssh-rsa1"}:
        raise WeakKeyError(
            f"Keys of type {kind} are too weak.", hint="Make one with `ssh-keygen -t ed25519`."
        )
    if kind not in _CURVES and kind not in _ED25519 and kind != "ssh-rsa":
        raise InvalidKeyError("This is not an SSH public key of a known type.", hint=_HINT)
    try:
        blob = base64.b64decode(encoded, validate=True)
        fields = _fields(blob)
        named = fields[0].decode("ascii")
    except (binascii.Error, struct.error, ValueError, IndexError):
        raise InvalidKeyError("The key is damaged or cut off.", hint=_HINT) from None
    if named != kind or not _is_whole(kind, fields):
        raise InvalidKeyError("The key is damaged or cut off.", hint=_HINT)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")
    canonical = base64.b64encode(blob).decode("ascii")
    return PublicKey(kind, f"{kind} {canonical}", comment.strip(), f"SHA256:{digest}")


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed strings of a key (RFC 4251 section 5)."""
    fields: list[bytes] = []
    at = 0
    while at < len(blob):
        (size,) = struct.unpack_from(">I", blob, at)
        at += 4
        if at + size > len(blob):
            raise ValueError("cut off")
        fields.append(blob[at : at + size])
        at += size
    return fields


def _is_whole(kind: str, fields: list[bytes]) -> bool:
    security_key = kind.startswith("sk-")
    if kind in _ED25519:
        return len(fields) == 2 + security_key and len(fields[1]) == 32
    if kind in _CURVES:
        curve, size = _CURVES[kind]
        return (
            len(fields) == 3 + security_key
            and fields[1] == curve
            and len(fields[2]) == size
            and fields[2][0] == 4
        )
    if len(fields) != 3:
        return False
    exponent, modulus = (int.from_bytes(field, "big") for field in fields[1:])
    if exponent < 3 or exponent % 2 == 0:
        return False
    if modulus.bit_length() < LEAST_RSA_BITS:
        raise WeakKeyError(
            f"RSA keys need at least {LEAST_RSA_BITS} bits; this has {modulus.bit_length()}.",
            hint="Make one with `ssh-keygen -t ed25519`.",
        )
    return True
