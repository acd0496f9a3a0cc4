"""The server's end of an agent's connection: who may open it, and what may be said on it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hutch.domain.accelerators import Health, Verb
from hutch.services import accelerators as services
from hutch.services import agents
from hutch.services.context import Context
from hutch.store import accelerators, nodes
from tests import lab as labs
from tests.accelerators import broken, card, hold, reading
from tests.api.live import serving

A = "0000:3b:00.0"


class Server:
    """A server, and what its node's agent needs."""

    def __init__(self, address: str, admin: str, database_url: str, folder: Path) -> None:
        self.address = address
        self.admin = admin
        self.database_url = database_url
        self.folder = folder
        self.token = self.new_token()

    def new_token(self) -> str:
        made = httpx.post(
            f"{self.address}/api/v1/nodes/node1/agent-token",
            headers={"Authorization": f"Bearer {self.admin}"},
        )
        assert made.status_code == 201, made.text
        return made.json()["token"]

    def open(self, token: str | None = None, path: str = "agent", **headers: str) -> connect:
        if token != "":
            headers["Authorization"] = f"Bearer {token or self.token}"
        where = f"{self.address}/api/v1/{path}".replace("http", "ws", 1)
        return connect(where, additional_headers=headers, proxy=None)

    def context(self) -> Context:
        return labs.open_context(self.database_url, self.folder)


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    with serving(sqlite_url, tmp_path, agent_silence_seconds=60) as (address, admin):
        yield Server(address, admin, sqlite_url, tmp_path)


HELLO: dict[str, Any] = {
    "type": "hello",
    "version": "0.1.0",
    "boot_id": "boot",
    "nvidia_container": False,
    "accelerators": [card(A).as_dict()],
}


async def say(agent: ClientConnection, message: Any) -> None:
    await agent.send(json.dumps(message))


async def hear(agent: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(agent.recv(), 20))


async def greet(agent: ClientConnection, **changes: Any) -> dict[str, Any]:
    await say(agent, {**HELLO, **changes})
    return await hear(agent)


async def refused(agent: ClientConnection, code: int = 1008) -> str:
    """The reason for which the server ends the conversation."""
    reason = ""
    with suppress(ConnectionClosed):
        async for text in agent:
            told = json.loads(text)
            assert told["type"] == "error", told
            reason = told["message"]
    assert agent.close_code == code
    return reason


async def health_of(context: Context) -> dict[str, Health]:
    async with context.db.read() as session:
        found = await accelerators.list_accelerators(session)
    return {each.found.address: each.found.health for each in found}


async def until(check: Any) -> None:
    """Return as soon as it is so; a test that waits in vain ends by its own time limit."""
    while not await check():
        await asyncio.sleep(0.02)


# -- who may open it ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "hutch_node_wrong", "person"])
async def test_nobody_else_is_let_in(server: Server, token: str):
    given = server.admin if token == "person" else token
    with pytest.raises(InvalidStatus) as answer:
        async with server.open(given):
            pass
    response = answer.value.response
    assert response.status_code == 401
    error = json.loads(response.body or b"")["error"]
    assert error["code"] in {"bad_token", "not_authenticated"}
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_token_of_before_is_of_no_use(server: Server):
    async with server.open() as agent:
        await greet(agent)
        old, server.token = server.token, server.new_token()
        await refused(agent, 4409)
        with pytest.raises(InvalidStatus):
            async with server.open(old):
                pass


async def test_there_is_no_other_websocket(server: Server):
    with pytest.raises(InvalidStatus) as answer:
        async with server.open(path="nodes"):
            pass
    assert answer.value.response.status_code == 403


async def test_the_address_is_nothing_for_plain_http(server: Server):
    answer = httpx.get(f"{server.address}/api/v1/agent")
    assert answer.status_code == 404


