"""What administrators do."""

import secrets

from tests.cli.server import Person, run_hutch


def test_a_person_is_added_and_signs_in_with_the_password_shown_once(ada: Person) -> None:
    name = f"n{secrets.token_hex(4)}"
    ran = ada.hutch("user", "add", name)
    assert ran.code == 0
    secret = ran.stdout
    assert len(secret.split()) == 1
    home = {**ada.signed_in, "HUTCH_TOKEN": "", "XDG_CONFIG_HOME": str(ada.home / "other")}
    assert run_hutch("login", name, "--password-stdin", stdin=secret, **home).code == 0
    assert ada.hutch("user", "add", name).code == 5
    new = ada.hutch("user", "reset-password", name).stdout
    assert run_hutch("list", **home).code == 4
    assert run_hutch("login", name, "--password-stdin", stdin=new, **home).code == 0


def test_a_quota_is_set_shown_and_holds(ada: Person, alice: Person) -> None:
    changed = ada.json("user", "set", alice.name, "--instances", "0", "--memory", "2GiB")
    assert (changed["quota"]["instances"], changed["quota"]["memory"]) == (0, 2 * 2**30)
    assert "0 of 2GiB" in ada.hutch("user", "list").out.replace("0B", "0")
    assert "2GiB" in ada.hutch("user", "show", alice.name).out
    ran = alice.hutch("create", "box")
    assert ran.code == 5
    assert "quota of instances" in ran.err
    assert ada.hutch("user", "set", alice.name).code == 2
    assert ada.hutch("user", "set", alice.name, "--role", "king").code == 2


def test_a_person_is_shut_out_and_let_in_again(ada: Person, alice: Person) -> None:
    assert ada.hutch("user", "disable", alice.name, "--yes").code == 0
    assert "disabled" in ada.hutch("user", "show", alice.name).out
    assert alice.hutch("list").code == 4
    assert ada.hutch("user", "enable", alice.name).code == 0
    assert "active" in ada.hutch("user", "show", alice.name).out


def test_a_cordoned_node_takes_nothing_new(ada: Person, alice: Person) -> None:
    assert ada.hutch("node", "cordon", "node1").code == 0
    try:
        assert "cordoned" in alice.hutch("node", "list").out
        assert alice.hutch("create", "box").code == 5
    finally:
        ada.hutch("node", "uncordon", "node1")
    assert alice.hutch("create", "box").code == 0


def test_a_node_that_cannot_be_is_refused(ada: Person) -> None:
    place = ["--url", "unix:///run/incus.socket", "--address", "192.0.2.9"]
    for options, code in (
        ([*place, "--subnet", "nonsense"], 6),
        ([*place, "--subnet", "10.9.0.0/20", "--engine", "docker"], 2),
        (["--url", "ftp://x", "--address", "192.0.2.9", "--subnet", "10.9.0.0/20"], 6),
        (["--url", "unix:///run/incus.socket"], 2),
    ):
        assert ada.hutch("node", "add", "far", *options).code == code, options
    assert "far" not in ada.hutch("node", "list").out


def test_a_node_gets_another_address(ada: Person, alice: Person) -> None:
    (node,) = ada.json("node", "list")
    try:
        ran = ada.hutch("node", "set", "node1", "--address", "192.0.2.77")
        assert ran.code == 0
        assert "192.0.2.77" in ran.out
        assert "192.0.2.77" in ada.hutch("node", "list").out
        assert ada.hutch("node", "set", "node1", "--address", "node1.example").code == 6
        assert ada.hutch("node", "set", "nowhere", "--address", "192.0.2.77").code == 3
        assert ada.hutch("node", "set", "node1").code == 2
        assert alice.hutch("node", "set", "node1", "--address", "192.0.2.78").code == 4
    finally:
        ada.hutch("node", "set", "node1", "--address", node["address"])


def test_images_are_offered_with_a_pool(ada: Person, alice: Person) -> None:
    name = f"i{secrets.token_hex(4)}"
    assert ada.hutch("image", "add", name, "--description", "For tests", "--pool", "0").code == 0
    assert "For tests" in alice.hutch("image", "list").out
    assert alice.hutch("image", "pool", name, "1").code == 4
    assert ada.hutch("image", "pool", name, "101").code == 6
    assert ada.json("image", "pool", name, "0")["pool_size"] == 0


def test_the_audit_tells_who_did_what(ada: Person, alice: Person) -> None:
    alice.hutch("create", "box")
    events = ada.json("events", "--by", alice.name, "--action", "instance.", "--limit", "5")
    assert {event["action"] for event in events} == {"instance.create"}
    out = ada.hutch("events", "--by", alice.name).out
    assert "instance.create" in out
    assert "127.0.0.1" in out
    oldest = events[-1]["id"]
    before = ada.json("events", "--before", str(oldest), "--limit", "1")
    assert all(event["id"] < oldest for event in before)


def test_members_are_not_permitted_what_administrators_do(alice: Person, bob: Person) -> None:
    for command in (
        ["list", "--all"],
        ["list", "--owner", bob.name],
        ["user", "list"],
        ["user", "disable", bob.name, "--yes"],
        ["node", "cordon", "node1"],
        ["image", "add", "x"],
        ["events"],
    ):
        assert alice.hutch(*command).code == 4, command
