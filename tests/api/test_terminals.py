"""Web terminals through real WebSockets, over the simulated engine."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hutch.api import PREFIX
from hutch.store import migrate
from tests.api.live import serving

PATIENCE = 15.0


class Hutch:
    """A live server, with people who have an instance `box` each."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.admin = token
        self.http = httpx.Client(base_url=address + PREFIX, timeout=30)

    def ask(self, method: str, path: str, token: str | None = None, **request: Any) -> Any:
        headers = {"Authorization": f"Bearer {token or self.admin}"}
        answer = self.http.request(method, path, headers=headers, **request)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def person(self) -> tuple[str, str]:
        """A name and a token."""
        name = f"p{time.time_ns():x}"
        made = self.ask("POST", "/users", json={"name": name})
        signed_in = self.ask("POST", "/login", json={"name": name, "password": made["password"]})
        return name, signed_in["token"]

    def box(self, token: str) -> None:
        begun = self.ask("POST", "/instances", token, json={"name": "box"})["operation"]["id"]
        assert self.ask("GET", f"/operations/{begun}?wait=30", token)["state"] == "done"

    @asynccontextmanager
    async def terminal(
        self,
        token: str | None,
        ref: str = "box",
        *,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> AsyncGenerator["Shell"]:
        url = self.address.replace("http", "ws") + f"{PREFIX}/instances/{ref}/terminal"
        if query:
            url += "?" + "&".join(f"{key}={value}" for key, value in query.items())
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        async with connect(url, additional_headers=sent, compression=None) as socket:
            shell = Shell(socket)
            opened = json.loads(await shell.receive_text())
            assert opened["type"] == "open"
            shell.session, shell.is_new = opened["session"], opened["new"]
            yield shell


class Shell:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session = ""
        self.is_new = True
        self.came = 0

    async def receive_text(self) -> str:
        async with asyncio.timeout(PATIENCE):
            while not isinstance(message := await self.socket.recv(), str):
                self.came += len(message)
            return message

    async def until(self, text: bytes) -> bytes:
        came = b""
        async with asyncio.timeout(PATIENCE):
            while text not in came:
                message = await self.socket.recv()
                assert isinstance(message, bytes), message
                came += message
        self.came += len(came)
        return came

    async def type(self, text: bytes) -> None:
        await self.socket.send(text)

    async def tell(self, **message: object) -> None:
        await self.socket.send(json.dumps(message))

    async def close_code(self) -> tuple[int, list[dict[str, Any]]]:
        """How the other end closes, and what it says until then."""
        told: list[dict[str, Any]] = []
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    message = await self.socket.recv()
                    if isinstance(message, str):
                        told.append(json.loads(message))
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 0, told


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def hutch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hutch]:
    folder: Path = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'hutch.db'}"
    else:
        postgresql = request.getfixturevalue("postgresql_server")
        url = postgresql.url(postgresql.create())
    migrate.upgrade(url)
    with serving(url, folder, login_failures=10_000, terminals_per_person=3) as (address, token):
        made = Hutch(address, token)
        yield made
        made.http.close()


@pytest.fixture
def alice(hutch: Hutch) -> str:
    """Somebody's token."""
    _, token = hutch.person()
    hutch.box(token)
    return token


async def test_a_shell_echoes_grows_and_ends(hutch: Hutch, alice: str):
    async with hutch.terminal(alice, columns=91, rows=27) as shell:
        assert shell.is_new
        await shell.type("echo 'grüße 你好'\r".encode())
        await shell.until("\r\ngrüße 你好\r\n$ ".encode())
        await shell.type(b"stty size\r")
        await shell.until(b"27 91\r\n$ ")
        await shell.tell(type="resize", columns=132, rows=50)
        await shell.type(b"stty size\r")
        await shell.until(b"50 132\r\n$ ")
        await shell.type(b"exit\r")
        code, told = await shell.close_code()
        assert (code, told[-1]) == (1000, {"type": "exit"})


