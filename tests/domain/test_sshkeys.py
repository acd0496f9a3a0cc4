import base64
import struct
from functools import cache

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.sshkeys import parse_public_key
from hutch.errors import InvalidKeyError, WeakKeyError

GOOD = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
]


@cache
def made(kind: str, size: int = 2048) -> asyncssh.SSHKey:
    options = {"key_size": size} if kind == "ssh-rsa" else {}
    return asyncssh.generate_private_key(kind, **options)


def line(kind: str, size: int = 2048) -> str:
    return made(kind, size).export_public_key().decode().strip()


def encoded(*fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(f)) + f for f in fields)).decode()


def number(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_key_is_read_as_openssh_reads_it(kind: str):
    key = parse_public_key(f"  {line(kind)} ada@desk and more \n")
    assert key.type == kind
    assert key.public == line(kind)
    assert key.comment == "ada@desk and more"
    assert key.fingerprint == asyncssh.import_public_key(line(kind)).get_fingerprint()
    assert parse_public_key(key.public) == parse_public_key(line(kind))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sk-ssh-ed25519@openssh.com", [bytes(32), b"ssh:"]),
        ("sk-ecdsa-sha2-nistp256@openssh.com", [b"nistp256", b"\4" + bytes(64), b"ssh:"]),
    ],
)
def test_a_key_that_lives_in_a_token_is_read(kind: str, fields: list[bytes]):
    assert parse_public_key(f"{kind} {encoded(kind.encode(), *fields)}").type == kind


@pytest.mark.parametrize("bits", [1024, 2040, 2047])
def test_a_small_rsa_key_is_weak(bits: int):
    # No real key: what counts is the length of the modulus.
    text = f"ssh-rsa {encoded(b'ssh-rsa', number(65537), number(2 ** (bits - 1) + 1))}"
    with pytest.raises(WeakKeyError, match=str(bits)):
        parse_public_key(text)


def test_an_rsa_key_of_just_enough_bits_is_good():
    text = f"ssh-rsa {encoded(b'ssh-rsa', number(65537), number(2**2047 + 1))}"
    assert parse_public_key(text).type == "ssh-rsa"


@pytest.mark.parametrize("exponent", [1, 2, 65536])
def test_an_rsa_exponent_that_protects_nothing_is_refused(exponent: int):
    text = f"ssh-rsa {encoded(b'ssh-rsa', number(exponent), number(2**2047 + 1))}"
    with pytest.raises(InvalidKeyError):
        parse_public_key(text)


@pytest.mark.parametrize("kind", ["ssh-dss", "ssh-rsa1"])
def test_an_outdated_kind_is_weak(kind: str):
    with pytest.raises(WeakKeyError, match=kind):
        parse_public_key(f"{kind} AAAA")


def test_a_private_key_is_refused_and_never_repeated():
    private = made("ssh-ed25519").export_private_key().decode()
    with pytest.raises(InvalidKeyError, match="private key") as caught:
        parse_public_key(private)
    assert private[40:60] not in repr(caught.value.as_dict())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 ü",
        "hello world",
        "ssh-ed448 AAAA",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        f'command="id" {line("ssh-ed25519")}',
        f"no-pty,{line('ssh-ed25519')}",
        f"{line('ssh-ed25519')}\n{line('ssh-rsa')}",
        f"{line('ssh-ed25519')}\rmore",
        f"{line('ssh-ed25519')}\0",
        f"{line('ssh-ed25519')} {'x' * 20_000}",
        line("ssh-ed25519").replace("ssh-ed25519", "ssh-rsa"),
        line("ecdsa-sha2-nistp256").replace("nistp256", "nistp384"),
        f"ssh-ed25519 {encoded(b'ssh-ed25519', bytes(31))}",
        f"ssh-ed25519 {encoded(b'ssh-ed25519', bytes(32), b'more')}",
        f"ecdsa-sha2-nistp256 {encoded(b'ecdsa-sha2-nistp256', b'nistp256', bytes(65))}",
    ],
    ids=range(20),
)
def test_what_is_no_key_is_refused_with_a_hint(text: str):
    with pytest.raises(InvalidKeyError) as caught:
        parse_public_key(text)
    assert caught.value.hint


@pytest.mark.parametrize("kind", GOOD)
def test_a_key_that_was_cut_off_is_refused(kind: str):
    whole = line(kind)
    for end in range(len(kind) + 2, len(whole.rstrip("="))):
        with pytest.raises((InvalidKeyError, WeakKeyError)):
            parse_public_key(whole[:end])


@given(st.text() | st.builds("{} {}".format, st.sampled_from(GOOD), st.text()))
def test_any_text_is_a_key_or_refused(text: str):
    try:
        key = parse_public_key(text)
    except (InvalidKeyError, WeakKeyError):
        return
    assert key.fingerprint.startswith("SHA256:")


@given(st.sampled_from(GOOD), st.lists(st.binary(max_size=140), max_size=4))
def test_any_content_is_a_key_or_refused(kind: str, fields: list[bytes]):
    try:
        key = parse_public_key(f"{kind} {encoded(kind.encode(), *fields)}")
    except (InvalidKeyError, WeakKeyError):
        return
    assert "\n" not in key.public
    assert len(key.public.split(" ")) == 2
