"""The short way and asyncssh's own seal and open the same packets."""

import os

import pytest
from asyncssh.encryption import Encryption, get_encryption, get_encryption_params
from hypothesis import given, settings
from hypothesis import strategies as st

from hutch.gateway.ciphers import LENGTH, TAG, ForgedError, Sealer, sealer

SHORT = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]


def pair(name: str) -> tuple[Encryption, Sealer]:
    """asyncssh's cipher, and the short way of another one with the same keys."""
    key_size, iv_size, *_ = get_encryption_params(name.encode())
    key, iv = os.urandom(key_size), os.urandom(iv_size)
    theirs, shared = (get_encryption(name.encode(), key, iv) for _ in range(2))
    ours = sealer(shared)
    assert ours is not None
    return theirs, ours


@pytest.mark.parametrize("name", SHORT)
@given(packets=st.lists(st.binary(min_size=16, max_size=400), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_what_one_seals_the_other_opens_in_turns(name: str, packets: list[bytes]) -> None:
    theirs, ours = pair(name)
    back, forth = pair(name)
    for seq, clear in enumerate(packets):
        sealed = b"".join(ours.seal(seq, clear))
        first, head = theirs.decrypt_header(seq, sealed[:16], LENGTH)
        assert int.from_bytes(head, "big") == len(clear)
        assert theirs.decrypt_packet(seq, first, sealed[16:-TAG], LENGTH, sealed[-TAG:]) == clear

        body, tag = back.encrypt_packet(seq, len(clear).to_bytes(LENGTH, "big"), clear)
        view = memoryview(body + tag)
        assert forth.length(seq, view[:LENGTH]) == len(clear)
        assert forth.open(seq, view) == clear
        assert forth.open(seq, view) == clear, "opening uses nothing up"
        forth.advance()


@pytest.mark.parametrize("name", SHORT)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=25, deadline=None)
def test_a_packet_that_was_changed_is_not_opened(name: str, at: int, bit: int) -> None:
    _, ours = pair(name)
    _, opener = pair(name)
    sealed = bytearray(b"".join(ours.seal(0, bytes(64))))
    with pytest.raises(ForgedError):
        opener.open(0, memoryview(bytes(sealed)))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(ForgedError):
        opener.open(0, memoryview(bytes(sealed)))


def test_other_ciphers_are_left_to_asyncssh() -> None:
    key_size, iv_size, _, mac_size, _, etm = get_encryption_params(b"aes128-ctr", b"hmac-sha2-256")
    other = get_encryption(
        b"aes128-ctr", os.urandom(key_size), os.urandom(iv_size), b"hmac-sha2-256",
        os.urandom(mac_size), etm,
    )  # fmt: skip
    assert sealer(other) is None
    assert sealer(None) is None
