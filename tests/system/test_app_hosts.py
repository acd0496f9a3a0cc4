"""Apps at hosts of their own, in a real Chromium: the way there, and what keeps them apart."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from hutch.setup.private import PrivateIncus
from tests.system.site import Site, open_site
from tests.system.test_apps import serving
from tests.system.webdriver import Chromium

pytestmark = pytest.mark.incus

# Names that a browser finds here and nobody else does.
DOMAIN = "apps.test"
FETCH = """
const [url, options] = [%s, %s];
return fetch(url, options).then(a => a.type === 'opaque' ? 'unreadable' : a.status, () => 'refused')
"""


@pytest_asyncio.fixture(scope="module")
async def hosts(
    incus: PrivateIncus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Site, str]]:
    """A hutch whose apps have hosts, and its address in a browser."""
    folder = tmp_path_factory.mktemp("hosts")
    async with open_site(
        incus, folder, f"sqlite:///{folder / 'hutch.db'}",
        public_url="http://hutch.test:{port}", apps_domain=DOMAIN,
    ) as site:  # fmt: skip
        alice = await site.person("alice", key=False)
        await serving(alice, "box", "8001 127.0.0.1", "8002 127.0.0.1")
        for each in ("8001", "8002"):
            await alice.ok("port", "add", "box", each, "--web-only")
        told = json.loads((await alice.ok("app", "list", "--json")).out)
        assert {each["url"] for each in told} == {
            f"http://{each}-box.{DOMAIN}:{site.port}/" for each in (8001, 8002)
        }
        yield site, f"http://hutch.test:{site.port}"


def look(site: Site, address: str, picture: Path) -> dict[str, object]:
    port = urlsplit(address).port
    first, second = (f"http://{each}-box.{DOMAIN}:{port}" for each in (8001, 8002))
    found: dict[str, object] = {}
    with Chromium("--host-resolver-rules=MAP *.test 127.0.0.1") as browser:
        body = "return document.body.innerText"
        browser.open(f"{first}/hello?x=1")
        found["asked at"] = browser.until(
            lambda: urlsplit(browser.url).path == "/login" and browser.url, "the sign-in"
        ).startswith(f"{address}/login?")
        browser.sign_in("alice", site.passwords["alice"])
        browser.until(lambda: browser.url == f"{first}/hello?x=1", "back at the app")
        found["first"] = browser.run(body)
        browser.picture(picture)
        # One sign-in is for all of them.
        browser.open(f"{second}/there")
        found["second"] = browser.until(
            lambda: browser.url == f"{second}/there" and browser.run(body), "the other app"
        )
        found["its cookies for scripts"] = browser.run("return document.cookie")

        def fetched(url: str, **options: str) -> object:
            return browser.run(FETCH % (json.dumps(url), json.dumps(options)))

        found["itself"] = fetched(f"{second}/x")
        found["its neighbour"] = fetched(f"{first}/x", credentials="include")
        found["hutch"] = fetched(f"{address}/api/v1/me", credentials="include")
        found["hutch, unread"] = fetched(f"{address}/apps/", credentials="include", mode="no-cors")
        found["a way past"] = fetched(f"{second}/api/v1/me")
    return found


async def test_a_browser_is_led_there_and_keeps_them_apart(
    hosts: tuple[Site, str], tmp_path: Path
) -> None:
    site, address = hosts
    found = await asyncio.to_thread(look, site, address, tmp_path / "host.png")
    assert found == {
        "asked at": True,
        "first": "/hello?x=1 alice",
        "second": "/there alice",
        "its cookies for scripts": "",
        "itself": 200,
        # No page of one reads another, nor hutch's own address.
        "its neighbour": "refused",
        "hutch": "refused",
        "hutch, unread": "unreadable",
        # What is below the host is the app's own: this is no API.
        "a way past": 200,
    }
