from tests.cli.server import Person


def test_the_desktop_of_an_instance_without_one_is_not_there(alice: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("desktop", "box")
    assert ran.code != 0
    assert alice.json("port", "list") == []


def test_the_desktop_of_an_instance_that_does_not_run_is_not_there(alice: Person) -> None:
    alice.hutch("create", "box")
    alice.hutch("stop", "box")
    ran = alice.hutch("desktop", "box")
    assert ran.code != 0
    assert "hutch start box" in ran.err
