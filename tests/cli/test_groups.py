"""Groups, their managers, and quotas on the command line."""

import secrets

import pytest

from tests.cli.server import Person


@pytest.fixture
def group() -> str:
    return f"g{secrets.token_hex(4)}"


def test_a_group_is_made_shown_changed_and_removed(ada: Person, group: str) -> None:
    ran = ada.hutch("group", "add", group, "--guarantee", "2", "--limit", "6", "--idle", "2h")
    assert ran.code == 0
    assert f"hutch group add-member {group} PERSON" in ran.out
    shown = ada.json("group", "show", group)
    assert (shown["guarantee"], shown["limit"], shown["weight"]) == (2, 6, 1.0)
    assert shown["idle"]["window_minutes"] == 120.0
    ran = ada.hutch("group", "show", group)
    assert "2h below 5 %, told 15m before" in ran.out
    assert f"hutch group add-member {group} PERSON" in ran.err
    changed = ada.json("group", "set", group, "--limit", "none", "--weight", "2.5", "--idle", "lab")
    assert (changed["limit"], changed["weight"], changed["idle"]) == (None, 2.5, None)
    assert changed["guarantee"] == 2
    assert group in ada.hutch("group", "list").out
    assert ada.hutch("group", "remove", group, "--yes").code == 0
    assert ada.hutch("group", "show", group).code == 3


def test_it_is_said_when_more_is_guaranteed_than_there_is(ada: Person, group: str) -> None:
    said = "are in service"
    ran = ada.hutch("group", "add", group, "--guarantee", "500")
    assert ran.code == 0
    assert said in ran.err
    assert said in ada.hutch("group", "set", group, "--guarantee", "400").err
    assert said not in ada.hutch("group", "set", group, "--weight", "2").err
    assert said not in ada.hutch("group", "set", group, "--guarantee", "0").err
    assert ada.hutch("group", "remove", group, "--yes").code == 0


def test_a_policy_of_idleness_is_given_in_words(ada: Person, group: str) -> None:
    ada.hutch("group", "add", group)
    never = ada.json("group", "set", group, "--idle", "never")["idle"]
    assert never["window_minutes"] == 0.0
    assert "never taken back" in ada.hutch("group", "list").out
    options = ("--idle", "1d12h", "--idle-below", "10", "--idle-warning", "5m")
    assert ada.json("group", "set", group, *options)["idle"] == {
        "window_minutes": 2160.0,
        "threshold_percent": 10.0,
        "warning_minutes": 5.0,
    }
    assert ada.json("node", "set", "node1", "--idle", "90m")["idle"]["window_minutes"] == 90.0
    assert ada.json("node", "set", "node1", "--idle", "lab")["idle"] is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 2),
        (["--limit", "many"], 2),
        (["--idle", "lab", "--idle-below", "5"], 2),
        (["--idle", "soon"], 6),
        (["--idle", "-1h"], 6),
        (["--idle-below", "200"], 6),
        (["--guarantee", "-1"], 6),
        (["--weight", "0"], 6),
        (["--guarantee", "5", "--limit", "4"], 6),
    ],
    ids=str,
)
def test_each_mistake_has_its_code(ada: Person, group: str, options: list[str], code: int) -> None:
    ada.hutch("group", "add", group)
    ran = ada.hutch("group", "set", group, *options)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("Error: ")


def test_a_manager_keeps_the_people_of_their_group(
    ada: Person, alice: Person, bob: Person, group: str
) -> None:
    ada.hutch("group", "add", group, "--limit", "4")
    assert ada.hutch("group", "add-member", group, alice.name).code == 0
    assert "manages" in ada.hutch("group", "set-manager", group, alice.name).out
    assert alice.hutch("group", "add-member", group, bob.name).code == 0
    assert bob.json("group", "list")[0]["name"] == group
    assert alice.hutch("quota", "set", bob.name, "--gpus", "3").code == 0
    assert bob.json("quota", "show")["quota"]["accelerators"] == 3
    assert "0     3" in bob.hutch("quota", "show").out.splitlines()[-1]
    assert alice.hutch("quota", "set", bob.name, "--gpus", "5").code == 6
    assert alice.hutch("quota", "set", bob.name, "--cpus", "5").code == 4
    assert alice.hutch("quota", "set", ada.name, "--gpus", "1").code == 3
    assert alice.hutch("group", "set", group, "--limit", "9").code == 4
    assert bob.hutch("group", "remove-member", group, alice.name).code == 4
    assert alice.hutch("group", "remove-member", group, bob.name).code == 0
    assert bob.json("group", "list") == []
    assert bob.hutch("quota", "set", alice.name, "--gpus", "1").code == 4
    ended = ada.json("group", "set-manager", group, alice.name, "--off")
    assert [member["is_manager"] for member in ended["members"]] == [False]


def test_who_is_in_no_group_is_told_what_to_do(alice: Person) -> None:
    ran = alice.hutch("group", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "hutch group add" in ran.err


def test_an_administrator_sets_every_quota(ada: Person, alice: Person) -> None:
    options = ("--gpus", "7", "--instances", "2", "--memory", "8GiB")
    quota = ada.json("quota", "set", alice.name, *options)["quota"]
    assert (quota["accelerators"], quota["instances"], quota["memory"]) == (7, 2, 8 * 2**30)
    assert ada.json("quota", "show", alice.name)["quota"] == quota
    assert alice.json("quota", "show", alice.name)["quota"] == quota
    assert alice.hutch("quota", "show", ada.name).code == 4
    assert ada.hutch("quota", "set", alice.name).code == 2
    assert ada.hutch("quota", "set", "nobody", "--gpus", "1").code == 3
    assert ada.hutch("user", "set", alice.name, "--gpus", "6").code == 0
    assert "0 of 6" in ada.hutch("user", "list").out
