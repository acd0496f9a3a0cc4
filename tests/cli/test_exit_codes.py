"""The codes that scripts rely on, one by one, with and without --json."""

import json

import pytest

from hutch.cli import exits
from hutch.errors import HutchError
from tests.cli.server import Person, run_hutch
from tests.client.test_transport import KINDS

CASES = [
    (["frobnicate"], 2, "usage"),
    (["list", "--frobnicate"], 2, "usage"),
    (["create"], 2, "usage"),
    (["create", "a", "b"], 2, "usage"),
    (["create", "box", "--cpus", "many"], 2, "usage"),
    (["create", "box", "--cpus", "9e99"], 2, "usage"),
    (["exec", "box"], 2, "usage"),
    (["show", "nothing"], 3, "not_found"),
    (["create", "box", "--image", "nothing"], 3, "not_found"),
    (["create", "box", "--node", "nothing"], 3, "not_found"),
    (["operation", "show", "nothing"], 3, "not_found"),
    (["show", ""], 3, "not_found"),
    (["token", "revoke", ".."], 3, "not_found"),
    (["user", "list"], 4, "forbidden"),
    (["create", "box", "--cpus", "1000"], 5, "quota_exceeded"),
    (["create", ""], 6, "invalid_name"),
    (["create", "x" * 64], 6, "invalid_name"),
    (["create", "Ünïcode"], 6, "invalid_name"),
    (["create", "../etc"], 6, "invalid_name"),
    (["create", "$(id)"], 6, "invalid_name"),
    (["create", "box; rm -rf /"], 6, "invalid_name"),
    (["create", "box", "--memory", "0"], 6, "invalid_size"),
    (["create", "box", "--memory", "-1"], 6, "invalid_size"),
    (["create", "box", "--disk", "9e99"], 6, "invalid_size"),
    (["create", "box", "--cpus", "0"], 6, "invalid_limit"),
    (["create", "box", "--cpus", "-4"], 6, "invalid_limit"),
    (["create", "box", "--memory", "`id`"], 6, "invalid_size"),
]


@pytest.mark.parametrize(("command", "code", "name"), CASES, ids=lambda value: str(value))
def test_each_mistake_has_its_code(alice: Person, command: list[str], code: int, name: str) -> None:
    ran = alice.hutch(*command)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err
    ran = alice.hutch(*command, "--json")
    assert (ran.code, ran.out) == (code, ""), ran
    error = json.loads(ran.err)["error"]
    assert error["code"] == name
    assert set(error) == {"code", "message", "hint", "detail", "request_id"}
    assert error["message"]
    assert alice.json("list") == []


def test_busy_taken_and_in_the_wrong_state_are_conflicts(alice: Person) -> None:
    alice.hutch("create", "box")
    assert alice.hutch("create", "box").code == 5
    assert alice.hutch("start", "box").code == 5


def test_an_expired_token_is_not_permitted(alice: Person) -> None:
    alice.variables["HUTCH_TOKEN"] = "hutch_" + "x" * 43
    ran = alice.hutch("list", "--json")
    assert ran.code == 4
    assert json.loads(ran.err)["error"]["code"] == "bad_token"


def test_a_server_that_is_away_is_named_with_what_to_do(alice: Person) -> None:
    alice.variables["HUTCH_URL"] = "http://127.0.0.1:9"
    ran = alice.hutch("list")
    assert ran.code == 7
    assert "http://127.0.0.1:9" in ran.err
    assert "hutch up" in ran.err


def test_an_address_that_is_none_is_invalid(alice: Person) -> None:
    alice.variables["HUTCH_URL"] = "not a url"
    assert alice.hutch("list").code == 6


def test_a_damaged_sign_in_is_invalid_and_no_crash(alice: Person) -> None:
    file = alice.home / ".config" / "hutch" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    ran = alice.hutch("list")
    assert ran.code == 6
    assert "hutch login" in ran.err


def test_the_unforeseen_is_said_in_one_line_and_in_full_when_asked(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("hutch.client.client.Client.list_instances", broken)
    ran = alice.hutch("list")
    assert ran.code == 1
    assert "nobody foresaw this" in ran.err
    assert "Traceback" not in ran.err
    alice.variables["HUTCH_DEBUG"] = "1"
    assert "Traceback" in alice.hutch("list").err
    assert run_hutch("version").code == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_error_has_a_documented_code(kind: type[HutchError]) -> None:
    error = kind.__new__(kind)
    HutchError.__init__(error, "")
    code = exits.exit_code(error)
    assert code in exits.MEANINGS
    expected = {404: 3, 401: 4, 403: 4, 409: 5, 422: 6, 413: 6, 416: 6, 429: 7, 503: 7}
    assert code == expected.get(kind.status, 6 if kind.code == "bad_configuration" else 1)
