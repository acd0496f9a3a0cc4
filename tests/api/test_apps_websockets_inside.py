"""A WebSocket and a request that the engine carries, from a browser to an app and back."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from hutch.api.proxy import front
from hutch.api.proxy.inside import Inside
from hutch.engine.simulated import SimulatedEngine
from hutch.services.apps import Opening
from hutch.store import containers, nodes
from tests.api.apps_site import AppsSite
from tests.api.test_apps import SOON, open_site
from tests.api.test_apps_websockets import opened


@pytest.fixture
def site(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AppsSite]:
    with open_site(tmp_path_factory.mktemp("inside")) as made:
        place = made.do(lead_inside(made))
        monkeypatch.setattr(front, "_place", place)
        yield made


async def lead_inside(site: AppsSite) -> Callable[[Opening], Inside]:
    """Have every app of the box reached through its engine, as those of another node are."""
    async with site.context.db.read() as session:
        container = await containers.current(session, site.box)
        node = await nodes.get_node(session, site.lab.node.id)
    assert container is not None
    assert node is not None
    engine = site.context.engines.of(node)
    assert isinstance(engine, SimulatedEngine)

    def place(opening: Opening) -> Inside:
        number = opening.host_port

        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", number)
            ways = [
                asyncio.create_task(pump(reader, back)),
                asyncio.create_task(pump(there, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            back.close()

        engine.listen(container.engine_name, opening.port.target_port, lead)
        return Inside(engine, container.engine_name, opening.port.target_port)

    return place


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def test_messages_pass_both_ways_as_they_are(site: AppsSite) -> None:
    alice = await asyncio.to_thread(site.browser, "alice")
    async with opened(site, alice) as socket:
        for message in ("hello", b"\0\1\2", "x" * 3_000_000):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), SOON) == message
        await socket.send("bye")
        await asyncio.wait_for(socket.wait_closed(), SOON)
    assert (socket.close_code, socket.close_reason) == (4001, "as you like")


async def test_a_request_passes(site: AppsSite) -> None:
    alice = await asyncio.to_thread(site.browser, "alice")
    for _ in range(3):
        got = await asyncio.to_thread(alice.get, "/apps/box/8888/echo")
        assert (got.status, got.json()["method"]) == (200, "GET")
    assert site.app.connections == 1