async def test_a_connection_has_a_request_id(server: Server):
    async with server.open(**{"X-Request-ID": "mine"}) as agent:
        assert agent.response is not None
        assert agent.response.headers["x-request-id"] == "mine"


# -- what is said on it ------------------------------------------------------------------------


async def test_an_agent_is_welcomed_and_what_it_tells_is_known(server: Server):
    async with server.open() as agent:
        welcome = await greet(agent)
        assert (welcome["type"], welcome["node"]) == ("welcome", "node1")
        context = server.context()
        assert await health_of(context) == {A: Health.OK}
        told = {"type": "readings", "seconds": 2.0, "readings": [reading(A, 0.5).as_dict()]}
        await say(agent, told)

        async def is_read() -> bool:
            async with context.db.read() as session:
                return bool(await accelerators.list_readings(session))

        await until(is_read)
        await say(agent, {**told, "readings": [broken(A).as_dict()]})
        await until(lambda: _is(context, {A: Health.FAILED}))
        more = [card(A).as_dict(), card("0000:5e:00.0").as_dict()]
        await say(agent, {"type": "accelerators", "accelerators": more})
        await until(lambda: _is(context, {A: Health.OK, "0000:5e:00.0": Health.OK}))
        await labs.close_context(context)


async def _is(context: Context, expected: dict[str, Health]) -> bool:
    return await health_of(context) == expected


BAD: list[Any] = [
    "not json",
    "[]",
    "null",
    "{}",
    "[" * 100_000,
    '{"type": "hello"}',
    '{"type": "wat"}',
    json.dumps({**HELLO, "more": 1}),
    json.dumps({**HELLO, "version": "x" * 65}),
    json.dumps({**HELLO, "version": "a\0b"}),
    json.dumps({**HELLO, "accelerators": HELLO["accelerators"] * 2}),
    json.dumps({**HELLO, "accelerators": [{**card().as_dict(), "memory": -1}]}),
    json.dumps({**HELLO, "accelerators": [{**card().as_dict(), "memory": 10**400}]}),
    json.dumps({**HELLO, "accelerators": [{**card().as_dict(), "vendor": "acme"}]}),
    json.dumps({**HELLO, "accelerators": [{**card().as_dict(), "health": "unknown"}]}),
    json.dumps({**HELLO, "accelerators": [card(str(n)).as_dict() for n in range(300)]}),
    json.dumps({"type": "readings", "seconds": 1, "readings": []}),
    b"\x00\x01",
]


@pytest.mark.parametrize("message", BAD, ids=lambda m: str(m)[:40])
async def test_a_bad_first_message_is_answered_and_ends_it(server: Server, message: str | bytes):
    async with server.open() as agent:
        await agent.send(message)
        assert await refused(agent)
    await still_answers(server)


@pytest.mark.parametrize(
    "message",
    [
        HELLO,
        {"type": "readings", "seconds": -1, "readings": []},
        {"type": "readings", "seconds": "NaN", "readings": []},
        {"type": "readings", "seconds": 1, "readings": [{**reading().as_dict(), "power": -1}]},
        {"type": "readings", "seconds": 1, "readings": [{**reading().as_dict(), "utilisation": 2}]},
        {"type": "done", "id": "x" * 17, "processes": []},
        {"type": "done", "id": "x", "processes": [{"pid": 0}]},
    ],
    ids=lambda m: str(m)[:60],
)
async def test_a_bad_later_message_is_answered_and_ends_it(server: Server, message: Any):
    async with server.open() as agent:
        await greet(agent)
        await say(agent, message)
        assert await refused(agent)
    await still_answers(server)


async def test_numbers_that_are_none_are_refused(server: Server):
    async with server.open() as agent:
        await greet(agent)
        await agent.send('{"type": "readings", "seconds": NaN, "readings": []}')
        assert await refused(agent)


async def test_a_message_without_end_ends_it(server: Server):
    async with server.open() as agent:
        await greet(agent)
        with suppress(ConnectionClosed):
            await agent.send("x" * (2 * 1024**2))
        assert await refused(agent, 1009) == ""
    await still_answers(server)


