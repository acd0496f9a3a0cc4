import pytest

from tests.cli.server import Person


def test_an_instance_is_shared_seen_by_both_and_given_back(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("share", "box", bob.name, "--until", "2d")
    assert ran.code == 0
    assert f"{bob.name} can log in to box until " in ran.out
    assert f"{bob.name} until " in alice.hutch("show", "box").out
    listed = bob.hutch("list").out
    assert f"{alice.name}/box" in listed
    shown = bob.hutch("show", f"{alice.name}/box").out
    assert f"by {alice.name} until " in shown
    assert bob.hutch("stop", f"{alice.name}/box").code == 0
    assert bob.hutch("start", "box").code == 0
    assert bob.hutch("delete", "box", "--yes").code == 4
    assert alice.hutch("unshare", "box", bob.name).code == 0
    assert bob.hutch("show", "box").code == 3
    assert bob.json("list") == []


@pytest.mark.parametrize("command", [["show"], ["stop"], ["port", "list"], ["files", "list"]])
def test_anothers_instance_is_told_to_be_none_just_as_one_that_is_none(
    alice: Person, bob: Person, command: list[str]
) -> None:
    alice.hutch("create", "box")
    for name in (f"{alice.name}/box", f"{alice.name}/none", "nobody-here/box"):
        ran = bob.hutch(*command, name)
        assert ran.code == 3
        assert f"There is no instance '{name}'." in ran.err


def test_who_may_only_look_is_told_so_before_ssh_is_tried(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("share", "box", bob.name, "--read-only-view")
    assert "look" in ran.out
    assert "to look" in alice.hutch("show", "box").out
    refused = bob.hutch("ssh", f"{alice.name}/box")
    assert refused.code == 4
    assert alice.name in refused.err


def test_json_is_the_answer_of_the_api(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    made = alice.json("share", "box", bob.name)
    assert made == {**made, "person": bob.name, "read_only_view": False, "until": None}
    assert alice.json("show", "box")["shares"] == [made]
    (seen,) = bob.json("list")
    assert seen["share"] == {"read_only_view": False, "until": None}


def test_nonsense_is_refused_with_what_is_allowed(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("share", "box", bob.name, "--until", "soon")
    assert ran.code == 6
    assert "4h" in ran.err
    assert alice.hutch("share", "box", "nobody-here").code == 3
    assert alice.hutch("unshare", "box", bob.name).code == 3
