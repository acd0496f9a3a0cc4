"""Apps over real HTTP: who is let in, what passes, and what an app or a stranger may try."""

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from hutch.services import ports, shares, tokens, users
from hutch.store import migrate
from tests.api.apps_site import AppsSite, Browser, Got, MiB, hidden

APP = "/apps/box/8888"
SOON = 20.0


@contextlib.contextmanager
def open_site(folder: Path, **settings: Any) -> Iterator[AppsSite]:
    database = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(database)
    (folder / "data").mkdir()
    made = AppsSite(database, folder / "data", **settings).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppsSite]:
    with open_site(tmp_path_factory.mktemp("apps"), apps_answer_seconds=1.5) as made:
        yield made


@pytest.fixture
def alice(site: AppsSite) -> Browser:
    return site.browser("alice")


@pytest.fixture
def bob(site: AppsSite) -> Browser:
    return site.browser("bob")


def until(what: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- being let in --------------------------------------------------------------------------------


def test_a_person_is_sent_to_sign_in_and_back(site: AppsSite) -> None:
    browser = site.browser()
    sent = browser.get(f"{APP}/echo?x=1")
    assert sent.status == 302
    assert sent.one("location") == "/login?" + urlencode({"next": f"{APP}/echo?x=1"})
    page = browser.get(str(sent.one("location")))
    assert (page.status, page.one("content-type")) == (200, "text/html; charset=utf-8")
    onward = hidden(page.body.decode(), "next")
    back = browser.sign_in("alice", site.passwords["alice"], onward)
    assert (back.status, back.one("location")) == (303, f"{APP}/echo?x=1")
    assert browser.get(f"{APP}/echo?x=1").json()["target"] == "/echo?x=1"


def test_the_cookie_is_no_scripts_to_read_and_goes_to_apps_alone(site: AppsSite) -> None:
    browser = site.browser()
    [cookie] = browser.sign_in("alice", site.passwords["alice"]).all("set-cookie")
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/apps"):
        assert attribute in cookie.split("; ")
    assert "Domain" not in cookie


def test_behind_https_the_cookie_is_for_https_alone(site: AppsSite) -> None:
    browser = site.browser()
    https = {"X-Forwarded-Proto": "https"}
    page = browser.get("/login", headers=https).body.decode()
    fields = {"form": hidden(page, "form"), "next": "/apps/", "name": "alice"}
    signed = browser.post("/login", {**fields, "password": site.passwords["alice"]}, headers=https)
    [cookie] = signed.all("set-cookie")
    assert cookie.startswith("__Secure-hutch_session=")
    assert "Secure" in cookie.split("; ")


def test_the_api_does_not_take_the_cookie_nor_what_is_in_it(site: AppsSite, alice: Browser) -> None:
    token = alice.cookie.partition("=")[2]
    for headers in ({"Cookie": alice.cookie}, {"Authorization": f"Bearer {token}"}):
        got = site.ask("GET", "/api/v1/me", {"Host": site.host, **headers})
        assert got.status == 401, headers
    listed = site.ask("GET", "/api/v1/tokens", _bearer(site, "alice")).json()
    assert "browser" in {each["scope"] for each in listed}


def _bearer(site: AppsSite, name: str) -> dict[str, str]:
    return {"Host": site.host, "Authorization": f"Bearer {site.tokens[name]}"}


def test_a_program_sends_a_token_that_the_app_never_sees(site: AppsSite) -> None:
    got = site.ask("GET", f"{APP}/echo", _bearer(site, "alice"))
    assert got.status == 200
    assert "hutch_" not in got.body.decode()
    assert site.ask("GET", f"{APP}/echo", {"Host": site.host}).status == 401
    wrong = {"Host": site.host, "Authorization": "Bearer hutch_wrong"}
    assert site.ask("GET", f"{APP}/echo", wrong).status == 401


def test_a_wrong_password_is_told_on_the_page_and_the_name_is_kept(site: AppsSite) -> None:
    got = site.browser().sign_in("alice", "<script>")
    assert got.status == 401
    assert "The name or the password is wrong." in got.body.decode()
    assert 'value="alice"' in got.body.decode()
    assert "<script>" not in got.body.decode()


def test_a_form_that_hutch_did_not_give_to_this_browser_is_refused(site: AppsSite) -> None:
    mine, theirs = site.browser(), site.browser()
    form = hidden(theirs.get("/login").body.decode(), "form")
    mine.get("/login")
    for token in (form, "", "x.y"):
        fields = {"form": token, "name": "alice", "password": site.passwords["alice"]}
        got = mine.post("/login", fields)
        assert got.status == 403
        assert not mine.cookie


def test_another_site_signs_nobody_in(site: AppsSite) -> None:
    browser = site.browser()
    form = hidden(browser.get("/login").body.decode(), "form")
    fields = {"form": form, "name": "alice", "password": site.passwords["alice"]}
    got = browser.post("/login", fields, headers={"Origin": "https://evil.example"})
    assert got.status == 403
    assert not browser.cookie


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example/", "/\\evil", "/login", "javascript:x"]
)
def test_after_signing_in_nobody_is_sent_anywhere_but_to_apps(site: AppsSite, onward: str) -> None:
    got = site.browser().sign_in("alice", site.passwords["alice"], onward)
    assert (got.status, got.one("location")) == (303, "/apps/")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 422),
        ("application/x-www-form-urlencoded", b"x" * 9000, 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 100), 422),
        ("application/x-www-form-urlencoded", b"form=%00&name=%00", 403),
    ],
)
def test_a_form_that_is_none_is_refused(
    site: AppsSite, kind: str, body: bytes, status: int
) -> None:
    got = site.browser().ask("POST", "/login", body=body, headers={"Content-Type": kind})
    assert got.status == status


