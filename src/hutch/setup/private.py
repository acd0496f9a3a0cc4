"""An Incus of one's own, for tests and benchmarks: it shares nothing with another on the machine.

    from hutch.setup.private import PrivateIncus

    async with PrivateIncus() as incus:          # some 3 s; the first ever builds the image: 60 s
        incus.socket    # Path, /var/lib/hutch-private/ab12/unix.socket
        incus.project   # "hutch-ab12": has the image `base` and a default profile
        incus.network   # "hutch-ab12", a bridge
        incus.pool      # "hutch-ab12", btrfs
        incus.subnet    # IPv4Network; its first address is the gateway
        await incus.kill()       # kill -9 of the daemon; containers go on running
        await incus.restart()    # and up again, from whatever state
        await incus.reboot()     # every container and the daemon killed, then the daemon started

By hand: `python -m hutch.setup.private` starts one, prints how to reach it with the `incus`
command, and removes it at Ctrl-C; `--remove` clears away what crashed owners left behind.

Root is needed. Everything lies under one folder per daemon, which names its owner process: what a
killed owner left behind is found and cleared away by whoever starts the next one. There is one way
to end, which is also the one after a crash: kill, unmount, remove. lxcfs is the machine's one; it
is started if missing and left running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

from hutch.domain.sizes import GiB
from hutch.setup import image, incusd, kernel, prepare, processes
from hutch.setup.commands import CommandError, run
from hutch.setup.incus_api import IncusApi

ROOT = Path("/var/lib/hutch-private")
CACHE = Path("/var/cache/hutch")
_OWNER = "owner.json"
_NAME = "name"
_DAEMON = "incusd.json"


class PrivateIncus:
    """A private incusd with pool, bridge, project, profile and base image.

    `with_image=False` leaves the image out; `prefix` is the bridge's network size.
    """

    def __init__(self, *, with_image: bool = True, prefix: int = 22, size: int = 20 * GiB) -> None:
        self.id = secrets.token_hex(2)
        self.names = prepare.Names(*[f"hutch-{self.id}"] * 3)
        self.folder = ROOT / self.id
        self.subnet = IPv4Network("0.0.0.0/32")
        self._with_image = with_image
        self._prefix = prefix
        self._size = size

    @property
    def socket(self) -> Path:
        return self.folder / "unix.socket"

    @property
    def project(self) -> str:
        return self.names.project

    @property
    def network(self) -> str:
        return self.names.network

    @property
    def pool(self) -> str:
        return self.names.pool

    @property
    def url(self) -> str:
        """The socket as a node's `url`."""
        return f"unix://{self.socket}"

    def environment(self) -> dict[str, str]:
        """Variables with which the `incus` command talks to this daemon, in its project."""
        return {
            "INCUS_DIR": str(self.folder),
            "INCUS_SOCKET": str(self.socket),
            "INCUS_PROJECT": self.project,
            "INCUS_CONF": str(self.folder / "client"),
        }

    def api(self) -> IncusApi:
        """A blocking client in its project."""
        return IncusApi(self.socket, self.project)

    async def __aenter__(self) -> PrivateIncus:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.remove)

    def start(self) -> None:
        """Starts and prepares the daemon, after clearing away what crashed owners left."""
        if os.geteuid() != 0:
            raise PermissionError("A private Incus needs root")
        remove_abandoned()
        claim(self.folder, self.project)
        try:
            self._prepare()
        except BaseException:
            self.remove()
            raise

    def _prepare(self) -> None:
        tar = image.ensure_built(CACHE, lambda _: None) if self._with_image else None
        # For the whole machine and until the next boot: without it some twenty containers start.
        kernel.raise_limits()
        with _turn():
            incusd.ensure_lxcfs(CACHE / "lxcfs.log")
        self.start_daemon()
        with IncusApi(self.socket) as api:
            prepare.ensure_pool(api, self.pool, "btrfs", self._size)
            # One at a time: two that look for a free network at once may find the same.
            with _turn():
                prepare.ensure_network(api, self.network, self._prefix)
            self.subnet = prepare.subnet_of(api, self.network)
            prepare.ensure_isolation(api, self.names)
            prepare.ensure_project(api, self.project)
            prepare.ensure_profile(api, self.names)
        if tar is not None:
            with self.api() as api:
                image.ensure_imported(api, tar, "base")

    def start_daemon(self) -> None:
        identity = incusd.start_daemon(self.folder, self.folder / "logs" / "incusd.log")
        processes.save_identity(self.folder / _DAEMON, identity)

    async def kill(self) -> None:
        """Kills the daemon with SIGKILL; containers go on running."""
        await asyncio.to_thread(self.stop_daemon)

    def stop_daemon(self) -> None:
        processes.kill(processes.load_identity(self.folder / _DAEMON))

    async def restart(self) -> None:
        """Ends the daemon if it runs and starts it again; containers go on running."""
        await asyncio.to_thread(self._restart)

    def _restart(self) -> None:
        self.stop_daemon()
        self.start_daemon()

    async def reboot(self) -> None:
        """Like a power cut: kills every container, the bridge and the daemon, then starts it."""
        await asyncio.to_thread(self._reboot)

    def _reboot(self) -> None:
        _kill_everything(self.folder)
        _unmount(self.folder)
        forget_network(self.project)
        self.start_daemon()

    def remove(self) -> None:
        """Ends everything and leaves no trace."""
        remove_folder(self.folder, self.project)


