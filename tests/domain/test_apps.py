import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.apps import (
    AppName,
    host_name,
    host_of,
    in_host,
    in_path,
    is_below,
    is_local_path,
    path_of,
)

DOMAIN = "apps.example.org"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/apps/box/8888/", ("box", 8888, "/apps/box/8888")),
        ("/apps/box/8888", ("box", 8888, "/apps/box/8888")),
        ("/apps/box.alice/1/a/b", ("box.alice", 1, "/apps/box.alice/1")),
        ("/apps/1f2e3d4c/65535/", ("1f2e3d4c", 65535, "/apps/1f2e3d4c/65535")),
        ("/apps/box/80/../81/", ("box", 80, "/apps/box/80")),
    ],
)  # fmt: skip
def test_a_path_names_an_instance_and_a_port(path: str, found: tuple[str, int, str]):
    assert in_path(path) == AppName(*found)


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/apps", "/apps/", "/apps/box", "/apps/box/", "/apps/box/x/", "/apps/box/0/",
        "/apps/box/65536/", "/apps/box/99999999/", "/apps/box/080/", "/apps/-/1/", "/apps//80/",
        "/apps/../80/", "/apps/%62ox/80/", "/apps/Box/80/", "/apps/box/80x/", "/apps/box/8%30/",
        "/APPS/box/80/", "//apps/box/80/", "/apps/box/٨٠/", "/apps/box\\80/", "/api/apps/box/80/",
    ],
)  # fmt: skip
def test_whatever_is_written_otherwise_names_nothing(path: str):
    assert in_path(path) is None


@given(st.text(max_size=80))
def test_no_path_makes_it_stumble(text: str):
    for path in (text, f"/apps/{text}", f"/apps/box/{text}"):
        found = in_path(path)
        if found is not None:
            assert path.startswith(found.prefix)
            assert 1 <= found.port <= 65535


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (f"8888-box.{DOMAIN}", ("box", 8888)),
        (f"80-my-box-2.{DOMAIN}", ("my-box-2", 80)),
        (f"8888-BOX.{DOMAIN}".upper(), ("box", 8888)),
        (f"8888-box.evil.{DOMAIN}", None),
        (f"box.{DOMAIN}", None),
        (f"0-box.{DOMAIN}", None),
        (f"65536-box.{DOMAIN}", None),
        (DOMAIN, None),
        ("8888-box.apps.example.org.evil.example", None),
        ("8888-box", None),
    ],
)
def test_a_host_names_a_port_and_an_instance(host: str, found: tuple[str, int] | None):
    expected = None if found is None else AppName(*found, "")
    assert in_host(host, DOMAIN) == expected


def test_without_a_domain_no_host_is_an_apps():
    assert in_host("8888-box.apps.example.org", "") is None
    assert not is_below("8888-box.apps.example.org", "")
    assert not is_below("evilapps.example.org", DOMAIN)
    assert is_below(f"anything.{DOMAIN}", DOMAIN)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("Hutch.Example.org:7480", "hutch.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("", ""),
        ("a b", ""),
        ("a,b", ""),
        ("host/path", ""),
        ("user@host", ""),
        ("host\x00", ""),
    ],
)
def test_a_host_header_is_a_host_or_none(header: str, host: str):
    assert host_of(header) == host


def test_an_app_is_called_by_its_name_to_its_owner_and_without_doubt_to_others():
    assert path_of("box", "alice", 8888, is_own=True) == "/apps/box/8888/"
    assert path_of("box", "alice", 8888, is_own=False) == "/apps/box.alice/8888/"
    assert host_name("box", "1f2e", 8888, DOMAIN, is_own=True) == f"8888-box.{DOMAIN}"
    assert host_name("box", "1f2e", 8888, DOMAIN, is_own=False) == f"8888-1f2e.{DOMAIN}"
    long = host_name("b" * 63, "1f2e", 8888, DOMAIN, is_own=True)
    assert long == f"8888-1f2e.{DOMAIN}", "a label of a host has 63 characters at most"


@pytest.mark.parametrize("path", ["/apps/", "/apps/box/80/?a=b%20c&d=/e", "/apps/-/enter?host=x"])
def test_somebody_may_be_sent_on_to_an_app(path: str):
    assert is_local_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/login", "//evil.example/apps/", "https://evil.example/apps/", "/apps//evil",
        "/apps/\\evil", "/apps/ x", "/apps/\r\nSet-Cookie: a=b", "/apps/é", "javascript:alert(1)",
        "/api/v1/me",
    ],
)  # fmt: skip
def test_and_nowhere_else(path: str):
    assert not is_local_path(path)
