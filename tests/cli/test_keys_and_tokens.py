import subprocess
from pathlib import Path

import pytest

from tests.cli.server import Person, run_hutch


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A private key's file; the public one is beside it."""
    file = tmp_path / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", str(file)],
        check=True,
    )
    return file


def test_a_key_is_added_listed_and_removed_by_any_of_its_names(alice: Person, pair: Path) -> None:
    assert "hutch key add" in alice.hutch("key", "list").err
    for by in ("id", "fingerprint", "title"):
        added = alice.json("key", "add", f"{pair}.pub")
        assert added["title"] == "me@laptop"
        assert added["fingerprint"] in alice.hutch("key", "list").out
        assert alice.hutch("key", "remove", added[by]).code == 0
        assert alice.json("key", "list") == []
    assert alice.hutch("key", "remove", "me@laptop").code == 3


def test_without_a_file_the_usual_one_is_taken(alice: Person, pair: Path) -> None:
    ran = alice.hutch("key", "add")
    assert ran.code == 6
    assert "ssh-keygen" in ran.err
    (alice.home / ".ssh").mkdir()
    (alice.home / ".ssh" / "id_ed25519.pub").write_text(Path(f"{pair}.pub").read_text())
    assert alice.hutch("key", "add", "--title", "mine").code == 0
    assert alice.json("key", "list")[0]["title"] == "mine"


def test_a_key_comes_from_standard_input(alice: Person, pair: Path) -> None:
    public = Path(f"{pair}.pub").read_bytes()
    assert alice.hutch("key", "add", "-", stdin=b"# mine\n\n" + public).code == 0
    assert len(alice.json("key", "list")) == 1


def test_a_private_key_never_leaves_the_machine(alice: Person, pair: Path) -> None:
    # No server is there: it would be unavailable, were it asked.
    alone = {**alice.signed_in, "HUTCH_URL": "http://127.0.0.1:9"}
    ran = run_hutch("key", "add", str(pair), **alone)
    assert ran.code == 6
    assert "private key" in ran.err
    body = pair.read_text().splitlines()[1]
    assert body not in ran.err
    assert run_hutch("key", "add", "-", stdin=pair.read_bytes(), **alone).code == 6


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"ssh-ed25519 AAAA\n", b"\xff\xfe\x00", b"a\nb\n", b"ssh-dss AAAA"]
)
def test_what_is_no_good_public_key_is_refused_before_it_is_sent(
    alice: Person, tmp_path: Path, content: bytes
) -> None:
    alice.variables["HUTCH_URL"] = "http://127.0.0.1:9"
    (tmp_path / "key.pub").write_bytes(content)
    ran = alice.hutch("key", "add", str(tmp_path / "key.pub"))
    assert ran.code == 6
    assert "Error: " in ran.err


def test_a_file_that_is_not_there_is_named(alice: Person, tmp_path: Path) -> None:
    ran = alice.hutch("key", "add", str(tmp_path / "none.pub"))
    assert ran.code == 6
    assert "none.pub" in ran.err


def test_two_keys_of_one_title_are_not_guessed_between(alice: Person, tmp_path: Path) -> None:
    for name in ("a", "b"):
        file = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        alice.hutch("key", "add", f"{file}.pub", "--title", "same")
    assert alice.hutch("key", "remove", "same").code == 5
    assert len(alice.json("key", "list")) == 2


def test_an_administrator_adds_a_key_for_somebody(alice: Person, ada: Person, pair: Path) -> None:
    assert ada.hutch("key", "add", f"{pair}.pub", "--user", alice.name).code == 0
    assert len(alice.json("key", "list")) == 1
    assert ada.hutch("key", "remove", "me@laptop", "--user", alice.name).code == 0
    assert alice.json("key", "list") == []


def test_a_token_is_alone_on_standard_output_and_works(alice: Person) -> None:
    ran = alice.hutch("token", "create", "script", "--days", "3")
    token = ran.out.strip()
    assert token.startswith("hutch_")
    assert "expires" in ran.err
    other = {**alice.signed_in, "HUTCH_TOKEN": token}
    assert run_hutch("list", **other).code == 0
    token_id = next(one["id"] for one in alice.json("token", "list") if one["title"] == "script")
    assert alice.hutch("token", "revoke", token_id).code == 0
    assert run_hutch("list", **other).code == 4


def test_tokens_end_unless_they_are_told_not_to(alice: Person) -> None:
    assert alice.json("token", "create", "a")["expires_at"] is not None
    assert alice.json("token", "create", "b", "--never-expires")["expires_at"] is None
    assert alice.hutch("token", "create", "c", "--never-expires", "--days", "1").code == 2
    assert alice.hutch("token", "create", "d", "--days", "0").code == 6
