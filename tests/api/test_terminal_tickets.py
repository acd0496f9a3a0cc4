"""Tickets with which a page opens a terminal: for one connection, one instance, one token, 30 s."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from cryptography.fernet import Fernet
from websockets.exceptions import InvalidStatus

from hutch.api import PREFIX, edge
from hutch.api.terminals import terminals as service
from hutch.logs import configure_logs
from hutch.store import migrate
from tests.api.live import fill, replica
from tests.api.test_terminals import Hutch, Shell
from tests.lab import Clock

RACERS = 8


class Lab:
    """A database, and servers over it that have one key."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.key = Fernet.generate_key()
        self.clock = Clock()
        migrate.upgrade(url)
        self.admin = asyncio.run(fill(url, folder))

    @contextmanager
    def server(self) -> Generator[Hutch]:
        with replica(
            self.url, self.folder, key=self.key, now=self.clock,
            login_failures=10_000, terminals_per_person=3, public_url="http://hutch.example",
        ) as address:  # fmt: skip
            made = Hutch(address, self.admin)
            yield made
            made.http.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        yield Lab(f"sqlite:///{folder / 'hutch.db'}", folder)
    else:
        postgresql = request.getfixturevalue("postgresql_server")
        yield Lab(postgresql.url(postgresql.create()), folder)


@pytest.fixture(scope="module")
def hutch(lab: Lab) -> Iterator[Hutch]:
    with lab.server() as made:
        yield made


@pytest.fixture
def alice(hutch: Hutch) -> str:
    """Somebody's token, who has an instance `box`."""
    _, token = hutch.person()
    hutch.box(token)
    return token


def ticket(hutch: Hutch, token: str, ref: str = "box") -> str:
    return hutch.ask("POST", f"/instances/{ref}/terminal/ticket", token)["ticket"]


def by(
    hutch: Hutch, given: str, ref: str = "box", **more: Any
) -> AbstractAsyncContextManager[Shell]:
    return hutch.terminal(None, ref, ticket=given, **more)


async def refused(opening: AbstractAsyncContextManager[Shell]) -> tuple[int, str]:
    """The status and the code with which a connection is refused."""
    with pytest.raises(InvalidStatus) as error:
        async with opening:
            pass
    response = error.value.response
    return response.status_code, json.loads(response.body)["error"]["code"]


async def test_a_ticket_opens_a_terminal_and_the_event_says_so(hutch: Hutch, alice: str):
    before = hutch.ask("GET", "/events?limit=1")[0]["id"]
    asked = hutch.ask("POST", "/instances/box/terminal/ticket", alice)
    assert asked.keys() == {"ticket", "expires_at"}
    lasts = datetime.fromisoformat(asked["expires_at"]).timestamp() - time.time()
    assert 0 < lasts <= 30
    # Asking for one changes nothing.
    assert hutch.ask("GET", "/events?limit=1")[0]["id"] == before
    async with by(hutch, asked["ticket"], columns=91, rows=27) as shell:
        await shell.type(b"stty size\r")
        await shell.until(b"27 91\r\n$ ")
        await shell.type("echo 'grüße 你好'\r".encode())
        await shell.until("\r\ngrüße 你好\r\n$ ".encode())
    (event,) = hutch.ask("GET", "/events?action=terminal.open&limit=1")
    assert event["by"] == hutch.ask("GET", "/me", alice)["name"]
    assert event["target"]["name"] == "box"
    assert event["address"] == "127.0.0.1"
    assert event["detail"].keys() == {"again", "ticket"}
    assert event["detail"]["ticket"] not in asked["ticket"]
    # By a token it is as it was.
    async with hutch.terminal(alice, session=shell.session):
        pass
    (event,) = hutch.ask("GET", "/events?action=terminal.open&limit=1")
    assert event["detail"] == {"again": True}


async def test_a_new_ticket_comes_back_to_the_same_shell(hutch: Hutch, alice: str):
    async with by(hutch, ticket(hutch, alice)) as shell:
        await shell.type(b"echo before\r")
        await shell.until(b"\r\nbefore\r\n")
        shell.socket.transport.abort()
    async with by(hutch, ticket(hutch, alice), session=shell.session) as again:
        assert not again.is_new
        await again.until(b"\r\nbefore\r\n$ ")


