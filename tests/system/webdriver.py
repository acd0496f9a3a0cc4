"""A browser of one's own: Chromium by chromedriver's HTTP, as far as the tests here need it."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.site import free_port

SHIFT, CONTROL, ENTER = "\ue008", "\ue009", "\ue007"


class Chromium:
    """Use it as a context manager. Needs Debian's packages chromium and chromium-driver."""

    def __init__(self, *arguments: str) -> None:
        """`arguments` of Chromium's own, besides those that it needs here."""
        self._arguments = arguments
        self._port = free_port()
        self._session = ""

    def __enter__(self) -> "Chromium":
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}", "--log-level=SEVERE"],
            stdout=subprocess.DEVNULL,
        )
        self.until(lambda: self._ask("GET", "/status")["ready"], "chromedriver is ready")
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=1300,900", *self._arguments]  # fmt: skip
        always = {
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
            "goog:loggingPrefs": {"performance": "ALL"},
        }
        wanted = {"capabilities": {"alwaysMatch": always}}
        self._session = f"/session/{self._ask('POST', '/session', wanted)['sessionId']}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._session:
            self._ask("DELETE", self._session)
        self._driver.terminate()
        self._driver.wait()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": url})

    @property
    def url(self) -> str:
        return self._ask("GET", f"{self._session}/url")

    def run(self, script: str) -> Any:
        """What a script says in the page."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def _element(self, selector: str) -> str:
        found = self._ask(
            "POST", f"{self._session}/element", {"using": "css selector", "value": selector}
        )
        return f"{self._session}/element/{next(iter(found.values()))}"

    def click(self, selector: str) -> None:
        self._ask("POST", f"{self._element(selector)}/click", {})

    def write(self, selector: str, text: str) -> None:
        self._ask("POST", f"{self._element(selector)}/value", {"text": text})

    def press(self, text: str, *, together: bool = False) -> None:
        """Press keys, one after the other or all at once."""
        down = [{"type": "keyDown", "value": key} for key in text]
        up = [{"type": "keyUp", "value": key} for key in text]
        one_by_one = [action for pair in zip(down, up, strict=True) for action in pair]
        keys = {
            "type": "key",
            "id": "keys",
            "actions": [*down, *up[::-1]] if together else one_by_one,
        }
        self._ask("POST", f"{self._session}/actions", {"actions": [keys]})

    def sign_in(self, name: str, password: str) -> None:
        """At hutch's own page, to which one is led."""
        self.until(lambda: self.run("return !!document.querySelector('#password')"), "the sign-in")
        self.write("#name", name)
        self.write("#password", password)
        self.click("button")

    def websockets(self) -> list[str]:
        """Where the pages have opened WebSockets since this was asked last."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "performance"})
        told = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            each["params"]["url"] for each in told if each["method"] == "Network.webSocketCreated"
        ]

    def resize(self, width: int, height: int) -> None:
        self._ask("POST", f"{self._session}/window/rect", {"width": width, "height": height})

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._ask("GET", f"{self._session}/screenshot")))

    def until(self, what: Callable[[], Any], description: str, seconds: float = 90.0) -> Any:
        """The first value that counts as true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if value := what():
                    return value
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        seen = self.run("return document.body.innerText")[:2000] if self._session else ""
        raise TimeoutError(f"not within {seconds:g} s: {description}; the page says {seen!r}")
