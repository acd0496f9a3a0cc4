"""The two kinds of cipher that SSH clients choose, opened and sealed in place.

asyncssh's own do the same, with several copies of every packet and, for GCM, a key schedule for
each. These share the state of asyncssh's, so that both may be used in turn on one connection.

    AES-GCM             RFC 5647, with the length in clear as in OpenSSH's PROTOCOL 1.6
    ChaCha20-Poly1305   OpenSSH's PROTOCOL.chacha20poly1305: the length has a key of its own
"""

from typing import Protocol

from asyncssh.crypto import ChachaCipher, GCMCipher
from asyncssh.encryption import ChachaEncryption, Encryption, GCMEncryption
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

LENGTH = 4
TAG = 16
_BLOCK = bytes(64)
"""ChaCha20's block 0 gives the key of Poly1305; the packet begins with block 1 (64 bytes each)."""


class ForgedError(Exception):
    """A packet is not what the other end sealed."""


class Sealer(Protocol):
    """One direction of a connection: opens what arrives, or seals what leaves."""

    block: int
    """What a packet without its length is a multiple of, in bytes."""

    def length(self, seq: int, head: memoryview) -> int:
        """The packet's length, without these four bytes and without the tag."""
        ...

    def open(self, seq: int, sealed: memoryview) -> bytes:
        """What is in a packet, which begins with its length. Raises ForgedError.

        Nothing is used up by it: `advance` says that this packet was the next.
        """
        ...

    def advance(self) -> None: ...

    def seal(self, seq: int, clear: bytes) -> tuple[bytes, ...]:
        """A packet in the pieces that are to be sent, length and tag included."""
        ...


def sealer(encryption: Encryption | None) -> Sealer | None:
    """A short way for asyncssh's `encryption`; None where there is none."""
    if type(encryption) is GCMEncryption:
        return _Gcm(encryption._cipher)  # pyright: ignore[reportPrivateUsage]
    if type(encryption) is ChachaEncryption:
        return _Chacha(encryption._cipher)  # pyright: ignore[reportPrivateUsage]
    return None


class _Gcm:
    block = 16

    def __init__(self, shared: GCMCipher) -> None:
        self._shared = shared
        self._aead = AESGCM(shared._key)  # pyright: ignore[reportPrivateUsage]

    def length(self, seq: int, head: memoryview) -> int:
        return int.from_bytes(head, "big")

    def open(self, seq: int, sealed: memoryview) -> bytes:
        iv = self._shared._iv  # pyright: ignore[reportPrivateUsage]
        try:
            return self._aead.decrypt(iv, sealed[LENGTH:], sealed[:LENGTH])
        except InvalidTag:
            raise ForgedError from None

    def advance(self) -> None:
        self._shared._update_iv()  # pyright: ignore[reportPrivateUsage]

    def seal(self, seq: int, clear: bytes) -> tuple[bytes, ...]:
        head = len(clear).to_bytes(LENGTH, "big")
        iv = self._shared._iv  # pyright: ignore[reportPrivateUsage]
        sealed = self._aead.encrypt(iv, clear, head)
        self._shared._update_iv()  # pyright: ignore[reportPrivateUsage]
        return head, sealed


class _Chacha:
    block = 8

    def __init__(self, shared: ChachaCipher) -> None:
        self._key = shared._key  # pyright: ignore[reportPrivateUsage]
        self._length_key = shared._adkey  # pyright: ignore[reportPrivateUsage]

    def length(self, seq: int, head: memoryview) -> int:
        clear = _stream(self._length_key, seq).update(head)
        return int.from_bytes(clear, "big")

    def open(self, seq: int, sealed: memoryview) -> bytes:
        stream = _stream(self._key, seq)
        tag_key = stream.update(_BLOCK)[:32]
        try:
            Poly1305.verify_tag(tag_key, sealed[:-TAG], bytes(sealed[-TAG:]))
        except InvalidSignature:
            raise ForgedError from None
        return stream.update(sealed[LENGTH:-TAG])

    def advance(self) -> None:
        """The packet's number is all that changes, and the connection counts it."""

    def seal(self, seq: int, clear: bytes) -> tuple[bytes, ...]:
        head = _stream(self._length_key, seq).update(len(clear).to_bytes(LENGTH, "big"))
        stream = _stream(self._key, seq)
        tag = Poly1305(stream.update(_BLOCK)[:32])
        body = stream.update(clear)
        tag.update(head)
        tag.update(body)
        return head, body, tag.finalize()


def _stream(key: bytes, seq: int):
    # A counter of 64 bits from 0, then the nonce: the packet's number.
    return Cipher(ChaCha20(key, bytes(8) + seq.to_bytes(8, "big")), None).encryptor()
