"""The agent keeps its connection up through everything, and does what it is asked once."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from hutch.agent import connection as connections
from hutch.agent.connection import Agent, socket_url
from hutch.agent.credentials import read_token
from hutch.agent.run import carry_out
from hutch.agent.simulated import simulate
from hutch.agent.watch import Watch
from hutch.domain.accelerators import OpenedDevice, Process, Revoked, Verb
from hutch.errors import ConfigurationError

PROCESS = Process(7, "python3 train.py", "hutch-1", "ai", 0)
WAIT = 20.0


class Hub:
    """A server of the test's own: it notes who comes and what they say, and answers as told."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.refuse: int | None = None
        self.now: Callable[[], float] = time.time
        self.server: Server | None = None
        self.port = 0

    async def open(self) -> None:
        self.server = await serve(
            self._talk, "127.0.0.1", self.port, process_request=self._let_in, close_timeout=1
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()

    def _let_in(self, socket: ServerConnection, request: Request) -> Response | None:
        self.tokens.append(request.headers.get("Authorization"))
        return None if self.refuse is None else socket.respond(self.refuse, "no")

    async def _talk(self, socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            hello = json.loads(await socket.recv())
            await self.heard.put(hello)
            await say(socket, {"type": "welcome", "node": "node1", "now": self.now()})
            await self.connections.put(socket)
            async for text in socket:
                await self.heard.put(json.loads(text))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of a kind."""
        async with asyncio.timeout(WAIT):
            while True:
                message = await self.heard.get()
                if message["type"] == kind:
                    return message

    async def accept(self) -> ServerConnection:
        """The next connection that has said hello."""
        async with asyncio.timeout(WAIT):
            return await self.connections.get()


async def say(socket: ServerConnection, message: dict[str, Any]) -> None:
    await socket.send(json.dumps(message))


def order(number: int = 1, *, until: float | None = None, verb: str = "ask") -> dict[str, Any]:
    return {
        "type": "do", "id": f"order{number}", "verb": verb, "container": "hutch-1",
        "devices": [{"major": 1, "minor": 3, "path": "/dev/hutch-gpu0"}],
        "until": time.time() + 30 if until is None else until,
    }  # fmt: skip


class Work:
    """What the agent was asked to do; it may be slow."""

    def __init__(self) -> None:
        self.done: list[tuple[Verb, str, tuple[OpenedDevice, ...]]] = []
        self.fails = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, verb: Verb, container: str, devices: Sequence[OpenedDevice]) -> Revoked:
        self.may_go_on.wait(WAIT)
        self.done.append((verb, container, tuple(devices)))
        if self.fails:
            self.fails -= 1
            raise OSError("it failed")
        return Revoked((PROCESS,), is_shut=True)


class Running:
    """An agent with two simulated accelerators."""

    def __init__(self, hub: Hub, folder: Path, work: Work) -> None:
        self.steering = folder / "steering.json"
        self.token_file = folder / "agent.token"
        self.token_file.write_text("hutch_node_secret\n")
        self.token_file.chmod(0o600)
        simulated = simulate(
            2, model="Simulated GPU", memory="1GiB", steering=self.steering, folder=folder / "gpus"
        )
        self.watch = Watch(simulated, root=folder)
        self.agent = Agent(
            f"http://127.0.0.1:{hub.port}", self.token_file, self.watch, work, interval=0.1
        )
        self.task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest_asyncio.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "REFUSED_PAUSE"):
        monkeypatch.setattr(connections, name, 0.05)
    made = Hub()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest_asyncio.fixture
async def running(hub: Hub, tmp_path: Path, work: Work) -> AsyncIterator[Running]:
    made = Running(hub, tmp_path, work)
    yield made
    await made.stop()


async def test_it_says_who_it_is_and_what_there_is_and_then_what_it_reads(
    hub: Hub, running: Running
):
    hello = await hub.hear("hello")
    assert [each["address"] for each in hello["accelerators"]] == ["simulated:0", "simulated:1"]
    assert hello["boot_id"]
    assert hello["nvidia_container"] is False
    assert hub.tokens == ["Bearer hutch_node_secret"]
    await hub.hear("readings")
    told = await hub.hear("readings")
    assert 0 < told["seconds"] <= 0.2
    assert [each["utilisation"] for each in told["readings"]] == [0.0, 0.0]


async def test_what_changes_is_told_once_before_the_readings(hub: Hub, running: Running):
    await hub.hear("readings")
    running.steering.write_text(json.dumps({"1": {"health": "missing"}}))
    told = await hub.hear("accelerators")
    assert [each["address"] for each in told["accelerators"]] == ["simulated:0"]
    after = await hub.hear("readings")
    assert len(after["readings"]) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await hub.hear("accelerators")


async def test_it_comes_again_when_the_server_was_away_and_says_everything_again(
    hub: Hub, running: Running
):
    await hub.hear("hello")
    await hub.close()
    await hub.open()
    await hub.hear("hello")
    await hub.hear("readings")


@pytest.mark.parametrize("moments", range(12))
async def test_it_ends_when_it_is_told_to_while_the_connection_breaks(
    hub: Hub, running: Running, moments: int
):
    socket = await hub.accept()
    await hub.hear("readings")
    socket.transport.abort()
    for _ in range(moments):
        await asyncio.sleep(0)
    running.task.cancel()
    done, _ = await asyncio.wait({running.task}, timeout=WAIT)
    assert done, "it goes on"


async def test_it_waits_for_a_server_that_is_not_there_yet(hub: Hub, tmp_path: Path, work: Work):
    await hub.close()
    made = Running(hub, tmp_path, work)
    await asyncio.sleep(0.2)
    await hub.open()
    await hub.hear("hello")
    await made.stop()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 4409])
async def test_it_comes_again_whatever_the_server_ended_it_with(
    hub: Hub, running: Running, code: int
):
    await (await hub.accept()).close(code)
    await hub.accept()


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_it_comes_again_when_it_was_refused_with_the_token_that_the_file_has_by_then(
    hub: Hub, tmp_path: Path, work: Work, status: int
):
    hub.refuse = status
    made = Running(hub, tmp_path, work)
    while len(hub.tokens) < 2:
        await asyncio.sleep(0.02)
    made.token_file.write_text("hutch_node_new")
    hub.refuse = None
    await hub.accept()
    assert hub.tokens[-1] == "Bearer hutch_node_new"
    await made.stop()


async def test_it_is_not_sent_on_to_another_server(hub: Hub, tmp_path: Path, work: Work):
    other = Hub()
    await other.open()

    def send_on(socket: ServerConnection, request: Request) -> Response:
        hub.tokens.append("asked")
        answer = socket.respond(302, "there")
        answer.headers["Location"] = f"ws://127.0.0.1:{other.port}/"
        return answer

    hub._let_in = send_on  # type: ignore[method-assign]
    await hub.close()
    await hub.open()
    made = Running(hub, tmp_path, work)
    while len(hub.tokens) < 3:
        await asyncio.sleep(0.02)
    assert other.tokens == []
    await made.stop()
    await other.close()


# -- orders ------------------------------------------------------------------------------------


async def test_it_does_what_it_is_asked_and_answers(hub: Hub, running: Running, work: Work):
    socket = await hub.accept()
    await say(socket, order())
    assert await hub.hear("done") == {
        "type": "done", "id": "order1",
        "processes": [{"pid": 7, "command": "python3 train.py", "container": "hutch-1",
                       "user": "ai", "memory": 0}],
        "is_shut": True,
    }  # fmt: skip
    assert work.done == [(Verb.ASK, "hutch-1", (OpenedDevice(1, 3, "/dev/hutch-gpu0"),))]


async def test_asked_again_it_answers_again_and_does_nothing(
    hub: Hub, running: Running, work: Work
):
    await say(await hub.accept(), order())
    first = await hub.hear("done")
    await hub.close()
    await hub.open()
    await say(await hub.accept(), order())
    assert await hub.hear("done") == first
    assert len(work.done) == 1


async def test_asked_twice_while_it_is_at_it_it_does_it_once(
    hub: Hub, running: Running, work: Work
):
    socket = await hub.accept()
    work.may_go_on.clear()
    await say(socket, order())
    await say(socket, order())
    await hub.hear("readings")
    work.may_go_on.set()
    assert await hub.hear("done") == await hub.hear("done")
    assert len(work.done) == 1


async def test_while_it_is_at_it_it_goes_on_telling_what_it_reads(
    hub: Hub, running: Running, work: Work
):
    socket = await hub.accept()
    work.may_go_on.clear()
    await say(socket, order())
    for _ in range(5):
        await hub.hear("readings")
    work.may_go_on.set()
    await hub.hear("done")


async def test_what_could_not_be_done_is_not_answered_and_may_be_asked_again(
    hub: Hub, running: Running, work: Work
):
    socket = await hub.accept()
    work.fails = 1
    await say(socket, order(1))
    await say(socket, order(2))
    assert (await hub.hear("done"))["id"] == "order2"
    await say(socket, order(1))
    assert (await hub.hear("done"))["id"] == "order1"


async def test_an_order_that_comes_too_late_is_not_carried_out(
    hub: Hub, running: Running, work: Work
):
    socket = await hub.accept()
    await say(socket, order(1, until=time.time() - 1, verb="end"))
    # It begins anew, so that it knows the server's clock again.
    again = await hub.accept()
    await say(again, order(2))
    assert (await hub.hear("done"))["id"] == "order2"
    assert [verb for verb, _, _ in work.done] == [Verb.ASK]


async def test_it_is_the_servers_clock_that_counts(hub: Hub, tmp_path: Path, work: Work):
    year = 365 * 86400.0
    hub.now = lambda: time.time() + year
    made = Running(hub, tmp_path, work)
    socket = await hub.accept()
    await say(socket, order(1, until=time.time() + year + 30))
    assert (await hub.hear("done"))["id"] == "order1"
    await made.stop()


@pytest.mark.parametrize(
    "message",
    [{"type": "do"}, {"type": "do", "id": "x", "until": "soon"}, {"type": "welcome"}, [], "text"],
    ids=str,
)
async def test_a_server_that_says_nonsense_is_left_and_tried_again(
    hub: Hub, running: Running, message: Any
):
    await say(await hub.accept(), message)
    await say(await hub.accept(), order())
    assert (await hub.hear("done"))["id"] == "order1"


@pytest.mark.parametrize(
    "message",
    [{"kind": "?"}, {"type": "error", "code": "x", "message": "no"}, {"type": "something newer"}],
    ids=str,
)
async def test_what_a_newer_server_says_besides_does_no_harm(
    hub: Hub, running: Running, message: Any
):
    socket = await hub.accept()
    await say(socket, message)
    await say(socket, order())
    assert (await hub.hear("done"))["id"] == "order1"


# -- a device that hangs -----------------------------------------------------------------------


async def test_a_driver_that_hangs_does_not_silence_it(
    hub: Hub, running: Running, monkeypatch: pytest.MonkeyPatch
):
    await hub.hear("readings")
    monkeypatch.setattr(connections, "HANG_SECONDS", 0.2)
    hangs = threading.Event()
    look = running.watch.look
    monkeypatch.setattr(running.watch, "look", lambda: (hangs.wait(WAIT), look())[1])
    for _ in range(10):
        await hub.hear("readings")
    hangs.set()
    await hub.hear("readings")


async def test_a_look_that_fails_is_followed_by_the_next(
    hub: Hub, running: Running, monkeypatch: pytest.MonkeyPatch
):
    await hub.hear("readings")
    look = running.watch.look
    failures = [1, 2, 3]

    def failing() -> Any:
        if failures:
            raise OSError(failures.pop())
        return look()

    monkeypatch.setattr(running.watch, "look", failing)
    while failures:
        await hub.hear("readings")
    running.steering.write_text(json.dumps({"0": {"health": "missing"}}))
    await hub.hear("accelerators")


# -- before it begins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("http://127.0.0.1:7480", "ws://127.0.0.1:7480/api/v1/agent"),
        ("https://hutch.example.org", "wss://hutch.example.org/api/v1/agent"),
        ("https://example.org/hutch/", "wss://example.org/hutch/api/v1/agent"),
    ],
)
def test_the_address_of_the_server_is_where_its_api_is(server: str, url: str):
    assert socket_url(server) == url


@pytest.mark.parametrize("server", ["", "127.0.0.1", "ftp://x", "http://", "ws://x", "http:/x"])
def test_what_is_no_address_is_refused(server: str):
    with pytest.raises(ConfigurationError):
        socket_url(server)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    file = tmp_path / "agent.token"
    file.write_text("hutch_node_x")
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="read by others"):
        read_token(file)


@pytest.mark.parametrize("content", ["", " \n", "two words", "é"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str):
    file = tmp_path / "agent.token"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError):
        read_token(file)


def test_a_token_file_that_is_not_there_is_told_with_how_to_make_it(tmp_path: Path):
    with pytest.raises(ConfigurationError) as told:
        read_token(tmp_path / "agent.token")
    assert "hutch node token" in told.value.hint


def test_without_root_it_says_of_no_real_device_that_nobody_has_it_open(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert carry_out(Verb.SHUT, "hutch-1", [OpenedDevice(1, 3, "/dev/hutch-gpu0")]) == Revoked()
    with pytest.raises(ConfigurationError):
        carry_out(Verb.SHUT, "hutch-1", [OpenedDevice(195, 0, "/dev/nvidia0")])