async def test_a_lost_connection_comes_back_to_the_same_shell(hutch: Hutch, alice: str):
    async with hutch.terminal(alice) as shell:
        await shell.type(b"echo before\r")
        await shell.until(b"\r\nbefore\r\n")
        shell.socket.transport.abort()
    async with hutch.terminal(alice, session=shell.session) as again:
        assert (again.session, again.is_new) == (shell.session, False)
        # What was printed before is shown once more.
        await again.until(b"\r\nbefore\r\n$ ")
        await again.type(b"echo after\r")
        await again.until(b"\r\nafter\r\n")
    events = hutch.ask("GET", "/events?action=terminal.open")
    assert [each["detail"]["again"] for each in events[:2]] == [True, False]


async def test_a_second_connection_takes_the_shell_over(hutch: Hutch, alice: str):
    async with (
        hutch.terminal(alice) as first,
        hutch.terminal(alice, session=first.session) as second,
    ):
        assert (await first.close_code())[0] == 4409
        await second.type(b"echo mine\r")
        await second.until(b"\r\nmine\r\n")


async def test_nobody_elses_session_can_be_joined(hutch: Hutch, alice: str):
    name, bob = hutch.person()
    hutch.ask("PUT", f"/instances/box/shares/{name}", alice, json={})
    async with hutch.terminal(alice) as hers:
        await hers.type(b"echo secret\r")
        await hers.until(b"\r\nsecret\r\n")
        async with hutch.terminal(bob, session=hers.session) as his:
            assert his.is_new
            assert b"secret" not in await his.until(b"$ ")


async def test_what_was_printed_without_anyone_is_kept_up_to_a_bound(hutch: Hutch, alice: str):
    async with hutch.terminal(alice) as shell:
        await shell.type(b"flood\r")
        while shell.came < 2 * 1024 * 1024:
            await shell.until(b"lazy dog")
    async with hutch.terminal(alice, session=shell.session, window=2**20) as again:
        await again.until(b"the quick brown fox")
        await again.type(b"\x03")
        await again.until(b"^C\r\n$ ")
        # The replay, what may be on its way, and what the shell printed before it heard of Ctrl-C.
        assert again.came < 256 * 1024 + 2**20 + 512 * 1024


async def test_who_prints_without_end_is_held_to_the_window(hutch: Hutch, alice: str):
    window = 64 * 1024
    async with hutch.terminal(alice, window=window) as shell:
        await shell.type(b"flood\r")
        quiet = 0
        while not quiet:
            try:
                async with asyncio.timeout(0.5):
                    message = await shell.socket.recv()
                shell.came += len(message)
            except TimeoutError:
                quiet = shell.came
        # At most a piece more than was asked for: nothing was acknowledged.
        assert window <= quiet <= window + 64 * 1024
        await shell.tell(type="ack", bytes=quiet)
        assert await shell.until(b"lazy dog")
        await shell.tell(type="ack", bytes=shell.came)


async def test_others_go_on_while_somebody_reads_nothing(hutch: Hutch, alice: str):
    _, bob = hutch.person()
    hutch.box(bob)
    async with hutch.terminal(alice) as flooding, hutch.terminal(bob) as other:
        await flooding.type(b"flood\r")
        await flooding.until(b"lazy dog")
        # From here on it prints and nobody reads: the server holds no more than its buffers.
        for number in range(20):
            await other.type(f"echo {number}!\r".encode())
            await other.until(f"\r\n{number}!\r\n$ ".encode())


