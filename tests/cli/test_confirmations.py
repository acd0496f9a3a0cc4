import json

import pytest

from tests.cli.pty_session import on_terminal
from tests.cli.server import Person

ASKING = [
    ["delete", "box"],
    ["rebuild", "box"],
    ["snapshot", "restore", "box", "one"],
    ["restore", "box", "one"],
    ["snapshot", "delete", "box", "one"],
]


@pytest.fixture
def box(alice: Person) -> Person:
    alice.hutch("create", "box")
    alice.hutch("snapshot", "create", "box", "one")
    return alice


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_without_a_terminal_nothing_is_lost_unless_told(box: Person, command: list[str]) -> None:
    ran = box.hutch(*command)
    assert ran.code == 2
    assert "--yes" in ran.err
    ran = box.hutch(*command, "--json")
    assert ran.code == 2
    assert json.loads(ran.err)["error"]["code"] == "confirmation_needed"
    assert [one["name"] for one in box.json("snapshot", "list", "box")] == ["one"]
    assert {one["kind"] for one in box.json("operation", "list")} == {
        "instance_create",
        "snapshot_create",
    }
    assert box.hutch(*command, "--yes").code == 0


def test_the_question_names_what_is_lost(box: Person) -> None:
    assert "and its snapshot?" in box.hutch("delete", "box").err
    box.hutch("snapshot", "create", "box", "two")
    assert "and its 2 snapshots?" in box.hutch("delete", "box").err
    assert "and its 2 snapshots is lost" in box.hutch("rebuild", "box").err
    assert "put back" not in box.hutch("rebuild", "box").err


def test_disabling_a_person_tells_what_keeps_running(box: Person, ada: Person) -> None:
    ran = ada.hutch("user", "disable", box.name)
    assert ran.code == 2
    assert "Their 1 instances keep running" in ran.err
    assert ada.json("user", "show", box.name)["disabled_at"] is None
    assert ada.hutch("user", "disable", box.name, "--yes").code == 0
    assert box.hutch("list").code == 4


@pytest.mark.parametrize("answer", ["n\n", "\n", "yep\n", "\x04"])
def test_anything_but_yes_changes_nothing(box: Person, answer: str) -> None:
    session = on_terminal(box, "delete", "box")
    session.expect("[y/N]")
    session.type(answer)
    assert session.end() == 130
    assert "Nothing was changed." in session.seen
    assert box.json("list")[0]["state"] == "running"


def test_yes_on_a_terminal_goes_on(box: Person) -> None:
    session = on_terminal(box, "delete", "box")
    session.expect("[y/N]")
    session.type("y\n")
    assert session.end() == 0
    assert box.json("list") == []


def test_restoring_a_snapshot_that_is_not_there_does_not_ask(box: Person) -> None:
    assert box.hutch("snapshot", "restore", "box", "none").code == 3
    assert box.hutch("restore", "box", "none").code == 3
