"""A terminal in a page of a real Chromium, by the example of the reference, in a real instance.

The page is at hutch's own address, as it is behind a proxy: a small one of the test's own, which
hands out the page, leads everything else on, and cuts WebSockets when it is told to.
`HUTCH_PICTURES` names a folder for what the browser saw.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.system.site import Person, Site
from tests.system.webdriver import Chromium

pytestmark = pytest.mark.incus

REFERENCE = Path(__file__).parents[2] / "docs/reference/terminal.md"
PAGE = """<!doctype html><meta charset="utf-8"><title>Terminal</title><pre id="screen"></pre>
<script>
%(example)s
const screen = document.querySelector("#screen"), sockets = [], Real = WebSocket;
WebSocket = class extends Real { constructor(url) { super(url); sockets.push(this); } };
// No terminal here: what commands one is left out.
const plain = new RegExp(["\\x1b\\\\[[0-9;?>]*[ -/]*[@-~]", "\\x1b\\\\][^\\x07]*\\x07",
                          "\\x1b[()][A-Z0-9]", "\\x1b[=>]", "\\r", "\\x0f"].join("|"), "g");
const print = (text) => {
  screen.append(text.replace(plain, "").replace(/\\n{2,}/g, "\\n"));
  scrollTo(0, screen.scrollHeight);
};
connect(%(token)s, "box", print).catch(({ message }) => print(`refused: ${message}`));
</script>"""


class Proxy:
    """Stands between a browser and hutch."""

    def __init__(self, site: Site, page: str) -> None:
        self._site, self._page = site, page.encode()
        self._server: asyncio.Server | None = None
        self._websockets: list[asyncio.StreamWriter] = []
        self.tickets: list[str] = []

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        for each in self._websockets:
            each.transport.abort()
        self._websockets.clear()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        pages = {b"/page": self._page, b"/empty": b"<!doctype html><title>Empty</title>"}
        page = pages.get(head.split(b" ")[1])
        if page is not None:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)
            )
            writer.close()
            return
        there, onward = await asyncio.open_connection("127.0.0.1", self._site.port)
        onward.write(head)
        if b"upgrade: websocket" in head.lower():
            self._websockets.append(writer)
            self.tickets += re.findall(r"ticket=([^& ]+)", head.decode())
        await asyncio.gather(_pass(reader, onward), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest_asyncio.fixture(scope="module")
async def token(alice: Person) -> str:
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    return (await alice.ok("token", "create", "t", "--json")).json()["token"]


@pytest_asyncio.fixture
async def proxy(site: Site, token: str) -> AsyncIterator[Proxy]:
    (example,) = re.findall(r"```js\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    page = PAGE % {"example": example, "token": json.dumps(token)}
    async with Proxy(site, page) as opened:
        yield opened


class Seen:
    """A page with a terminal."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser

    def screen(self) -> str:
        return self.browser.run("return document.querySelector('#screen').textContent")

    def until(self, pattern: str) -> re.Match[str]:
        return self.browser.until(
            lambda: re.search(pattern, self.screen()), f"the page shows {pattern}", 60
        )

    def type(self, text: str) -> None:
        self.browser.run(f"terminal.type({json.dumps(text)})")


