"""A real JupyterLab in a real instance, driven in a real Chromium through hutch's sign-in.

What it consists of is fetched from the index that pip uses on this machine, and laid into the
instance, which needs no network for it. `HUTCH_PICTURES` names a folder for what the browser saw.
"""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.system.site import Person, Site
from tests.system.webdriver import ENTER, SHIFT, Chromium

pytestmark = [pytest.mark.incus, pytest.mark.timeout(600)]

CODE = "import getpass, socket; print(getpass.getuser(), 'on', socket.gethostname(), 6 * 7)"
PRINTED = "alice on box 42"
_UNIT = """[Service]
User=alice
WorkingDirectory=/home/alice
Environment=PYTHONPATH=/opt/site JUPYTERLAB_DIR=/opt/site/share/jupyter/lab
Environment=JUPYTER_PATH=/opt/site/share/jupyter JUPYTER_CONFIG_PATH=/opt/site/etc/jupyter
ExecStart=/usr/bin/python3 -m jupyterlab --no-browser --ip=127.0.0.1 --port=8888 \
--ServerApp.base_url=/apps/box/8888/ --IdentityProvider.token=
"""


def fetch_lab(folder: Path, python: str) -> bytes:
    """JupyterLab for the Python inside, unpacked, as a tar file."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile",
         "--only-binary", ":all:",
         "--python-version", python, "--implementation", "cp", "--target", str(folder / "site"),
         "jupyterlab==4.6.6", "ipykernel==7.4.0"],
        check=True,
    )  # fmt: skip
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder / "site", "site")
    return archive.getvalue()


async def start_lab(site: Site, person: Person, folder: Path) -> None:
    await person.ok("create", "box", "--memory", "2GiB", "--disk", "4GiB", "--cpus", "2")
    (name,) = await site.engine_names()

    async def inside(*argv: str, stdin: bytes = b"") -> str:
        # By Incus's own command: the API passes a megabyte on, and no more.
        ran = await site.incus_command("exec", name, "--", *argv, stdin=stdin)
        assert ran.code == 0, ran
        return ran.out

    python = await inside("python3", "-c", "import platform; print(platform.python_version())")
    packed = await asyncio.to_thread(fetch_lab, folder, python.strip())
    await inside("tar", "-C", "/opt", "-xf", "-", stdin=packed)
    await inside("sh", "-c", "cat >/etc/systemd/system/lab.service", stdin=_UNIT.encode())
    await inside("systemctl", "start", "lab.service")
    await person.ok("port", "add", "box", "8888", "--web-only", "--keep-path", "--name", "jupyter")


def run_a_cell(url: str, password: str, picture: Path) -> tuple[str, list[str]]:
    """Sign in and run one cell as a person does: what it printed, and the page's WebSockets."""
    with Chromium() as browser:
        browser.open(f"{url}/apps/box/8888/lab")
        browser.sign_in("alice", password)

        def is_there() -> bool:
            if "does not answer" in browser.run("return document.body.innerText"):
                browser.open(f"{url}/apps/box/8888/lab")
            return browser.run("return !!document.querySelector('.jp-LauncherCard')")

        browser.until(is_there, "JupyterLab shows its launcher")
        browser.run("document.querySelector('.jp-LauncherCard').click()")
        cell = ".jp-Notebook .jp-Cell .cm-content"
        browser.until(lambda: browser.run(f"return !!document.querySelector('{cell}')"), "a cell")
        idle = "return /Idle/.test(document.querySelector('#jp-main-statusbar').textContent)"
        browser.until(lambda: browser.run(idle), "the kernel is there")
        browser.click(cell)
        browser.press(CODE)
        browser.press(SHIFT + ENTER, together=True)
        output = "const e = document.querySelector('.jp-OutputArea-output');"
        printed = browser.until(
            lambda: browser.run(f"{output} return e && e.textContent.trim()"), "the cell printed"
        )
        browser.picture(picture)
        return printed, browser.websockets()


async def test_a_cell_runs_in_a_real_jupyterlab(site: Site, alice: Person, tmp_path: Path) -> None:
    await start_lab(site, alice, tmp_path)
    pictures = Path(os.environ.get("HUTCH_PICTURES", tmp_path))
    printed, sockets = await asyncio.to_thread(
        run_a_cell, site.url, site.passwords["alice"], pictures / "jupyterlab.png"
    )
    assert printed == PRINTED
    base = site.url.replace("http://", "ws://")
    assert any(each.startswith(f"{base}/apps/box/8888/api/kernels/") for each in sockets)
