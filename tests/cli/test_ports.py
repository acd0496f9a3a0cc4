from tests.cli.server import Person


def test_a_port_is_added_listed_changed_and_removed(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch(
        "port", "add", "box", "8888", "--name", "jupyter", "--for", "8h", "--open-to", bob.name
    )
    assert ran.code == 0, ran
    (port,) = alice.json("port", "list")
    place = f"192.0.2.1:{port['host_port']}"
    assert f"{place} leads to port 8888 of box until " in ran.out
    listed = alice.hutch("port", "list", "box").out
    for shown in ("jupyter", "8888/tcp", place, "open", bob.name):
        assert shown in listed
    assert f"8888/tcp at {place} (jupyter) until " in alice.hutch("show", "box").out
    assert alice.hutch("port", "set", "box", "jupyter", "--open-to", "everyone").code == 0
    assert "everyone" in alice.hutch("port", "list").out
    removed = alice.hutch("port", "remove", "box", "8888")
    assert removed.out == "Nothing leads to port 8888 of box any more.\n"
    ran = alice.hutch("port", "list")
    assert (ran.out, ran.code) == ("", 0)
    assert "hutch port add" in ran.err


def test_a_local_udp_port_says_so(alice: Person) -> None:
    alice.hutch("create", "box")
    made = alice.json("port", "add", "box", "53", "--protocol", "udp", "--local")
    assert made.keys() == {"port", "operation"}
    assert (made["port"]["host"], made["port"]["state"]) == ("127.0.0.1", "open")
    assert made["operation"]["state"] == "done"
    assert alice.hutch("port", "remove", "box", "53/udp").code == 0


def test_a_port_for_the_browser_alone_says_so(alice: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("port", "add", "box", "8888", "--web-only", "--for", "8h")
    assert ran.code == 0, ran
    assert "Port 8888 of box is open in a browser alone until " in ran.out
    assert "/apps/box/8888/" in ran.out
    assert "8888/tcp in a browser alone (tcp-8888) until " in alice.hutch("show", "box").out
    (port,) = alice.json("port", "list")
    assert (port["reach"], port["host_port"]) == ("web", None)
    assert " - " in alice.hutch("port", "list").out
    both = alice.hutch("port", "add", "box", "80", "--web-only", "--local")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    assert alice.hutch("port", "add", "box", "53", "--web-only", "--protocol", "udp").code == 6
    assert len(alice.json("port", "list")) == 1


def test_a_guest_sees_the_ports_of_what_is_shared(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    alice.hutch("port", "add", "box", "8888")
    alice.hutch("share", "box", bob.name)
    assert f"{alice.name}/box" in bob.hutch("port", "list").out
    assert bob.hutch("port", "add", "box", "80").code == 4
    assert bob.hutch("port", "list", f"{alice.name}/box").code == 0


def test_nonsense_ends_with_what_is_allowed(alice: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("port", "add", "box", "80", "--host-port", "22")
    assert ran.code == 6
    assert "30000 to 32767" in ran.err
    assert alice.hutch("port", "add", "box", "web").code == 2
    assert alice.hutch("port", "add", "box", "80", "--protocol", "icmp").code == 6
    assert alice.hutch("port", "set", "box", "80").code == 2
    assert alice.hutch("port", "remove", "box", "80").code == 3