def remove_abandoned() -> list[str]:
    """Clears away every private Incus whose owner process is gone; their ids."""
    gone: list[str] = []
    with _turn():
        for folder in ROOT.glob("*/"):
            if _is_abandoned(folder):
                remove_folder(folder, _name(folder))
                gone.append(folder.name)
    return gone


def claim(folder: Path, name: str) -> None:
    """Makes a folder in `ROOT` this process's: when it dies, the next one clears it away. `name`
    is the beginning of what its bridge, project and instances are called."""
    folder.mkdir(parents=True)
    (folder / _NAME).write_text(name)
    owner = processes.identify(os.getpid())
    assert owner is not None  # noqa: S101 (this very process)
    processes.save_identity(folder / _OWNER, owner)


def _name(folder: Path) -> str:
    try:
        return (folder / _NAME).read_text().strip()
    except OSError:
        return f"hutch-{folder.name}"


def _is_abandoned(folder: Path) -> bool:
    if (folder / _OWNER).exists():
        return processes.load_identity(folder / _OWNER) is None
    # Made, but not yet signed: its owner may be doing so right now.
    return time.time() - folder.stat().st_mtime > 10


@contextlib.contextmanager
def _turn() -> Generator[None]:
    """One process of the machine at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "private.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_folder(folder: Path, name: str) -> None:
    """Ends everything of the Incus in `folder` and leaves no trace of it. `name` is its
    project's, and the beginning of its bridge's."""
    _kill_everything(folder)
    _unmount(folder)
    forget_network(name)
    _remove_cgroups(name)
    shutil.rmtree(folder, ignore_errors=True)


def _kill_everything(folder: Path) -> None:
    """The daemon first, so that it starts nothing anew; then the containers by the hand of their
    monitors, who clean up behind them; then whatever else names the folder (dnsmasq, proxies)."""
    processes.kill(processes.load_identity(folder / _DAEMON))
    processes.kill_all(_daemons(folder))
    monitors = [pid for pid, words in processes.processes() if _is_monitor(words, folder)]
    for pid in monitors:
        processes.kill_all(processes.children(pid))
    for pid in monitors:
        identity = processes.identify(pid)
        if identity is not None and not processes.wait_ended(identity, 3):
            processes.kill(identity)
    processes.kill_all(pid for pid, words in processes.processes() if _names(words, folder))


def _daemons(folder: Path) -> list[int]:
    """Every incusd (also a helper of one) that was started for this folder."""
    return [
        pid
        for pid, words in processes.processes()
        if words
        and words[0].endswith("incusd")
        and f"INCUS_DIR={folder}" in processes.environment_of(pid)
    ]


def _is_monitor(words: list[str], folder: Path) -> bool:
    return " ".join(words).startswith(f"[lxc monitor] {folder}/")


def _names(words: list[str], folder: Path) -> bool:
    return bool(words) and "python" not in words[0] and any(f"{folder}/" in word for word in words)


def _unmount(folder: Path) -> None:
    """Unmounts everything below the folder, the deepest first; loop devices go with their mount."""
    for _ in range(3):
        points = _mounts_below(folder)
        if not points:
            return
        for point in points:
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _mounts_below(folder: Path) -> list[str]:
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [row.split()[4] for row in rows]
    return sorted((p for p in points if p.startswith(f"{folder}/")), key=len, reverse=True)


def _ports(bridge: str) -> list[str]:
    """The ends of virtual cables in a bridge. Deleting one deletes the other end with it."""
    try:
        listing = run(["ip", "-j", "link", "show", "master", bridge, "type", "veth"])
    except CommandError:
        return []
    return [str(link["ifname"]) for link in json.loads(listing or "[]")]


def forget_network(name: str) -> None:
    """The bridge with what is plugged into it, and the firewall's chains that name it or an
    instance of the project."""
    for bridge in (name, f"{name}br0"):
        # Killed containers' cables are still plugged in here, and nobody else's are. Without the
        # bridge nothing would tell whose they were.
        for device in (*_ports(bridge), bridge):
            subprocess.run(["ip", "link", "delete", device], capture_output=True, check=False)
    with contextlib.suppress(CommandError):
        listing = cast("dict[str, Any]", json.loads(run(["nft", "-j", "list", "chains"])))
        chains = [row["chain"] for row in listing["nftables"] if "chain" in row]
        incus = [chain for chain in chains if chain["table"] == "incus"]
        mine = [chain for chain in incus if name in chain["name"]]
        # In one piece, emptied first: a chain cannot go while another still leads to it.
        lines = [f"flush chain {_chain(chain)}" for chain in mine]
        lines += [f"delete chain {_chain(chain)}" for chain in mine]
        run(["nft", "-f", "-"], stdin="\n".join(lines))
        _remove_empty_tables(incus, mine)


def _chain(chain: dict[str, Any]) -> str:
    return f"{chain['family']} {chain['table']} {chain['name']}"


def _remove_empty_tables(before: list[dict[str, Any]], removed: list[dict[str, Any]]) -> None:
    """Tables of the firewall of which nothing is left: another Incus makes its own anew."""
    for family in {chain["family"] for chain in removed}:
        if all(chain in removed for chain in before if chain["family"] == family):
            with contextlib.suppress(CommandError):
                run(["nft", "delete", "table", family, "incus"])


def _remove_cgroups(project: str) -> None:
    """Control groups of containers whose monitor could not remove them; the deepest first."""
    for pattern in (f"*/lxc.*.{project}_*", f"lxc.*.{project}_*"):
        for top in Path("/sys/fs/cgroup").glob(pattern):
            for path in sorted(top.rglob("*/"), key=lambda p: len(p.parts), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()


async def _by_hand() -> None:
    print("Starting ...", flush=True)
    async with PrivateIncus() as incus:
        print(f"A private Incus on {incus.subnet}. To use it:")
        for name, value in incus.environment().items():
            print(f"  export {name}={value}")
        print("  incus launch base first\nCtrl-C removes it.", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hutch.setup.private")
    parser.add_argument("--remove", action="store_true", help="clear away what crashes left")
    if parser.parse_args().remove:
        print(f"Removed: {' '.join(remove_abandoned()) or 'nothing'}")
        return
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_by_hand())


if __name__ == "__main__":
    sys.exit(main())
