"""WebSockets through to an app."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hutch.services import shares
from tests.api.apps_site import AppsSite, Browser, MiB
from tests.api.test_apps import SOON, open_site, until

SOCKET = "/apps/box/9999"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppsSite]:
    with open_site(tmp_path_factory.mktemp("sockets")) as made:
        yield made


@pytest.fixture
def alice(site: AppsSite) -> Browser:
    return site.browser("alice")


def opened(site: AppsSite, who: Browser, path: str = f"{SOCKET}/chat?x=1", **options: Any) -> Any:
    """A WebSocket as a browser's page opens it."""
    headers = {"Cookie": who.cookie, **options.pop("headers", {})}
    return connect(
        f"ws://{site.host}{path}",
        origin=options.pop("origin", f"http://{site.host}"),
        additional_headers=headers,
        max_size=64 * MiB,
        open_timeout=SOON,
        **options,
    )


async def status_of(connecting: Any) -> int:
    with pytest.raises(InvalidStatus) as caught:
        async with connecting:
            pass
    return caught.value.response.status_code


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_messages_pass_both_ways_as_they_are(
    site: AppsSite, alice: Browser, compression: str | None
) -> None:
    async with opened(site, alice, compression=compression) as socket:
        for message in ("hello", "Grüße 😀", b"\0\xff", "", os.urandom(3 * MiB)):
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), SOON)
    seen = site.app.seen[-1]
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert seen["path"] == "/chat?x=1"
    assert "cookie" not in headers
    assert (headers["host"], headers["x-forwarded-user"]) == (site.host, "alice")


async def test_a_subprotocol_and_a_reason_to_close_pass(site: AppsSite, alice: Browser) -> None:
    async with opened(site, alice, subprotocols=["chat"]) as socket:
        assert socket.subprotocol == "chat"
        await socket.send("bye")
        async with asyncio.timeout(SOON):
            await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as you like")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"headers": {"Cookie": ""}}, 401),
        ({"headers": {"Cookie": "hutch_session=hutch_wrong"}}, 401),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": None}, 403),
        ({"path": "/apps/nothing/9999/"}, 404),
        ({"path": "/apps/box/22/"}, 404),
        ({"path": "/apps/"}, 404),
        ({"path": "/login"}, 404),
        ({"path": "/apps/box/8888/echo"}, 200),
    ],
)
async def test_whoever_may_not_is_refused(
    site: AppsSite, alice: Browser, change: dict[str, Any], status: int
) -> None:
    assert await status_of(opened(site, alice, **change)) == status


async def test_a_program_sends_a_token_and_comes_from_no_page(site: AppsSite) -> None:
    headers = {"Authorization": f"Bearer {site.tokens['alice']}"}
    async with connect(f"ws://{site.host}{SOCKET}/", additional_headers=headers) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


async def test_anothers_socket_needs_trust(site: AppsSite) -> None:
    await asyncio.to_thread(
        lambda: site.do(shares.add(site.context, site.lab.actors["alice"], "box", "bob"))
    )
    bob = site.browser("bob")
    assert await status_of(opened(site, bob)) == 403


async def test_it_ends_when_one_may_no_longer(site: AppsSite) -> None:
    browser = await asyncio.to_thread(site.browser, "alice")
    async with opened(site, browser) as socket:
        await socket.send("hello")
        await socket.recv()
        page = (await asyncio.to_thread(browser.get, "/apps/")).body.decode()
        from tests.api.apps_site import hidden

        await asyncio.to_thread(browser.post, "/apps/-/logout", {"form": hidden(page, "form")})
        async with asyncio.timeout(SOON):
            await socket.wait_closed()


async def test_who_does_not_read_is_waited_for(site: AppsSite, alice: Browser) -> None:
    """One end that floods and never reads keeps nothing of others, and ends well."""
    async with opened(site, alice, compression=None) as flooding:
        flood = asyncio.create_task(_flood(flooding))
        async with opened(site, alice) as other:
            for number in range(50):
                await other.send(str(number))
                assert await asyncio.wait_for(other.recv(), SOON) == str(number)
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
        flooding.transport.abort()
    until(lambda: not site.fastapi.state.front._open)


async def _flood(socket: Any) -> None:
    while True:
        await socket.send(b"x" * MiB)


async def test_other_websockets_are_the_servers_own(site: AppsSite, alice: Browser) -> None:
    assert await status_of(opened(site, alice, path="/api/v1/agent")) == 401