def test_who_signs_out_is_out(site: AppsSite) -> None:
    browser = site.browser("alice")
    kept = browser.cookie
    page = browser.get("/apps/").body.decode()
    assert "box" in page
    out = browser.post("/apps/-/logout", {"form": hidden(page, "form")})
    assert (out.status, out.one("location")) == (303, "/login")
    assert site.ask("GET", f"{APP}/late", {"Host": site.host, "Cookie": kept}).status == 401


def test_own_pages_cannot_be_framed_nor_reached_into(site: AppsSite) -> None:
    for path in ("/login", "/apps/box/9/"):
        got = site.browser().get(path)
        if got.status == 302:
            got = site.browser("alice").get(path)
        assert got.one("x-frame-options") == "DENY"
        assert got.one("cross-origin-opener-policy") == "same-origin"
        assert "default-src 'none'" in str(got.one("content-security-policy"))


# -- who may -------------------------------------------------------------------------------------


def test_another_persons_app_does_not_exist(site: AppsSite, bob: Browser) -> None:
    for ref in ("box", "box.alice", site.box):
        got = bob.get(f"/apps/{ref}/8888/")
        nothing = bob.get("/apps/nothing/8888/")
        assert got.status == nothing.status == 404
        assert _words(got, ref) == _words(nothing, "nothing")


def _words(got: Got, ref: str) -> str:
    page = got.body.decode().partition("<main>")[2]
    return page.replace(ref, "it").partition("Request")[0]


@pytest.fixture
def shared(site: AppsSite) -> Iterator[None]:
    alice = site.lab.actors["alice"]
    site.do(shares.add(site.context, alice, "box", "bob"))
    yield
    with contextlib.suppress(Exception):
        site.do(shares.remove(site.context, alice, "box", "bob"))


@pytest.mark.usefixtures("shared")
def test_before_anothers_app_is_opened_one_is_told_what_that_means(site: AppsSite) -> None:
    bob = site.browser("bob")
    site.do(_distrust(site))
    asked = bob.get(f"{APP}/echo?x=1")
    assert asked.status == 403
    page = asked.body.decode()
    assert "alice" in page
    quiet = bob.get(f"{APP}/echo", page=False)
    assert (quiet.status, quiet.json()["error"]["code"]) == (403, "untrusted_app")
    fields = {key: hidden(page, key) for key in ("form", "owner", "next")}
    for wrong in ({**fields, "form": "x.y"}, {**fields, "owner": "ada"}):
        assert bob.post("/apps/-/trust", wrong).status == 403
    foreign = bob.post("/apps/-/trust", fields, headers={"Origin": "https://evil.example"})
    assert foreign.status == 403
    assert bob.get(f"{APP}/echo").status == 403
    gone_on = bob.post("/apps/-/trust", fields)
    assert (gone_on.status, gone_on.one("location")) == (303, f"{APP}/echo?x=1")
    seen = bob.get(f"{APP}/echo?x=1").json()
    assert ["x-forwarded-user", "bob"] in seen["headers"]