@pytest.mark.parametrize("how", ["token", "person", "share", "stop"])
async def test_a_right_that_is_lost_ends_the_open_terminal(hutch: Hutch, how: str):
    _, owner = hutch.person()
    hutch.box(owner)
    name, guest = hutch.person()
    hutch.ask("PUT", f"/instances/box/shares/{name}", owner, json={})
    async with hutch.terminal(guest) as shell:
        await shell.until(b"$ ")
        began = time.monotonic()
        if how == "token":
            hutch.ask("POST", "/logout", guest)
        elif how == "person":
            hutch.ask("POST", f"/users/{name}/disable")
        elif how == "share":
            hutch.ask("DELETE", f"/instances/box/shares/{name}", owner)
        else:
            hutch.ask("POST", "/instances/box/stop", owner)
        code, told = await shell.close_code()
        assert time.monotonic() - began < 5
        assert code == (1000 if how == "stop" else 4403)
        reasons = {"token": "bad_token", "person": "bad_token", "share": "not_found"}
        assert told[-1]["code"] in {reasons.get(how), "wrong_state", "engine_error"}


async def test_one_person_has_so_many_and_the_forgotten_one_makes_room(hutch: Hutch, alice: str):
    async with hutch.terminal(alice) as first:
        pass
    async with hutch.terminal(alice), hutch.terminal(alice), hutch.terminal(alice):
        with pytest.raises(InvalidStatus) as refused:
            async with hutch.terminal(alice):
                pass
        assert refused.value.response.status_code == 429
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with hutch.terminal(alice, session=first.session) as new:
                    assert new.is_new
                    return
            except InvalidStatus:
                # The server has not heard yet that the others have been left.
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"columns": "0"}, 422),
        ({"rows": "10000"}, 422),
        ({"columns": "x"}, 422),
        ({"session": "../../x"}, 422),
        ({"session": "';reboot"}, 422),
        ({"window": "1"}, 422),
        ({"command": "sh"}, 422),
    ],
)
async def test_what_makes_no_sense_is_refused(
    hutch: Hutch, alice: str, query: dict[str, Any], status: int
):
    with pytest.raises(InvalidStatus) as refused:
        async with hutch.terminal(alice, **query):
            pass
    assert refused.value.response.status_code == status


async def test_what_cannot_become_a_websocket_is_told_so(hutch: Hutch):
    """Nobody is known yet: such a connection must not be left open for nothing."""
    port = urlsplit(hutch.address).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"GET {PREFIX}/instances/box/terminal?ticket={'x' * 20_000} HTTP/1.1",
        f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


@pytest.mark.parametrize(
    "message", ["{", "[]", '{"type": "nothing"}', '{"type": "resize"}',
                '{"type": "ack", "bytes": 999999999}', '{"type": "resize", "columns": true}',
                '{"type": "resize", "columns": 1e999, "rows": 1}', "[" * 200_000],
    ids=lambda message: message[:40],
)  # fmt: skip
async def test_a_message_that_makes_no_sense_ends_it(hutch: Hutch, alice: str, message: str):
    async with hutch.terminal(alice) as shell:
        await shell.socket.send(message)
        assert (await shell.close_code())[0] == 1008


async def test_who_may_not_learns_nothing(hutch: Hutch, alice: str):
    name, bob = hutch.person()
    me = hutch.ask("GET", "/instances/box", alice)["id"]
    read = hutch.ask("POST", "/tokens", alice, json={"title": "r", "scope": "read"})["token"]
    hutch.ask("PUT", f"/instances/box/shares/{name}", alice, json={"read_only_view": True})
    for token, ref, status in (
        (None, "box", 401), ("nonsense", "box", 401), (read, "box", 403), (bob, me, 403),
        (bob, "nothing", 404),
    ):  # fmt: skip
        with pytest.raises(InvalidStatus) as refused:
            async with hutch.terminal(token, ref):
                pass
        assert refused.value.response.status_code == status, (ref, status)


async def test_a_stopped_instance_has_none(hutch: Hutch, alice: str):
    begun = hutch.ask("POST", "/instances/box/stop", alice)["operation"]["id"]
    assert hutch.ask("GET", f"/operations/{begun}?wait=30", alice)["state"] == "done"
    with pytest.raises(InvalidStatus) as refused:
        async with hutch.terminal(alice):
            pass
    assert refused.value.response.status_code == 409
    assert json.loads(refused.value.response.body)["error"]["code"] == "wrong_state"
