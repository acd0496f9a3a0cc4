"""SSH keys: what people paste, real ones of every kind, and what is not a key at all."""

import base64
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hutch.domain.people import Actor
from hutch.domain.sshkeys import parse_public_key
from hutch.errors import (
    ConflictError,
    HutchError,
    InvalidKeyError,
    KeyTakenError,
    NotFoundError,
    WeakKeyError,
)
from hutch.services import keys
from hutch.services.context import Context
from tests.keys import new_key
from tests.lab import with_settings

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="apt-get install openssh-client"
)
KINDS = [
    ("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072),
]  # fmt: skip


def _generate(folder: Path, kind: str, bits: int | None, comment: str = "me@laptop") -> Path:
    """A key pair as people make them; the file of the public half."""
    file = folder / f"key-{kind}-{bits}"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(file)]
        + (["-b", str(bits)] if bits else []),
        check=True,
        capture_output=True,
    )
    return file.with_suffix(".pub")


@needs_ssh_keygen
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_a_real_key_is_read_and_named_as_ssh_keygen_names_it(
    tmp_path: Path, kind: str, bits: int | None
) -> None:
    file = _generate(tmp_path, kind, bits)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(file)], check=True, capture_output=True, text=True
    ).stdout.split()
    line = file.read_text()
    key = parse_public_key(line)
    assert key.fingerprint == shown[1]
    assert key.comment == "me@laptop"
    assert f"{key.public} me@laptop\n" == line
    assert key.type == line.split()[0]


@needs_ssh_keygen
def test_a_real_rsa_key_of_1024_bits_is_too_weak(tmp_path: Path) -> None:
    with pytest.raises(WeakKeyError, match="2048 bits; this has 1024"):
        parse_public_key(_generate(tmp_path, "rsa", 1024).read_text())


@needs_ssh_keygen
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_the_private_half_is_refused_and_never_repeated(
    tmp_path: Path, kind: str, bits: int | None
) -> None:
    private = _generate(tmp_path, kind, bits).with_suffix("").read_text()
    with pytest.raises(InvalidKeyError, match="private key") as caught:
        parse_public_key(private)
    assert private.splitlines()[2] not in str(caught.value.as_dict())


def _line(*fields: bytes, kind: str | None = None) -> str:
    blob = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return f"{kind or fields[0].decode()} {base64.b64encode(blob).decode()} me"


def test_a_dsa_key_is_too_weak() -> None:
    with pytest.raises(WeakKeyError):
        parse_public_key(_line(b"ssh-dss", b"\x01" * 128, b"\x01" * 20, b"\x01" * 128, b"\x01"))


