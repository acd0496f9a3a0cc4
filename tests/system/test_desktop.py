"""The desktop of a real instance in a real Chromium, through hutch's sign-in.

The image is built by its recipe, once for a machine: some minutes. `HUTCH_PICTURES` names a folder
for what the browser saw.
"""

import asyncio
import os
import re
import socket
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from hutch.setup import image
from hutch.setup.private import CACHE
from tests.system.site import Person, Ran, Site
from tests.system.webdriver import CONTROL, ENTER, SHIFT, Chromium

pytestmark = [pytest.mark.incus, pytest.mark.timeout(900)]

SOON = 60.0
VNC_AUTH = 2
OF_THE_BASE = {"22", "5355"}
"""SSH, and names in the local network."""
COLOURS = """
const canvas = document.querySelector('#screen canvas');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const found = new Set();
for (let at = 0; at < data.length; at += 4 * 97) found.add(data.slice(at, at + 3).join());
return found.size;
"""


@pytest_asyncio.fixture(scope="module")
async def box(site: Site, alice: Person, ada: Person) -> str:
    tar = await asyncio.to_thread(image.ensure_built, CACHE, lambda _: None, "desktop")
    with site.incus.api() as api:
        await asyncio.to_thread(image.ensure_imported, api, tar, "desktop")
    await ada.ok("image", "add", "desktop")
    await alice.ok("create", "box", "--image", "desktop", "--memory", "2GiB", "--disk", "6GiB",
                   "--cpus", "2")  # fmt: skip
    # It is found unused after seconds, as a test cannot wait for hours.
    unit = "/etc/systemd/system/hutch-desktop.service.d"
    await inside(alice, f"mkdir {unit}; printf '[Service]\\nEnvironment=IDLE=4s\\n' >{unit}/a.conf;"
                 " systemctl daemon-reload")  # fmt: skip
    return "box"


async def inside(person: Person, script: str, *, root: bool = True) -> Ran:
    as_root = ["--root"] if root else []
    return await person.hutch("exec", "box", *as_root, "--", "sh", "-c", script)


async def on_desktop(person: Person, script: str) -> str:
    """What a program says that is started on the desktop by its owner."""
    display = "export DISPLAY=:1 XAUTHORITY=/run/hutch-desktop/Xauthority;"
    ran = await inside(person, display + script, root=False)
    assert ran.code == 0, ran
    return ran.out


async def runs(person: Person) -> bool:
    return (await inside(person, "pgrep -x Xtigervnc")).code == 0


async def listening_outside(person: Person) -> set[str]:
    """The TCP ports at which something listens that others than the machine itself could reach."""
    lines = (await inside(person, "ss -Hltn")).out.splitlines()
    places = [line.split()[3] for line in lines]
    return {place.rpartition(":")[2] for place in places if not place.startswith("127.0.0.")}


async def until(person: Person, script: str) -> str:
    """What a script prints inside, once it prints something."""
    async with asyncio.timeout(SOON):
        while not (ran := await inside(person, script)).out.strip():
            await asyncio.sleep(0.2)
    return ran.out.strip()


async def url_of(person: Person) -> str:
    return (await person.ok("desktop", "box", "--json")).json()["url"]


def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("HUTCH_PICTURES", tmp_path))


def is_shown(browser: Chromium) -> bool:
    return browser.run("return !!document.querySelector('#screen canvas')") and (
        browser.run("return document.querySelector('#state').textContent") == ""
    )


async def test_nothing_of_it_runs_or_listens_outside_before_it_is_opened(
    alice: Person, box: str
) -> None:
    assert not await runs(alice)
    assert await listening_outside(alice) <= OF_THE_BASE