async def _distrust(site: AppsSite) -> None:
    async with site.context.db.write() as session:
        await session.exec_driver_sql("DELETE FROM trusts")


@pytest.mark.usefixtures("shared")
def test_a_program_of_a_guest_needs_no_trust(site: AppsSite) -> None:
    assert site.ask("GET", f"{APP}/echo", _bearer(site, "bob")).status == 200


def test_who_is_shut_out_is_out_within_seconds(site: AppsSite) -> None:
    ada = site.lab.actors["ada"]
    browser = site.browser("alice")
    assert browser.get(f"{APP}/echo").status == 200
    site.do(users.disable(site.context, ada, "alice"))
    try:
        until(lambda: browser.get(f"{APP}/echo", page=False).status == 401)
    finally:
        site.do(users.enable(site.context, ada, "alice"))


def test_what_is_open_ends_when_one_may_no_longer(site: AppsSite) -> None:
    token = site.do(_new_token(site))
    events = _Stream(site, f"{APP}/events", {"Authorization": f"Bearer {token}"})
    assert events.line().startswith(b"data: ")
    site.do(_revoke(site, token))
    assert events.ends()


async def _new_token(site: AppsSite) -> str:
    from hutch.domain.people import Scope

    return (await tokens.create(site.context, site.lab.actors["alice"], "t", Scope.FULL, 1))[0]


async def _revoke(site: AppsSite, token: str) -> None:
    actor = await tokens.authenticate(site.context, token, address=None, request_id=None)
    await tokens.revoke(site.context, actor, actor.token_id or "")


# -- what passes ---------------------------------------------------------------------------------


def test_an_app_sees_its_own_path_and_not_hutchs_cookie(site: AppsSite, alice: Browser) -> None:
    seen = alice.get(f"{APP}/a%2Fb/..%2Fc?q=%20&r=%C3%A9").json()
    assert seen["target"] == "/a%2Fb/..%2Fc?q=%20&r=%C3%A9"
    names = {name.lower(): value for name, value in seen["headers"]}
    assert "cookie" not in names
    assert names["host"] == site.host
    assert names["x-forwarded-prefix"] == APP
    assert names["x-forwarded-user"] == "alice"


def test_the_apps_own_cookies_go_to_it_and_nowhere_else(alice: Browser) -> None:
    wanted = quote(json.dumps([["Set-Cookie", "mine=1; Path=/; Domain=example.org"]]))
    got = alice.get(f"{APP}/echo?headers={wanted}")
    assert got.all("set-cookie") == [f"mine=1; Path={APP}/"]
    assert ["cookie", "mine=1"] in alice.get(f"{APP}/again").json()["headers"]


def test_without_its_slash_an_app_would_lose_what_is_relative(alice: Browser) -> None:
    got = alice.get(f"{APP}?x=1")
    assert (got.status, got.one("location")) == (307, f"{APP}/?x=1")


def test_an_app_that_knows_its_path_is_told_all_of_it(site: AppsSite, alice: Browser) -> None:
    owner = site.lab.actors["alice"]
    site.do(ports.configure(site.context, owner, "box", "8888", keeps_path=True))
    try:
        until(lambda: alice.get(f"{APP}/lab?x=1").json()["target"] == f"{APP}/lab?x=1")
    finally:
        site.do(ports.configure(site.context, owner, "box", "8888", keeps_path=False))
        until(lambda: alice.get(f"{APP}/lab").json()["target"] == "/lab")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_every_method_passes_with_its_body(alice: Browser, method: str) -> None:
    body = None if method in {"GET", "OPTIONS"} else b"x" * 100_000
    seen = alice.ask(method, f"{APP}/echo", body=body).json()
    assert (seen["method"], seen["size"]) == (method, len(body or b""))


@pytest.mark.parametrize("status", [200, 201, 204, 206, 304, 400, 404, 418, 500, 503])
def test_every_status_passes(alice: Browser, status: int) -> None:
    if status in {204, 304}:
        text = f"HTTP/1.1 {status} X\r\nETag: 1\r\n\r\n"
        got = alice.get(f"{APP}/raw?bytes={quote(text)}")
        assert got.body == b""
        assert got.one("etag") == "1"
    else:
        got = alice.get(f"{APP}/echo?status={status}")
    assert got.status == status


