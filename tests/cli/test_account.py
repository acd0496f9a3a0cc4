import json
import stat
from pathlib import Path

import pytest

from hutch.services.vault import new_password
from tests.cli.pty_session import on_terminal
from tests.cli.server import Person, Ran, run_hutch


@pytest.fixture
def guest(alice: Person) -> Person:
    """Alice where she has not signed in yet."""
    alice.variables["HUTCH_TOKEN"] = ""
    return alice


def config(person: Person) -> Path:
    return person.home / ".config" / "hutch" / "config.json"


def sign_in(person: Person, *options: str) -> Ran:
    secret = person.password.encode() + b"\n"
    return person.hutch("login", person.name, "--password-stdin", *options, stdin=secret)


def test_who_has_not_signed_in_is_told_how(guest: Person) -> None:
    for command in ("list", "whoami"):
        ran = guest.hutch(command)
        assert ran.code == 4
        assert "hutch login" in ran.err


def test_signing_in_keeps_a_token_that_only_its_owner_may_read(guest: Person) -> None:
    ran = sign_in(guest)
    assert ran.code == 0, ran
    assert guest.name in ran.out
    assert stat.S_IMODE(config(guest).stat().st_mode) == 0o600
    assert guest.json("whoami")["name"] == guest.name


def test_neither_password_nor_token_is_printed(guest: Person) -> None:
    for options in ([], ["--json"]):
        ran = sign_in(guest, *options)
        token = json.loads(config(guest).read_text())["token"]
        for secret in (guest.password, token):
            assert secret not in ran.out + ran.err


def test_the_url_is_remembered(guest: Person) -> None:
    url = guest.url
    guest.variables["HUTCH_URL"] = ""
    assert sign_in(guest, "--url", f"{url}/").code == 0
    assert json.loads(config(guest).read_text())["url"] == url
    assert guest.hutch("list").code == 0


def test_a_wrong_password_is_not_permitted_and_changes_nothing(guest: Person) -> None:
    sign_in(guest)
    before = config(guest).read_text()
    ran = guest.hutch("login", guest.name, "--password-stdin", stdin=b"wrong password\n")
    assert ran.code == 4
    assert "name or the password is wrong" in ran.err
    assert config(guest).read_text() == before


def test_an_empty_password_is_not_sent(guest: Person) -> None:
    assert guest.hutch("login", guest.name, "--password-stdin", stdin=b"\n").code == 6


def test_without_a_terminal_there_is_nobody_to_ask(guest: Person) -> None:
    ran = guest.hutch("login", guest.name)
    assert ran.code == 2
    assert "--password-stdin" in ran.err
    assert guest.hutch("login", "--password-stdin", stdin=b"x\n").code == 2


def test_on_a_terminal_the_password_is_not_shown(guest: Person) -> None:
    session = on_terminal(guest, "login")
    session.expect("Name: ")
    session.type(f"{guest.name}\n")
    session.expect(f"Password for {guest.name} at {guest.url}: ")
    session.type(f"{guest.password}\n")
    assert session.end() == 0
    assert guest.password not in session.seen
    assert guest.hutch("list").code == 0


def test_a_password_over_an_open_network_is_warned_about(guest: Person) -> None:
    ran = run_hutch(
        "login", "x", "--password-stdin", "--url", "http://hutch.invalid", stdin=b"y\n",
        **guest.signed_in,
    )  # fmt: skip
    assert "not encrypted" in ran.err
    assert ran.code == 7
    assert "not encrypted" not in sign_in(guest).err


def test_a_token_that_others_can_read_is_warned_about(guest: Person) -> None:
    sign_in(guest)
    config(guest).chmod(0o644)
    ran = guest.hutch("list")
    assert ran.code == 0
    assert f"chmod 600 {config(guest)}" in ran.err
    assert guest.hutch("list", "--json").out == "[]\n"


def test_signing_out_ends_the_token_at_the_server_too(guest: Person) -> None:
    sign_in(guest)
    token = json.loads(config(guest).read_text())["token"]
    assert guest.hutch("logout").code == 0
    assert token not in config(guest).read_text()
    assert run_hutch("list", **{**guest.signed_in, "HUTCH_TOKEN": token}).code == 4
    assert guest.hutch("logout").code == 0


def test_signing_out_works_while_the_server_is_away(guest: Person) -> None:
    sign_in(guest)
    content = json.loads(config(guest).read_text())
    config(guest).write_text(json.dumps(content | {"url": "http://127.0.0.1:9"}))
    guest.variables["HUTCH_URL"] = ""
    ran = guest.hutch("logout")
    assert ran.code == 0
    assert "did not hear of it" in ran.err
    assert content["token"] not in config(guest).read_text()


def test_a_token_in_the_environment_is_pointed_out_at_sign_in(alice: Person) -> None:
    assert "HUTCH_TOKEN is set" in sign_in(alice).err


def test_whoami_tells_what_is_held_of_what_is_allowed(alice: Person) -> None:
    alice.hutch("create", "box", "--memory", "1GiB")
    out = alice.hutch("whoami").out
    assert alice.name in out
    assert ["memory", "1GiB", "64GiB"] in [line.split() for line in out.splitlines()]
    assert alice.json("whoami")["held"]["instances"] == 1


def test_the_own_password_is_changed_with_the_old_one(guest: Person) -> None:
    sign_in(guest)
    new = new_password()
    wrong = guest.hutch("password", "--password-stdin", stdin=f"wrong\n{new}\n".encode())
    assert wrong.code == 4
    given = f"{guest.password}\n{new}\n".encode()
    assert guest.hutch("password", "--password-stdin", stdin=given).code == 0
    assert sign_in(guest).code == 4
    guest.password = new
    assert sign_in(guest).code == 0


def test_a_mistyped_new_password_changes_nothing(guest: Person) -> None:
    sign_in(guest)
    session = on_terminal(guest, "password")
    for question, answer in (
        ("Present password: ", guest.password),
        ("New password: ", new_password()),
        ("New password again: ", new_password()),
    ):
        session.expect(question)
        session.type(f"{answer}\n")
    assert session.end() == 6
    assert sign_in(guest).code == 0