async def test_it_is_good_once_and_a_used_one_touches_nothing(hutch: Hutch, alice: str):
    given = ticket(hutch, alice)
    async with by(hutch, given) as shell:
        assert await refused(by(hutch, given)) == (401, "bad_ticket")
        assert await refused(by(hutch, given, session=shell.session)) == (401, "bad_ticket")
        await shell.type(b"echo mine\r")
        await shell.until(b"\r\nmine\r\n")
    assert await refused(by(hutch, given)) == (401, "bad_ticket")


async def test_of_many_at_once_one_gets_in(lab: Lab, hutch: Hutch, alice: str):
    async def enter(where: Hutch, given: str) -> str:
        try:
            async with by(where, given) as shell:
                await shell.until(b"$ ")
                return "in"
        except InvalidStatus as error:
            return json.loads(error.response.body)["error"]["code"]

    before = hutch.ask("GET", "/events?limit=1")[0]["id"]
    with lab.server() as other:
        for _ in range(3):
            given = ticket(hutch, alice)
            ends = await asyncio.gather(
                *(enter(hutch if number % 2 else other, given) for number in range(RACERS))
            )
            assert sorted(ends) == ["bad_ticket"] * (RACERS - 1) + ["in"]
    opened = hutch.ask("GET", "/events?action=terminal.open")
    assert len([each for each in opened if each["id"] > before]) == 3


async def test_it_is_good_at_every_server_and_after_a_restart(lab: Lab, hutch: Hutch, alice: str):
    first, second, third = (ticket(hutch, alice) for _ in range(3))
    with lab.server() as other:
        async with by(other, first) as shell:
            await shell.until(b"$ ")
        made_there = ticket(other, alice)
    assert await refused(by(hutch, first)) == (401, "bad_ticket")
    async with by(hutch, second) as shell:
        await shell.until(b"$ ")
    # That server has ended; another starts.
    with lab.server() as restarted:
        assert await refused(by(restarted, second)) == (401, "bad_ticket")
        async with by(restarted, third) as shell:
            await shell.until(b"$ ")
        async with by(restarted, made_there) as shell:
            await shell.until(b"$ ")


async def test_its_time_ends(lab: Lab, hutch: Hutch, alice: str):
    given = ticket(hutch, alice)
    try:
        lab.clock.forward(seconds=31)
        assert await refused(by(hutch, given)) == (401, "bad_ticket")
        # One that was used does not come back with the time.
        given = ticket(hutch, alice)
        async with by(hutch, given):
            pass
        lab.clock.back(seconds=31)
        assert await refused(by(hutch, given)) == (401, "bad_ticket")
    finally:
        lab.clock.reset()


async def test_it_is_for_one_instance(hutch: Hutch, alice: str):
    begun = hutch.ask("POST", "/instances", alice, json={"name": "other"})["operation"]["id"]
    assert hutch.ask("GET", f"/operations/{begun}?wait=30", alice)["state"] == "done"
    _, bob = hutch.person()
    hutch.box(bob)
    theirs = hutch.ask("GET", "/instances/box", bob)["id"]
    given = ticket(hutch, alice)
    assert await refused(by(hutch, given, ref="other")) == (401, "bad_ticket")
    # What belongs to somebody else is not there, with whatever one comes.
    assert await refused(by(hutch, given, ref=theirs)) == (404, "not_found")
    # Neither has used it up. Whoever has it is alice, wherever it came from.
    async with by(hutch, given) as shell:
        await shell.until(b"$ ")


@pytest.mark.parametrize(
    "given",
    [
        "",
        ".",
        "x",
        "a.b",
        "%C3%A9.%C3%A9",
        "x" * 1025,
        "x" * 7_000,
        "null",
        "%0d%0aX:%20y",
        "a%ff",
    ],
)
async def test_what_is_no_ticket_is_refused(hutch: Hutch, alice: str, given: str):
    assert await refused(by(hutch, given)) == (401, "bad_ticket")


async def test_one_that_was_changed_is_refused(hutch: Hutch, alice: str):
    given = ticket(hutch, alice)
    said, _, seal = given.partition(".")
    for changed in (f"{said}A.{seal}", f"{said}.{seal}A", seal, said, f"{given}%20", f"{given}%0a"):
        assert await refused(by(hutch, changed)) == (401, "bad_ticket")
    assert await refused(by(hutch, f"{given}%00")) == (422, "invalid_input")
    async with by(hutch, given):
        pass


