from tests.cli.server import Person


def test_apps_are_told_with_where_they_are(alice: Person, bob: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("port", "add", "box", "8888", "--local", "--keep-path", "--name", "jupyter")
    url = f"{alice.url}/apps/box/8888/"
    assert url in ran.out
    assert url in alice.hutch("app", "list").out
    (app,) = alice.json("app", "list")
    assert app == {
        "instance": "box", "owner": alice.name, "name": "jupyter", "port": 8888,
        "url": "/apps/box/8888/",
    }  # fmt: skip
    assert alice.json("port", "list")[0]["keep_path"] is True
    assert alice.hutch("port", "set", "box", "jupyter", "--cut-path").code == 0
    assert alice.json("port", "list")[0]["keep_path"] is False
    assert bob.json("app", "list") == []
    alice.hutch("port", "set", "box", "jupyter", "--open-to", bob.name)
    assert f"/apps/box.{alice.name}/8888/" in bob.hutch("app", "list").out


def test_what_is_not_tcp_is_no_app(alice: Person) -> None:
    alice.hutch("create", "box")
    ran = alice.hutch("port", "add", "box", "53", "--protocol", "udp")
    assert "browser" not in ran.out
    ran = alice.hutch("app", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "hutch port add" in ran.err