async def test_it_is_seen_used_resized_and_copied_from(
    site: Site, alice: Person, box: str, tmp_path: Path
) -> None:
    url = await url_of(alice)
    assert url == f"{site.url}/apps/box/6080/"
    assert await url_of(alice) == url
    with Chromium() as browser:
        await asyncio.to_thread(use, browser, url, site.passwords["alice"])
        await asyncio.to_thread(
            browser.until, lambda: browser.run(COLOURS) > 50, "a desktop is drawn"
        )
        assert await until(alice, "pgrep -u alice -x xfwm4")
        assert await listening_outside(alice) <= OF_THE_BASE
        await asyncio.to_thread(browser.picture, pictures(tmp_path) / "desktop.png")

        # As large as the page, and so again when that changes.
        await asyncio.to_thread(browser.resize, 1000, 700)
        width, height = browser.run(
            "const s = document.querySelector('#screen'); return [s.clientWidth, s.clientHeight]"
        )
        async with asyncio.timeout(SOON):
            while f"current {width} x {height}" not in await on_desktop(alice, "xrandr"):
                await asyncio.sleep(0.2)

        # The keyboard, and the clipboard both ways, in a terminal on the desktop.
        await on_desktop(
            alice, "setsid xfce4-terminal --disable-server >/dev/null 2>&1 </dev/null &"
        )
        shell = await until(alice, "pgrep -u alice -x bash")
        assert shell
        # Ready when it obeys: what is typed before that is lost.
        async with asyncio.timeout(SOON):
            while (await inside(alice, "test -e /home/alice/typed")).code != 0:
                browser.click("#screen canvas")
                browser.press("touch typed" + ENTER)
                await asyncio.sleep(0.5)
        browser.run(
            "const t = document.querySelector('#text'); t.value = 'echo pasted ünd >copied';"
            "t.dispatchEvent(new Event('input'))"
        )
        browser.click("#screen canvas")
        async with asyncio.timeout(SOON):
            while (await inside(alice, "cat /home/alice/copied")).out != "pasted ünd\n":
                browser.press(CONTROL + SHIFT + "v", together=True)
                browser.press(ENTER)
                await asyncio.sleep(0.5)
        browser.press(CONTROL + SHIFT + "a", together=True)
        browser.press(CONTROL + SHIFT + "c", together=True)
        text = "return document.querySelector('#text').value"
        await asyncio.to_thread(
            browser.until, lambda: "touch typed" in browser.run(text), "what was copied comes back"
        )
        await asyncio.to_thread(browser.picture, pictures(tmp_path) / "terminal.png")
        # The second look shows the same desktop.
        await asyncio.to_thread(browser.open, url)
        await asyncio.to_thread(browser.until, lambda: is_shown(browser), "it is shown again")
        assert await until(alice, "pgrep -u alice -x bash") == shell


def use(browser: Chromium, url: str, password: str) -> None:
    browser.open(url)
    browser.sign_in("alice", password)
    browser.until(lambda: is_shown(browser), "the desktop is shown")


async def test_it_ends_when_nobody_looks_and_is_back_for_who_does(
    site: Site, alice: Person, box: str
) -> None:
    async with asyncio.timeout(SOON):
        while await runs(alice):
            await asyncio.sleep(0.2)
    left = await inside(alice, "pgrep -u alice -l xf; ls /run/hutch-desktop; systemctl --failed")
    assert re.search("xfwm4|Xauthority", left.out) is None, left
    with Chromium() as browser:
        await asyncio.to_thread(use, browser, await url_of(alice), site.passwords["alice"])
        assert await runs(alice)


def vnc_result(place: str, password: str) -> int:
    """Log in as a VNC viewer does (RFC 6143 section 7.2.2): 0 when the password is taken."""
    host, _, port = place.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SOON) as connection:
        stream = connection.makefile("rwb")
        assert stream.read(12) == b"RFB 003.008\n"
        stream.write(b"RFB 003.008\n")
        stream.flush()
        (count,) = stream.read(1)
        if not count:
            return -1
        assert VNC_AUTH in stream.read(count)
        stream.write(bytes([VNC_AUTH]))
        stream.flush()
        challenge = stream.read(16)
        # A key's bits are in the other order here than everywhere else.
        key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode().ljust(8, b"\0"))
        cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()
        stream.write(cipher.update(challenge) + cipher.finalize())
        stream.flush()
        result = int.from_bytes(stream.read(4), "big")
        if result == 0:
            stream.write(b"\1")
            stream.flush()
            assert stream.read(24)
        return result


async def test_a_vnc_viewer_gets_in_once_with_its_password(alice: Person, box: str) -> None:
    told = (await alice.ok("desktop", "box", "--vnc", "--json")).json()
    place, password = told["vnc"], told["password"]
    assert re.fullmatch(r"[a-zA-Z2-9]{8}", password)
    assert (told["port"]["reach"], told["port"]["until"] is None) == ("network", False)
    assert await asyncio.to_thread(vnc_result, place, "wrong") != 0
    assert await asyncio.to_thread(vnc_result, place, password) == 0
    async with asyncio.timeout(SOON):
        while (await inside(alice, "test -e /run/hutch-desktop-vnc/password")).code == 0:
            await asyncio.sleep(0.1)
    assert await asyncio.to_thread(vnc_result, place, password) != 0
    again = (await alice.ok("desktop", "box", "--vnc", "--json")).json()
    assert again["vnc"] == place
    assert again["password"] != password
    assert await asyncio.to_thread(vnc_result, place, again["password"]) == 0


async def test_an_instance_without_one_says_so(alice: Person) -> None:
    await alice.ok("create", "plain", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    ran = await alice.hutch("desktop", "plain")
    assert ran.code != 0
    assert "--image desktop" in ran.err
    await alice.ok("delete", "plain", "--yes")