def use(proxy: Proxy, cut: object, picture: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    with Chromium() as browser:
        seen = Seen(browser)
        browser.open(f"http://127.0.0.1:{proxy.port}/page")
        browser.until(lambda: browser.run("return terminal.session"), "the terminal is open")
        seen.until(r"\$ ")
        seen.type("echo grüße-你好 | tr -d -; kept=$((40 + 2))x\r")
        found["echoed"] = bool(seen.until("grüße你好"))
        browser.run("terminal.resize(111, 37)")
        # tmux keeps one line for itself.
        seen.type("sleep 1; echo size:$(stty size)\r")
        found["size"] = seen.until(r"size:(\d+ \d+)")[1]
        session = browser.run("return terminal.session")
        assert callable(cut)
        cut()
        browser.until(
            lambda: browser.run("return sockets.length > 1 && sockets.at(-1).readyState === 1"),
            "the connection is back",
        )
        found["lost as"] = browser.run(
            "return new Promise(r => sockets[0].readyState === 3 ? r('closed') : r('open'))"
        )
        seen.type("echo still:$kept\r")
        found["kept"] = bool(seen.until("still:42x"))
        found["same"] = browser.run("return terminal.session") == session
        browser.picture(picture)
    return found


async def test_a_page_has_a_terminal_and_comes_back_to_it(
    site: Site, proxy: Proxy, alice: Person, ada: Person, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    picture = Path(os.environ.get("HUTCH_PICTURES", tmp_path)) / "terminal.png"
    found = await asyncio.to_thread(
        use, proxy, lambda: loop.call_soon_threadsafe(proxy.cut), picture
    )
    assert found == {
        "echoed": True, "size": "36 111", "lost as": "closed", "kept": True, "same": True
    }  # fmt: skip
    # Each connection had a ticket of its own, which its event names; none is in the log.
    assert len(proxy.tickets) == len(set(proxy.tickets)) == 2
    events = json.loads((await ada.ok("events", "--action", "terminal.open", "--json")).out)
    assert [(each["by"], each["detail"]["again"]) for each in events] == [
        ("alice", True), ("alice", False),
    ]  # fmt: skip
    assert len({each["detail"]["ticket"] for each in events}) == 2
    logged = (site.folder / "server.log").read_text()
    assert "terminal/ticket" in logged
    assert not [each for each in proxy.tickets if each in logged]


STRANGER = """
const [url] = [%s];
return new Promise(answer => {
  const socket = new WebSocket(url);
  socket.onopen = () => answer('open');
  socket.onclose = ({ code }) => answer(code);
})
"""
WITHOUT_TOKEN = """
return fetch('/api/v1/instances/box/terminal/ticket', { method: 'POST', credentials: 'include' })
  .then(async answer => [answer.status, (await answer.json()).error.code])
"""
FROM_AFAR = """
const [url, token] = [%s, %s];
return fetch(url, { method: 'POST', headers: { Authorization: `Bearer ${token}` } })
  .then(answer => answer.status, () => 'refused')
"""


async def test_other_pages_get_no_ticket_and_open_nothing_with_one(
    site: Site, proxy: Proxy, alice: Person, token: str
) -> None:
    listing = "python3 -m http.server 8000 --directory /usr/share/doc"
    await alice.ok("exec", "box", "--root", "--", "systemd-run", "--unit=page", *listing.split())
    await alice.ok("port", "add", "box", "8000")
    own = f"http://127.0.0.1:{proxy.port}"
    asked = f"{own}/api/v1/instances/box/terminal"
    headers = {"Authorization": f"Bearer {token}"}
    ticket = httpx.post(f"{site.url}/api/v1/instances/box/terminal/ticket", headers=headers)
    url = f"{asked.replace('http', 'ws')}?ticket={ticket.json()['ticket']}"

    def look() -> dict[str, object]:
        found: dict[str, object] = {}
        with Chromium() as browser:
            # Another site, as the browser sees it.
            browser.open(f"http://localhost:{proxy.port}/empty")
            found["with another's ticket"] = browser.run(STRANGER % json.dumps(url))
            found["from afar"] = browser.run(
                FROM_AFAR % (json.dumps(f"{asked}/ticket"), json.dumps(token))
            )
            # The page of an app, where somebody is signed in.
            browser.open(f"{own}/apps/box/8000/")
            browser.sign_in("alice", site.passwords["alice"])
            browser.until(lambda: "Directory listing" in browser.run(
                "return document.body.innerText"), "the app's page")  # fmt: skip
            found["an app's page"] = browser.run(WITHOUT_TOKEN)
        return found

    found = await asyncio.to_thread(look)
    assert found == {
        "with another's ticket": 1006,
        "from afar": "refused",
        "an app's page": [401, "not_authenticated"],
    }