async def test_two_proofs_at_once_are_refused(hutch: Hutch, alice: str):
    first, second = ticket(hutch, alice), ticket(hutch, alice)
    both = hutch.terminal(alice, ticket=first)
    assert await refused(both) == (422, "invalid_input")
    assert await refused(by(hutch, f"{first}&ticket={second}")) == (422, "invalid_input")


@pytest.mark.parametrize("how", ["revoked", "disabled", "expired", "unshared", "view", "stopped"])
async def test_it_is_worth_what_its_token_is_worth(lab: Lab, hutch: Hutch, how: str):
    _, owner = hutch.person()
    hutch.box(owner)
    name, guest = hutch.person()
    box = hutch.ask("GET", "/instances/box", owner)["id"]
    hutch.ask("PUT", f"/instances/box/shares/{name}", owner, json={})
    if how == "expired":
        made = hutch.ask("POST", "/tokens", guest, json={"title": "t", "days": 1})
        guest = made["token"]
    try:
        if how == "expired":
            lab.clock.forward(days=1, seconds=-10)
        given = ticket(hutch, guest, box)
        match how:
            case "revoked":
                hutch.ask("POST", "/logout", guest)
            case "disabled":
                hutch.ask("POST", f"/users/{name}/disable")
            case "expired":
                lab.clock.forward(seconds=11)
            case "unshared":
                hutch.ask("DELETE", f"/instances/box/shares/{name}", owner)
            case "view":
                view = {"read_only_view": True}
                hutch.ask("PUT", f"/instances/box/shares/{name}", owner, json=view)
            case _:
                hutch.ask("POST", "/instances/box/stop", owner)
        expected = {
            "unshared": (404, "not_found"), "view": (403, "forbidden"),
            "stopped": (409, "wrong_state"),
        }.get(how, (401, "bad_ticket"))  # fmt: skip
        assert await refused(by(hutch, given, ref=box)) == expected
    finally:
        lab.clock.reset()


@pytest.mark.parametrize("how", ["token", "person", "share"])
async def test_a_right_that_is_lost_ends_the_open_terminal(hutch: Hutch, how: str):
    _, owner = hutch.person()
    hutch.box(owner)
    name, guest = hutch.person()
    hutch.ask("PUT", f"/instances/box/shares/{name}", owner, json={})
    async with by(hutch, ticket(hutch, guest)) as shell:
        await shell.until(b"$ ")
        if how == "token":
            hutch.ask("POST", "/logout", guest)
        elif how == "person":
            hutch.ask("POST", f"/users/{name}/disable")
        else:
            hutch.ask("DELETE", f"/instances/box/shares/{name}", owner)
        assert (await shell.close_code())[0] == 4403


def asking(hutch: Hutch, ref: str = "box", **headers: str) -> tuple[int, str]:
    path = f"{hutch.address}{PREFIX}/instances/{ref}/terminal/ticket"
    answer = httpx.post(path, headers=headers)
    return answer.status_code, answer.json()["error"]["code"]


async def test_who_may_not_open_a_terminal_gets_no_ticket(hutch: Hutch, alice: str):
    name, bob = hutch.person()
    me = hutch.ask("GET", "/instances/box", alice)["id"]
    read = hutch.ask("POST", "/tokens", alice, json={"title": "r", "scope": "read"})["token"]
    assert asking(hutch) == (401, "not_authenticated")
    assert asking(hutch, Authorization=f"Bearer {read}") == (403, "forbidden")
    assert asking(hutch, me, Authorization=f"Bearer {bob}") == (404, "not_found")
    hutch.ask("PUT", f"/instances/box/shares/{name}", alice, json={"read_only_view": True})
    assert asking(hutch, me, Authorization=f"Bearer {bob}") == (403, "forbidden")
    # A ticket is for a terminal: it gets no other one, and opens nothing else.
    given = ticket(hutch, alice)
    assert asking(hutch, Authorization=f"Bearer {given}") == (401, "bad_token")
    assert httpx.get(f"{hutch.address}{PREFIX}/me?ticket={given}").status_code == 401


async def test_a_stopped_instance_has_none(hutch: Hutch, alice: str):
    begun = hutch.ask("POST", "/instances/box/stop", alice)["operation"]["id"]
    assert hutch.ask("GET", f"/operations/{begun}?wait=30", alice)["state"] == "done"
    assert asking(hutch, Authorization=f"Bearer {alice}") == (409, "wrong_state")


