"""What an app sees of a request, and what a browser sees of its answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.api.proxy.headers import BadHeaderError, Headers, Way, is_own_cookie, to_app, to_browser

HERE = "hutch.example.org"


def way(**changes: Any) -> Way:
    known = {
        "host": HERE, "scheme": "https", "address": "192.0.2.7", "user": "alice",
        "prefix": "/apps/box/8888", "keeps_path": False, "inside": ("127.0.0.1:8888",),
    }  # fmt: skip
    return Way(**{**known, **changes})


ON_HOST = way(prefix="", host="8888-box.apps.example.org")
KEEPING = way(keeps_path=True)


def sent(*headers: tuple[bytes, bytes], **changes: Any) -> dict[bytes, bytes]:
    return dict(to_app(headers, way(**changes)))


def back(name: str, value: str, way_: Way) -> list[str]:
    """What becomes of one header of an answer."""
    return [text.decode() for _, text in to_browser([(name.encode(), value.encode())], way_)]


def test_an_app_is_told_who_asks_from_where_and_how_and_believes_nobody_else():
    lied_about = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
    lied_about += ("x-forwarded-prefix", "x-forwarded-user", "x-real-ip")
    said = {name.encode(): b"a lie" for name in lied_about}
    said |= {name.replace(b"-", b"_"): b"a lie" for name in said}
    got = sent(*said.items(), (b"host", HERE.encode()), (b"accept", b"*/*"))
    assert got == {
        b"host": HERE.encode(), b"accept": b"*/*",
        b"x-forwarded-for": b"192.0.2.7", b"x-forwarded-host": HERE.encode(),
        b"x-forwarded-proto": b"https", b"x-forwarded-user": b"alice",
        b"x-forwarded-prefix": b"/apps/box/8888",
    }  # fmt: skip
    assert b"x-forwarded-prefix" not in dict(to_app(said.items(), ON_HOST))


def test_what_is_meant_for_the_next_hop_alone_goes_no_further():
    hops = [
        (b"connection", b"keep-alive, X-Secret"), (b"x-secret", b"1"), (b"keep-alive", b"3"),
        (b"te", b"trailers"), (b"trailer", b"x"), (b"upgrade", b"h2c"),
        (b"transfer-encoding", b"chunked"), (b"proxy-authorization", b"x"),
        (b"proxy-connection", b"x"), (b"content-length", b"3"), (b"expect", b"100-continue"),
    ]  # fmt: skip
    assert {name for name, _ in to_app(hops, ON_HOST)} == {
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-user",
    }  # fmt: skip
    assert to_browser([*hops[:9], (b"date", b"now"), (b"etag", b"1")], ON_HOST) == [(b"etag", b"1")]


def test_an_upgrade_is_asked_for_where_it_is_meant():
    got = dict(to_app([(b"connection", b"Upgrade")], way(), upgrade=b"websocket"))
    assert (got[b"connection"], got[b"upgrade"]) == (b"Upgrade", b"websocket")


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        (b"hutch_session=secret", None),
        (b"a=1; hutch_session=secret; b=2", b"a=1; b=2"),
        (b"__Secure-hutch_session=secret; a=1", b"a=1"),
        (b"__Host-hutch_app=secret;a=1", b"a=1"),
        (b" HUTCH_session=secret ; a=1", b"a=1"),
        (b"a=hutch_session", b"a=hutch_session"),
        (b"", None),
    ],
)
def test_hutchs_own_cookies_never_go_to_an_app(cookie: bytes, kept: bytes | None):
    assert sent((b"cookie", cookie)).get(b"cookie") == kept


@given(st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n"), max_size=60))
def test_however_the_cookies_are_written(around: str):
    line = f"{around};hutch_session=SECRET;{around}".encode("latin-1")
    assert b"SECRET" not in sent((b"cookie", line)).get(b"cookie", b"")


def test_a_token_of_hutch_never_goes_to_an_app_and_its_own_one_does():
    assert b"authorization" not in sent((b"authorization", b"Bearer hutch_abc"))
    assert b"authorization" not in sent((b"authorization", b"bearer  hutch_abc"))
    assert sent((b"authorization", b"token abc"))[b"authorization"] == b"token abc"


@pytest.mark.parametrize(
    ("cookie", "confined"),
    [
        ("a=1", "a=1; Path=/apps/box/8888/"),
        ("a=1; Path=/", "a=1; Path=/apps/box/8888/"),
        ("a=1; path=/sub; HttpOnly", "a=1; HttpOnly; Path=/apps/box/8888/sub"),
        ("a=1; Domain=example.org; Path=/; Secure", "a=1; Secure; Path=/apps/box/8888/"),
        ("a=1; PATH=relative", "a=1; Path=/apps/box/8888/"),
        ("a=1; Path=/; Path=/x", "a=1; Path=/apps/box/8888/x"),
        ("a=1; Path=/apps/other/1/", "a=1; Path=/apps/box/8888/apps/other/1/"),
    ],
)
def test_an_apps_cookies_stay_below_its_path(cookie: str, confined: str):
    assert back("Set-Cookie", cookie, way()) == [confined]


@pytest.mark.parametrize(
    ("cookie", "confined"),
    [
        ("a=1; Path=/apps/box/8888/lab", "a=1; Path=/apps/box/8888/lab"),
        ("a=1; Path=/", "a=1; Path=/apps/box/8888/"),
        ("a=1; Path=/apps/box/88889", "a=1; Path=/apps/box/8888/"),
    ],
)
def test_and_where_the_app_knows_its_path(cookie: str, confined: str):
    assert back("Set-Cookie", cookie, KEEPING) == [confined]


def test_at_a_host_of_its_own_a_cookie_stays_with_that_host():
    assert back("Set-Cookie", "a=1; Domain=apps.example.org; Path=/x", ON_HOST) == ["a=1; Path=/x"]
    assert back("Set-Cookie", "__Host-a=1; Path=/; Secure", ON_HOST) == [
        "__Host-a=1; Secure; Path=/"
    ]


@pytest.mark.parametrize(
    "cookie",
    ["hutch_session=x; Path=/apps", "__Secure-hutch_session=x", "Hutch_app=x", " hutch_x = y",
     "__Host-a=1; Path=/; Secure"],
)  # fmt: skip
def test_an_app_sets_no_cookie_of_hutchs_and_none_for_the_whole_address(cookie: str):
    assert back("Set-Cookie", cookie, way()) == []


def test_every_cookie_of_hutch_is_known_as_such():
    from hutch.api.proxy.sessions import Kind

    for kind in set(Kind) - {Kind.BEARER}:
        for prefix in ("", "__Host-", "__Secure-"):
            assert is_own_cookie(f"{prefix}{kind.value}")


@pytest.mark.parametrize(
    ("location", "cut", "kept", "on_host"),
    [
        ("/lab", "/apps/box/8888/lab", "/lab", "/lab"),
        ("/apps/box/8888/lab", "/apps/box/8888/apps/box/8888/lab", "/apps/box/8888/lab",
         "/apps/box/8888/lab"),
        ("lab?x=1", "lab?x=1", "lab?x=1", "lab?x=1"),
        ("http://127.0.0.1:8888/lab?x=1#y", "/apps/box/8888/lab?x=1#y", "/lab?x=1#y", "/lab?x=1#y"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x", "https://elsewhere.example/x",
         "https://elsewhere.example/x"),
        ("//elsewhere.example/x", "//elsewhere.example/x", "//elsewhere.example/x",
         "//elsewhere.example/x"),
        ("http://127.0.0.1:8888//elsewhere.example/", "/apps/box/8888/elsewhere.example/",
         "/elsewhere.example/", "/elsewhere.example/"),
        ("http://[broken", "http://[broken", "http://[broken", "http://[broken"),
    ],
)  # fmt: skip
def test_where_an_app_sends_somebody_is_said_in_the_browsers_words(
    location: str, cut: str, kept: str, on_host: str
):
    assert back("Location", location, way()) == [cut]
    assert back("Location", location, KEEPING) == [kept]
    assert back("Location", location, ON_HOST) == [on_host]


def test_its_own_host_under_another_scheme_is_no_other_place():
    assert back("Location", f"http://{HERE}/lab", way()) == ["/apps/box/8888/lab"]
    assert back("Location", "http://8888-box.apps.example.org/lab", ON_HOST) == ["/lab"]


@pytest.mark.parametrize(
    "name",
    ["Clear-Site-Data", "Service-Worker-Allowed", "Cross-Origin-Opener-Policy", "NEL", "Report-To",
     "Strict-Transport-Security", "Alt-Svc"],
)  # fmt: skip
def test_what_would_hold_for_all_of_hutchs_address_is_left_out(name: str):
    assert back(name, "x", way()) == []


def test_a_host_of_its_own_may_be_cleared_by_its_app():
    assert back("Clear-Site-Data", '"cookies"', ON_HOST) == ['"cookies"']


def test_an_answer_in_chunks_has_no_length():
    headers: Headers = [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")]
    assert to_browser(headers, way()) == []


@pytest.mark.parametrize(
    "header",
    [
        (b"a b", b"x"),
        (b"", b"x"),
        (b"a:", b"x"),
        (b"a", b"x\r\nb: y"),
        (b"a", b"\0"),
        (b"\xe9", b"x"),
    ],
)
def test_a_header_that_is_none_is_refused_both_ways(header: tuple[bytes, bytes]):
    with pytest.raises(BadHeaderError):
        to_app([header], way())
    with pytest.raises(BadHeaderError):
        to_browser([header], way())