def test_head_has_headers_and_no_body(alice: Browser) -> None:
    got = alice.ask("HEAD", f"{APP}/echo")
    assert (got.status, got.body) == (200, b"")
    assert alice.get(f"{APP}/echo").status == 200


@pytest.mark.parametrize("path", ["until-close", "informs", "closes-afterwards"])
def test_answers_that_end_in_other_ways_are_whole(alice: Browser, path: str) -> None:
    expected = {"until-close": b"all of it", "informs": b"after all", "closes-afterwards": b"once"}
    for _ in range(3):
        got = alice.get(f"{APP}/{path}")
        assert (got.status, got.body) == (200, expected[path])


def test_connections_to_the_app_are_used_again(site: AppsSite, alice: Browser) -> None:
    alice.get(f"{APP}/echo")
    before = site.app.connections
    for _ in range(20):
        assert alice.get(f"{APP}/echo").status == 200
    assert site.app.connections - before <= 1


@pytest.mark.parametrize("framing", ["", "&chunked=1"])
def test_a_large_answer_passes_whole(alice: Browser, framing: str) -> None:
    got = alice.get(f"{APP}/big?n={32 * MiB}{framing}")
    expected = hashlib.sha256((b"0123456789abcdef" * 4096) * (32 * MiB // 65536)).hexdigest()
    assert hashlib.sha256(got.body).hexdigest() == expected


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_passes_whole(site: AppsSite, alice: Browser, chunked: bool) -> None:
    piece = bytes(range(256)) * 256
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    headers = {"Cookie": alice.cookie, "Host": site.host}
    if not chunked:
        headers["Content-Length"] = str(400 * len(piece))
    connection.request(
        "POST", f"{APP}/echo", (piece for _ in range(400)), headers, encode_chunked=chunked
    )
    seen = json.loads(connection.getresponse().read())
    assert seen["size"] == 400 * len(piece)
    assert seen["sha256"] == hashlib.sha256(piece * 400).hexdigest()


def test_a_client_that_never_reads_holds_back_the_app_and_not_the_server(
    site: AppsSite, alice: Browser
) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as stubborn:
        stubborn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stubborn.sendall(_request(site, alice, f"{APP}/big?n={1024 * MiB}"))
        stubborn.recv(1000)
        until(lambda: site.app.sent > 0)
        settled = _settled(lambda: site.app.sent)
        assert settled < 32 * MiB, "what nobody reads is not taken from the app"
        assert alice.get(f"{APP}/echo").status == 200


def _settled(value: Any) -> int:
    """A number, once it does not change for a while."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.7:
        time.sleep(0.05)
        now = value()
        if now != last:
            last, since = now, time.monotonic()
    return last


def test_an_app_that_reads_slowly_holds_back_the_client(site: AppsSite, alice: Browser) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as eager:
        eager.setblocking(False)
        head = _request(site, alice, f"{APP}/slow-reader", "POST", f"Content-Length: {256 * MiB}")
        eager.sendall(head)
        sent = 0

        def push() -> int:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += eager.send(b"x" * MiB)
            return 0

        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            push()
            time.sleep(0.01)
        assert sent < 128 * MiB


def _request(site: AppsSite, who: Browser, path: str, method: str = "GET", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {site.host}", f"Cookie: {who.cookie}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class _Stream:
    """An answer that is read as it comes."""

    def __init__(self, site: AppsSite, path: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=SOON)
        self._connection.request("GET", path, headers={"Host": site.host, **headers})
        self.answer = self._connection.getresponse()

    def line(self) -> bytes:
        return self.answer.readline()

    def ends(self) -> bool:
        try:
            while self.answer.readline():
                pass
        except (http.client.HTTPException, OSError):
            pass
        return True


def test_events_come_one_by_one_and_stop_when_the_reader_is_gone(
    site: AppsSite, alice: Browser
) -> None:
    events = _Stream(site, f"{APP}/events?every=0.02", {"Cookie": alice.cookie})
    assert events.answer.headers["content-type"] == "text/event-stream"
    for number in range(5):
        assert events.line() == f"data: {number}\n".encode()
        events.line()
    before = len(site.fastapi.state.front._open)
    events.answer.close()
    events._connection.close()
    until(lambda: len(site.fastapi.state.front._open) < before)


# -- what an app may do --------------------------------------------------------------------------


def test_an_app_that_never_answers_is_not_waited_for_for_ever(alice: Browser) -> None:
    got = alice.get(f"{APP}/never", page=False)
    assert (got.status, got.json()["error"]["code"]) == (504, "app_timeout")


def test_an_app_that_closes_without_an_answer_is_told(alice: Browser) -> None:
    got = alice.get(f"{APP}/closes", page=False)
    assert (got.status, got.json()["error"]["code"]) == (502, "app_unreachable")
    page = alice.get(f"{APP}/closes")
    assert page.status == 502
    assert "The app does not answer" in page.body.decode()


def test_an_answer_that_is_torn_is_seen_as_torn(site: AppsSite, alice: Browser) -> None:
    with pytest.raises(http.client.IncompleteRead):
        alice.get(f"{APP}/torn")


def test_an_answer_before_the_whole_body_passes(site: AppsSite, alice: Browser) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=SOON) as client:
        client.sendall(
            _request(site, alice, f"{APP}/early-answer", "POST", f"Content-Length: {64 * MiB}")
        )
        client.sendall(b"x" * 1000)
        assert b" 413 " in client.recv(1000)


@pytest.mark.parametrize(
    "text",
    [
        "not http at all\r\n\r\n",
        "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nbad header\x00: x\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_and_not_passed_on(
    alice: Browser, text: str
) -> None:
    got = alice.get(f"{APP}/raw?bytes={quote(text)}", page=False)
    assert got.status == 502, got


def test_a_head_without_an_end_is_not_read_to_the_end(alice: Browser) -> None:
    assert alice.get(f"{APP}/huge-head", page=False).status == 502


def test_what_comes_unasked_reaches_nobody(site: AppsSite, alice: Browser) -> None:
    one = "HTTP/1.1 200 OK\r\nContent-Length: "
    two = f"{one}1\r\n\r\na{one}4\r\n\r\nevil"
    assert alice.get(f"{APP}/raw?bytes={quote(two)}").body == b"a"
    for _ in range(5):
        assert b"evil" not in alice.get(f"{APP}/echo").body


def test_where_nothing_listens_that_is_said(site: AppsSite, alice: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    site.do(site.open_port(7777, number))
    got = alice.get("/apps/box/7777/", page=False)
    assert (got.status, got.json()["error"]["code"]) == (502, "app_unreachable")


# -- what a stranger may try ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_page_asks_for_nothing_in_ones_name(
    alice: Browser, headers: dict[str, str]
) -> None:
    for method in ("GET", "POST"):
        got = alice.ask(method, f"{APP}/echo", headers=headers, page=False)
        assert got.status == 403


def test_a_link_from_another_site_opens_an_app(alice: Browser) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert alice.get(f"{APP}/echo", headers=link).status == 200
    assert alice.ask("POST", f"{APP}/echo", headers=link).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/apps/../api/v1/me", "/apps/box/8888/../../../login", "/apps/box/8888/%2e%2e/%2e%2e/x",
        "/apps/box/08888/", "/apps/box/8888%2F", "/apps/box/99999/", "/apps/%2e%2e/8888/",
        "/apps/box//8888/", "/apps/-/nothing", "/apps/box/22/", "/apps/;/8888/",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_but_to_the_app_that_they_name(alice: Browser, path: str) -> None:
    got = alice.get(path, page=False)
    if path.startswith(f"{APP}/"):
        # What the app makes of dots is its own affair; it stays the app that is asked.
        assert got.json()["target"] == path.removeprefix(APP)
    else:
        assert got.status in {400, 401, 404}, got


# Method, headers and body of what is sent.
RAW: dict[str, tuple[str, str, str]] = {
    "both lengths": ("POST", "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "two lengths": ("POST", "Content-Length: 5\r\nContent-Length: 6", "hello!"),
    "odd encoding": ("POST", "Transfer-Encoding: xchunked", "0\r\n\r\n"),
    "encoding of the body": ("POST", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
    "encoding in two lines": (
        "POST",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    "encoding twice": ("POST", "Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    "space before colon": ("GET", "X-A : b", ""),
    "bare line feed": ("GET", "X-A: b\nX-B: c", ""),
    "NUL in a header": ("GET", "X-A: b\0c", ""),
    "two hosts": ("GET", "Host: other.example", ""),
    "length with a sign": ("POST", "Content-Length: +5", "hello"),
}


@pytest.mark.parametrize("name", RAW)
def test_what_could_be_read_in_two_ways_never_reaches_an_app(
    site: AppsSite, alice: Browser, name: str
) -> None:
    method, headers, body = RAW[name]
    before = len(site.app.seen)
    with socket.create_connection(("127.0.0.1", site.port), timeout=SOON) as client:
        client.sendall(_request(site, alice, f"{APP}/smuggle", method, headers) + body.encode())
        answer = client.recv(4096)
    assert answer.split(b" ", 2)[1] in {b"400", b"501"}, answer
    assert len(site.app.seen) == before


def test_a_request_without_a_host_is_none(site: AppsSite) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=SOON) as client:
        client.sendall(f"GET {APP}/ HTTP/1.1\r\n\r\n".encode())
        assert b" 400 " in client.recv(4096)


def test_a_second_request_in_a_body_stays_a_body(site: AppsSite, alice: Browser) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    seen = alice.ask("POST", f"{APP}/echo", body=inner).json()
    assert seen["size"] == len(inner)
    assert not any("/smuggled" in each["target"] for each in site.app.seen)


def test_headers_without_end_are_not_waited_for(site: AppsSite) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=SOON) as client:
        client.sendall(f"GET {APP}/ HTTP/1.1\r\nHost: {site.host}\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
            assert client.recv(1000) == b""


def test_two_hundred_who_hang_keep_nobody_else_out(site: AppsSite, alice: Browser) -> None:
    hanging = []
    for _ in range(200):
        client = socket.create_connection(("127.0.0.1", site.port))
        client.sendall(_request(site, alice, f"{APP}/events?every=1"))
        hanging.append(client)
    try:
        assert alice.get(f"{APP}/echo").status == 200
    finally:
        for client in hanging:
            client.close()
    until(lambda: not site.fastapi.state.front._open)


# -- hosts of their own --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppsSite]:
    with open_site(
        tmp_path_factory.mktemp("hosts"),
        apps_domain="apps.example.org",
        public_url="http://hutch.example.org",
    ) as made:
        yield made


MAIN, BOX = "hutch.example.org", "8888-box.apps.example.org"


def follow(browser: Browser, host: str, path: str) -> tuple[str, Got]:
    """Follow redirects over hosts, as a browser does; the last host, and its answer."""
    for _ in range(8):
        got = browser.ask("GET", path, host=host)
        if got.status not in {302, 303, 307}:
            return host, got
        parts = urlsplit(str(got.one("location")))
        host = parts.netloc or host
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    raise AssertionError("round and round")


def signed_in(site: AppsSite, name: str) -> Browser:
    browser = Browser(site)
    page = browser.get("/login?next=%2Fapps%2F", host=MAIN).body.decode()
    fields = {"form": hidden(page, "form"), "next": "/apps/", "name": name}
    got = browser.post("/login", {**fields, "password": site.passwords[name]}, host=MAIN)
    assert got.status == 303
    return browser


def test_from_an_apps_host_one_is_led_to_sign_in_and_back(hosts: AppsSite) -> None:
    browser = Browser(hosts)
    host, page = follow(browser, BOX, "/echo?x=1&y=/z")
    assert host == MAIN
    text = page.body.decode()
    assert "http://*.apps.example.org" in str(page.one("content-security-policy"))
    fields = {key: hidden(text, key) for key in ("form", "next")}
    onward = browser.post(
        "/login", {**fields, "name": "alice", "password": hosts.passwords["alice"]}, host=MAIN
    )
    host, seen = follow(browser, MAIN, str(onward.one("location")))
    assert host == BOX
    assert seen.json()["target"] == "/echo?x=1&y=/z"
    names = {name.lower() for name, _ in seen.json()["headers"]}
    assert "cookie" not in names
    assert "x-forwarded-prefix" not in names


def test_the_cookie_of_one_apps_host_opens_no_other(hosts: AppsSite) -> None:
    browser = signed_in(hosts, "alice")
    follow(browser, BOX, "/echo")
    [value] = [value for (host, _, name), value in browser.jar.items()
               if host == BOX and name == "hutch_app" and value]  # fmt: skip
    headers = {"Host": "9999-box.apps.example.org", "Cookie": f"hutch_app={value}"}
    assert hosts.ask("GET", "/echo", headers).status == 401
    assert hosts.ask("GET", "/echo", {**headers, "Host": BOX}).status == 200
    main = {"Host": MAIN, "Cookie": f"hutch_session={value}"}
    assert hosts.ask("GET", "/apps/", main).status == 302


def test_the_way_in_is_good_for_the_browser_that_asked_alone(hosts: AppsSite) -> None:
    mine, theirs = signed_in(hosts, "alice"), Browser(hosts)
    first = mine.ask("GET", "/echo", host=BOX)
    enter = mine.ask("GET", str(first.one("location")).removeprefix(f"http://{MAIN}"), host=MAIN)
    way_in = str(enter.one("location")).removeprefix(f"http://{BOX}")
    stolen = theirs.ask("GET", way_in, host=BOX)
    assert not any(line.startswith("hutch_app=") for line in stolen.all("set-cookie"))
    other = mine.ask("GET", way_in, host="9999-box.apps.example.org")
    assert not any(line.startswith("hutch_app=") for line in other.all("set-cookie"))


def test_nobody_is_led_to_an_app_that_they_may_not_open(hosts: AppsSite) -> None:
    bob = signed_in(hosts, "bob")
    for host in (f"8888-{hosts.box}.apps.example.org", "8888-nothing.apps.example.org", BOX):
        _, got = follow(bob, host, "/echo")
        assert got.status == 404
    query = urlencode({"host": "evil.example", "state": "x", "path": "/"})
    assert bob.get(f"/apps/-/enter?{query}", host=MAIN).status == 404


def test_a_guest_is_led_to_the_host_that_is_that_instances_alone(hosts: AppsSite) -> None:
    alice = hosts.lab.actors["alice"]
    hosts.do(shares.add(hosts.context, alice, "box", "bob"))
    try:
        host, got = follow(signed_in(hosts, "bob"), BOX, "/echo?x=1")
    finally:
        hosts.do(shares.remove(hosts.context, alice, "box", "bob"))
    assert host == f"8888-{hosts.box}.apps.example.org"
    assert got.json()["target"] == "/echo?x=1"


def test_with_hosts_the_path_leads_there(hosts: AppsSite) -> None:
    browser = signed_in(hosts, "alice")
    host, got = follow(browser, MAIN, f"{APP}/echo?x=1")
    assert (host, got.json()["target"]) == (BOX, "/echo?x=1")


def test_who_signs_out_is_out_at_every_host(hosts: AppsSite) -> None:
    browser = signed_in(hosts, "alice")
    follow(browser, BOX, "/echo")
    page = browser.get("/apps/", host=MAIN).body.decode()
    browser.post("/apps/-/logout", {"form": hidden(page, "form")}, host=MAIN)
    until(lambda: browser.ask("GET", "/echo", host=BOX, page=False).status == 401)


def test_the_api_is_not_at_an_apps_host(hosts: AppsSite) -> None:
    got = hosts.ask("GET", "/api/v1/me", {**_bearer(hosts, "alice"), "Host": BOX})
    assert got.json()["target"] == "/api/v1/me", "the app's own path of that name"
    for host in ("apps.example.org.evil.example", "apps.example.org"):
        assert hosts.ask("GET", "/healthz", {"Host": host}).json()


def test_another_apps_page_asks_for_nothing_in_ones_name(hosts: AppsSite) -> None:
    browser = signed_in(hosts, "alice")
    follow(browser, BOX, "/echo")
    sibling = {"Origin": "http://9999-box.apps.example.org", "Sec-Fetch-Site": "same-site"}
    got = browser.ask("POST", "/echo", host=BOX, headers=sibling, page=False)
    assert got.status == 403


def test_a_server_that_stops_does_not_wait_for_what_never_ends(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stops")
    database = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(database)
    (folder / "data").mkdir()
    site = AppsSite(database, folder / "data").start()
    events = _Stream(site, f"{APP}/events", {"Authorization": f"Bearer {site.tokens['alice']}"})
    events.line()
    stopping = threading.Thread(target=site.stop)
    stopping.start()
    assert events.ends()
    stopping.join(SOON)
    assert not stopping.is_alive()