async def test_a_browsers_sign_in_to_apps_gets_none(hutch: Hutch, alice: str):
    """What an app's page has the browser send, and what it cannot read but might have."""
    name = hutch.ask("GET", "/me", alice)["name"]
    made = hutch.ask("POST", f"/users/{name}/reset-password")
    browser = httpx.Client(base_url=hutch.address, headers={"Accept": "text/html"})
    page = browser.get("/login?next=/apps/").text
    hidden = {
        part.split('"')[0]: part.split('value="')[1].split('"')[0]
        for part in page.split('type="hidden" name="')[1:]
    }
    signed = browser.post("/login", data={**hidden, "name": name, "password": made["password"]})
    assert signed.status_code == 303, signed.text
    (cookie,) = (each for each in browser.cookies.jar if "session" in each.name)
    # The browser sends it to apps alone; let it be sent all the same.
    assert cookie.path == "/apps"
    value = str(cookie.value)
    for headers in (
        {"Cookie": f"{cookie.name}={value}"},
        {"Authorization": f"Bearer {value}"},
        {"Cookie": f"{cookie.name}={value}", "Authorization": f"Bearer {value}"},
    ):
        status, code = asking(hutch, **headers, Origin=hutch.address)
        assert (status, code in {"bad_token", "not_authenticated"}) == (401, True)
        opening = hutch.terminal(None, headers={**headers, "Origin": hutch.address})
        assert (await refused(opening))[0] == 401
    # Nor does the way into apps lead to it.
    for path in ("/apps/../api/v1", "/apps/%2e%2e/api/v1", "/apps/box/80/../../../api/v1"):
        answer = browser.post(f"{path}/instances/box/terminal/ticket")
        assert answer.status_code in {401, 403, 404}, path


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("http://{host}", True), ("https://{host}", True), ("https://hutch.example", True),
        ("https://HUTCH.example", True), ("null", False), ("", False), ("{host}", False),
        ("http://", False), ("https://example.org", False), ("http://x.{host}", False),
        ("https://hutch.example.org", False), ("https://8888-box.apps.example", False),
        ("http://{host}@example.org", False), ("file://{host}", False),
        ("http://127.0.0.1", False), ("http://{host}/apps", False),
    ],
)  # fmt: skip
async def test_a_ticket_is_taken_from_hutchs_own_pages(
    hutch: Hutch, alice: str, origin: str, is_own: bool
):
    said = {"Origin": origin.format(host=hutch.address.partition("://")[2])}
    given = ticket(hutch, alice)
    if is_own:
        async with by(hutch, given, headers=said) as shell:
            await shell.until(b"$ ")
    else:
        assert await refused(by(hutch, given, headers=said)) == (403, "forbidden")
    # No page can send a token: whoever does is a program, whatever it says besides.
    async with hutch.terminal(alice, headers=said):
        pass


async def test_no_ticket_is_logged(hutch: Hutch, alice: str, monkeypatch: pytest.MonkeyPatch):
    """Of one that is used, refused, misspelt, met by a mistake of ours, or of no use."""
    handlers, level = logging.root.handlers[:], logging.root.level
    written = io.StringIO()
    configure_logs("debug", "json", written)
    monkeypatch.setattr(edge, "log", structlog.get_logger())
    good, broken, lost, misspelt = (ticket(hutch, alice) for _ in range(4))
    try:
        async with by(hutch, good) as shell:
            await shell.until(b"$ ")
            await shell.socket.send("nonsense")
            assert (await shell.close_code())[0] == 1008
        assert (await refused(by(hutch, good)))[0] == 401
        assert (await refused(by(hutch, f"{lost}%00")))[0] == 422
        assert (await refused(hutch.terminal(None, tickets=misspelt)))[0] == 401
        answer = hutch.http.get(f"/instances/box/terminal?ticket={lost}")
        assert lost not in answer.text
        monkeypatch.setattr(service, "present", _fail)
        assert (await refused(by(hutch, broken)))[0] == 500
        printed = written.getvalue()
    finally:
        structlog.reset_defaults()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    lines = [json.loads(line) for line in printed.splitlines()]
    asked = [each for each in lines if each["message"] == "request"]
    assert [each["status"] for each in asked] == [201] * 4 + [101, 401, 422, 401, 404, 500]
    assert "RuntimeError" in printed
    for each in (good, broken, lost, misspelt):
        assert each not in printed
        # Nor half of one.
        assert each.partition(".")[2] not in printed


async def _fail(*_: object, **__: object) -> None:
    raise RuntimeError