async def test_who_says_nothing_is_sent_away(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hutch.api.agents.HELLO_SECONDS", 0.1)
    async with server.open() as agent:
        assert await refused(agent) == "Say hello first."


async def still_answers(server: Server) -> None:
    async with server.open() as agent:
        assert (await greet(agent))["type"] == "welcome"


# -- one connection for each node --------------------------------------------------------------


async def test_a_newer_connection_takes_the_place_of_the_older_one(server: Server):
    async with server.open() as older:
        await greet(older)
        async with server.open() as newer:
            await greet(newer)
            await refused(older, 4409)
            await say(newer, {"type": "readings", "seconds": 2, "readings": []})
            await asyncio.sleep(0)
            assert newer.close_code is None


# -- orders ------------------------------------------------------------------------------------


async def test_an_order_goes_to_the_agent_and_its_answer_comes_back(server: Server):
    async with server.open() as agent:
        welcome = await greet(agent)
        context = server.context()
        async with context.db.read() as session:
            node = await nodes.find_node(session, "node1")
            [found] = await accelerators.list_accelerators(session)
        assert node is not None
        lab = await _lab(context)
        lease_id, _ = await hold(context, lab, lab.actors["alice"], found.id)
        async with context.db.write() as session:
            order = await agents.order(
                session, context, Verb.ASK, node_id=node.id, lease_id=lease_id,
                container="hutch-1", devices=[agents.OpenedDevice(195, 0, "/dev/nvidia0")],
            )  # fmt: skip
        waiting = asyncio.create_task(agents.await_result(context, node.id, order, timeout=20))
        asked = await hear(agent)
        assert 0 < asked.pop("until") - welcome["now"] <= agents.ORDER_SECONDS + 60
        assert asked == {
            "type": "do", "id": order, "verb": "ask", "container": "hutch-1",
            "devices": [{"major": 195, "minor": 0, "path": "/dev/nvidia0"}],
        }  # fmt: skip
        process = {"pid": 7, "command": "x", "container": "hutch-1", "user": "ai", "memory": 0}
        await say(agent, {"type": "done", "id": order, "processes": [process], "is_shut": True})
        revoked = await waiting
        assert revoked is not None
        assert revoked.is_shut
        [named] = revoked.processes
        assert (named.pid, named.user) == (7, "ai")
        await labs.close_context(context)


async def _lab(context: Context) -> labs.Lab:
    """The people and the node that `serving` made."""
    from hutch.domain.people import Actor
    from hutch.store import images, users

    async with context.db.read() as session:
        node = await nodes.find_node(session, "node1")
        everyone = await users.list_users(session, context.settings.default_quota)
        [image] = await images.list_images(session)
    assert node is not None
    people = {each.name: Actor(each.id, each.name, each.role) for each in everyone}
    return labs.Lab(node, image, people)


async def test_a_database_that_is_away_is_outlived(server: Server, monkeypatch: pytest.MonkeyPatch):
    from hutch.errors import DatabaseUnavailableError

    away = asyncio.Event()
    record = services.record_found

    async def fail_once(*args: Any) -> bool:
        if not away.is_set():
            away.set()
            raise DatabaseUnavailableError("gone")
        return await record(*args)

    monkeypatch.setattr(services, "record_found", fail_once)
    monkeypatch.setattr("hutch.api.agents.WRITE_SECONDS", 0.05)
    context = server.context()
    async with server.open() as agent:
        await greet(agent)
        await say(agent, {"type": "accelerators", "accelerators": []})
        await say(agent, {"type": "readings", "seconds": 2, "readings": []})

        async def is_known() -> bool:
            await say(agent, {"type": "readings", "seconds": 0, "readings": []})
            return await health_of(context) == {A: Health.MISSING}

        await until(is_known)
    await labs.close_context(context)