def _security_keys() -> list[str]:
    point = b"\x04" + b"\x01" * 64
    return [
        _line(b"sk-ssh-ed25519@openssh.com", b"\x01" * 32, b"ssh:"),
        _line(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", point, b"ssh:"),
    ]


@pytest.mark.parametrize("line", _security_keys())
def test_keys_that_live_on_a_stick_are_read(line: str) -> None:
    assert parse_public_key(line).type == line.split()[0]


def _refused() -> dict[str, str]:
    good = new_key("me")
    kind, blob, _ = good.split()
    raw = base64.b64decode(blob)
    return {
        "nothing": "",
        "blank": "  \n\t ",
        "a word": "hello",
        "only a kind": kind,
        "cut off": f"{kind} {blob[:-8]}",
        "one byte more": f"{kind} {base64.b64encode(raw + b'x').decode()}",
        "one byte less": f"{kind} {base64.b64encode(raw[:-1]).decode()}",
        "not base64": f"{kind} {blob[:-4]}!!!!",
        "another kind in front": f"ssh-rsa {blob}",
        "options in front": f'command="rm -rf /" {good}',
        "restrict in front": f"restrict {good}",
        "two lines": f"{good}\n{new_key()}",
        "two lines by a carriage return": f"{good}\r{new_key()}",
        "a NUL": f"{good}\0",
        "a NUL in front": f"\0{good}",
        "a megabyte": f"{kind} {'A' * 2**20}",
        "a megabyte of comment": f"{good} {'x' * 2**20}",
        "a surrogate": f"{kind} \ud800",
        "the wrong curve": _line(b"ecdsa-sha2-nistp256", b"nistp384", b"\x04" + b"\x01" * 64),
        "a compressed point": _line(b"ecdsa-sha2-nistp256", b"nistp256", b"\x02" + b"\x01" * 32),
        "an even exponent": _line(b"ssh-rsa", b"\x02", b"\x7f" * 256),
        "a length beyond the end": f"ssh-ed25519 {base64.b64encode(bytes([255] * 8)).decode()}",
        "a certificate": _line(b"ssh-ed25519-cert-v01@openssh.com", b"x"),
        "a fingerprint": parse_public_key(good).fingerprint,
        "a line of known_hosts": f"host.example {good}",
        "a PEM file": "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    }


@pytest.mark.parametrize("line", _refused().values(), ids=_refused().keys())
def test_what_is_not_one_line_with_one_key_is_refused(line: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        parse_public_key(line)
    assert caught.value.hint
    assert len(str(caught.value.as_dict())) < 1000


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("ssh-ed25519 \N{FULLWIDTH LATIN CAPITAL LETTER A}AAA")
@example("ssh-rsa AAAA\u2028")
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    _only_refused(text)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521"]),
    st.lists(st.binary(max_size=300), max_size=5),
    st.binary(max_size=8),
    st.text(max_size=20),
)
def test_no_bytes_in_a_key_do_worse_than_be_refused(
    kind: str, fields: list[bytes], rest: bytes, comment: str
) -> None:
    blob = b"".join(struct.pack(">I", len(field)) + field for field in [kind.encode(), *fields])
    _only_refused(f"{kind} {base64.b64encode(blob + rest).decode()} {comment}")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_to_a_real_key_does_worse_than_be_refused(data: st.DataObject) -> None:
    line = new_key()
    at = data.draw(st.integers(0, len(line) - 1))
    until = data.draw(st.integers(at, min(len(line), at + 5)))
    _only_refused(line[:at] + data.draw(st.text(max_size=3)) + line[until:])


def _only_refused(text: str) -> None:
    try:
        key = parse_public_key(text)
    except HutchError:
        return
    # What is let through is safe to write into an authorized_keys file.
    assert key.public.isascii()
    assert key.public.isprintable()
    assert key.public.count(" ") == 1
    assert parse_public_key(key.public).fingerprint == key.fingerprint


async def test_ones_keys_are_added_listed_and_removed(context: Context, alice: Actor) -> None:
    first = await keys.add(context, alice, new_key("me@laptop"))
    second = await keys.add(context, alice, new_key(), title="the desk")
    assert [key.title for key in await keys.list_all(context, alice)] == ["me@laptop", "the desk"]
    await keys.remove(context, alice, first.fingerprint)
    await keys.remove(context, alice, second.id)
    assert await keys.list_all(context, alice) == []
    with pytest.raises(NotFoundError):
        await keys.remove(context, alice, first.id)


@pytest.mark.parametrize(
    ("comment", "title"),
    [("", "key"), ("$(id) `x`", "id x"), ("ä", "key"), ("--", "key"), ("x" * 500, "x" * 64)],
)
async def test_a_comment_becomes_a_title_that_is_safe_to_show(
    context: Context, alice: Actor, comment: str, title: str
) -> None:
    assert (await keys.add(context, alice, new_key(comment))).title == title


async def test_a_key_of_another_person_is_refused_without_saying_whose(
    context: Context, alice: Actor, bob: Actor
) -> None:
    line = new_key()
    mine = await keys.add(context, alice, line)
    with pytest.raises(KeyTakenError) as caught:
        await keys.add(context, bob, line.rsplit(" ", 1)[0] + " another comment")
    told = str(caught.value.as_dict())
    assert "alice" not in told
    assert alice.user_id not in told
    assert await keys.list_all(context, bob) == []
    with pytest.raises(KeyTakenError):
        await keys.add(context, alice, line)
    await keys.remove(context, alice, mine.id)
    await keys.add(context, bob, line)


async def test_another_persons_keys_are_as_if_they_were_not_there(
    context: Context, alice: Actor, bob: Actor
) -> None:
    key = await keys.add(context, alice, new_key())
    for call in (
        keys.remove(context, bob, key.id),
        keys.remove(context, bob, key.fingerprint),
        keys.list_all(context, bob, user="alice"),
        keys.add(context, bob, new_key(), user="alice"),
        keys.add(context, bob, new_key(), user="nobody"),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await keys.list_all(context, alice) == [key]


async def test_an_administrator_keeps_the_keys_of_others(
    context: Context, alice: Actor, ada: Actor
) -> None:
    key = await keys.add(context, ada, new_key(), user="alice")
    assert await keys.list_all(context, alice) == [key]
    assert await keys.list_all(context, ada, user="alice") == [key]
    await keys.remove(context, ada, key.id)
    assert await keys.list_all(context, alice) == []


async def test_a_person_has_as_many_keys_as_are_allowed(context: Context, alice: Actor) -> None:
    few = with_settings(context, keys_per_user=2)
    for _ in range(2):
        await keys.add(few, alice, new_key())
    with pytest.raises(ConflictError, match="More than 2"):
        await keys.add(few, alice, new_key())
