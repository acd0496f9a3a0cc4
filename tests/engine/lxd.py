"""A private LXD for tests: its own folder, pool, bridge, project and image. It shares nothing with
an LXD or an Incus of the machine."""

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from ipaddress import IPv4Network
from pathlib import Path

import httpx

from hutch.domain.sizes import GiB
from hutch.setup import image, incusd, prepare
from hutch.setup.incus_api import IncusApi, IncusApiError
from hutch.setup.private import CACHE

_PROGRAM = "/usr/bin/lxd"


def missing() -> str | None:
    """Why there can be no private LXD here."""
    if os.geteuid() != 0:
        return "a private LXD needs root"
    if not os.access(_PROGRAM, os.X_OK):
        return "LXD is not installed: apt-get install --no-install-recommends lxd"
    return None


class PrivateLxd:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hutch-lxd-"))
        self.names = prepare.Names(*[f"hutchl-{secrets.token_hex(2)}"] * 3)
        self.subnet = IPv4Network("0.0.0.0/32")
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "unix.socket"

    async def __aenter__(self) -> "PrivateLxd":
        try:
            await asyncio.to_thread(self._start)
        except BaseException:
            await asyncio.to_thread(self.remove)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.remove)

    def _start(self) -> None:
        tar = image.ensure_built(CACHE, lambda _: None)
        incusd.ensure_lxcfs(CACHE / "lxcfs.log")
        self._daemon = subprocess.Popen(
            [_PROGRAM, "--group", "root", "--logfile", str(self.folder / "lxd.log")],
            env={**os.environ, "LXD_DIR": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 60
        with IncusApi(self.socket) as api:
            while not api.answers():
                if self._daemon.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.folder / "lxd.log").read_text()[-2000:])
                time.sleep(0.1)
            prepare.ensure_pool(api, self.names.pool, "btrfs", 10 * GiB)
            prepare.ensure_network(api, self.names.network, 22)
            self.subnet = prepare.subnet_of(api, self.names.network)
            prepare.ensure_isolation(api, self.names)
            prepare.ensure_project(api, self.names.project)
        with IncusApi(self.socket, self.names.project) as api:
            image.ensure_imported(api, tar, "base")

    def remove(self) -> None:
        if self._daemon and self._daemon.poll() is None:
            self._clear()
            self._daemon.terminate()
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                # A terminal into which more was typed than its program read stays an operation, of
                # Incus too, even without its container: the write to it hangs, and LXD waits.
                self._daemon.kill()
                self._daemon.wait()
        for mount in _mounts(self.folder):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        _forget_empty_tables()

    def _clear(self) -> None:
        """Take away what LXD would leave on the machine: its bridge and its mounted pool."""
        names = self.names
        with IncusApi(self.socket, names.project) as api:
            for name in _names(api, "/instances"):
                _quietly(api, "PUT", f"/instances/{name}/state",
                         {"action": "stop", "force": True, "timeout": 10})  # fmt: skip
                _quietly(api, "DELETE", f"/instances/{name}")
            for name in _names(api, "/images"):
                _quietly(api, "DELETE", f"/images/{name}")
            _quietly(api, "PUT", "/profiles/default", {"config": {}, "devices": {}})
        with IncusApi(self.socket) as api:
            _quietly(api, "DELETE", f"/projects/{names.project}")
            _quietly(api, "DELETE", f"/networks/{names.network}")
            _quietly(api, "DELETE", f"/network-acls/{names.acl}")
            _quietly(api, "DELETE", f"/storage-pools/{names.pool}")


def _names(api: IncusApi, path: str) -> list[str]:
    try:
        return api.names(path)
    except (IncusApiError, httpx.TransportError):
        return []


def _quietly(api: IncusApi, method: str, path: str, body: dict[str, object] | None = None) -> None:
    try:
        api.call(method, path, body)
    except (IncusApiError, httpx.TransportError) as error:
        print(f"LXD: {method} {path}: {error}")


def _forget_empty_tables() -> None:
    """LXD leaves its tables in the firewall; those that hold another LXD's rules stay."""
    for family in ("inet", "bridge"):
        table = ["table", family, "lxd"]
        found = subprocess.run(["nft", "list", *table], capture_output=True, text=True, check=False)
        if found.returncode == 0 and "chain" not in found.stdout:
            subprocess.run(["nft", "delete", *table], check=False)


def _mounts(folder: Path) -> list[str]:
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [row.split()[4] for row in rows]
    return sorted((each for each in points if each.startswith(f"{folder}/")), reverse=True)
