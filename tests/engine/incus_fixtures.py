"""Real engines for tests: a private Incus shared by the whole run, and LXD where it is.

incus           the private server itself (`hutch.setup.private.PrivateIncus`): kill, reboot
incus_engine    an `IncusEngine` on it
incus_site      where on it the contract suite may work
"""

import itertools
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from hutch.engine.incus import IncusEngine
from hutch.setup.private import PrivateIncus
from tests.engine import lxd
from tests.engine.contract import Site
from tests.ports import claimed


def node_address() -> str:
    """The address of this machine at which its default route leaves, where ports are forwarded."""
    routes = subprocess.run(
        ["ip", "-4", "-j", "route", "get", "198.51.100.1"], capture_output=True, check=True
    )
    return json.loads(routes.stdout)[0]["prefsrc"]


def needs_incus() -> None:
    if os.geteuid() != 0 or not shutil.which("incus"):
        pytest.skip("a real Incus needs root and the packages which ./test installs")


class RealNodeFiles:
    """Nodes under `/dev`, since engines take none from elsewhere."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hutch-test-", dir="/dev"))
        self._numbers = itertools.count()

    def add(self) -> str:
        path = self._folder / str(next(self._numbers))
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        return str(path)

    def remove(self, path: str) -> None:
        Path(path).unlink()

    def close(self) -> None:
        shutil.rmtree(self._folder)


@pytest.fixture(scope="session")
def node_files() -> Iterator[RealNodeFiles]:
    files = RealNodeFiles()
    yield files
    files.close()


@pytest_asyncio.fixture(scope="session")
async def incus() -> AsyncIterator[PrivateIncus]:
    needs_incus()
    async with PrivateIncus() as private:
        yield private


@pytest_asyncio.fixture(scope="session")
async def incus_engine(incus: PrivateIncus) -> AsyncIterator[IncusEngine]:
    engine = IncusEngine(incus.url, project=incus.project, pool=incus.pool, network=incus.network)
    yield engine
    await engine.close()


async def running_operations(socket: Path, project: str) -> list[str]:
    """The ids of what a server does at the moment, told by itself."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        params = {"project": project, "recursion": 1}
        answer = await client.get("/1.0/operations", params=params)
    return [each["id"] for each in answer.json()["metadata"].get("running", [])]


@pytest.fixture(scope="session")
def incus_site(
    incus: PrivateIncus, incus_engine: IncusEngine, node_files: RealNodeFiles
) -> Iterator[Site]:
    with claimed() as ports:
        subnet = str(incus.subnet)
        operations = partial(running_operations, incus.socket, incus.project)
        yield Site(
            incus_engine, "base", subnet, node_address(), node_files, ports.first, operations
        )


@pytest_asyncio.fixture(scope="session")
async def lxd_site(node_files: RealNodeFiles) -> AsyncIterator[Site]:
    if reason := lxd.missing():
        pytest.skip(reason)
    async with lxd.PrivateLxd() as private:
        names = private.names
        engine = IncusEngine(
            f"unix://{private.socket}",
            project=names.project,
            pool=names.pool,
            network=names.network,
        )
        with claimed() as ports:
            subnet = str(private.subnet)
            operations = partial(running_operations, private.socket, names.project)
            yield Site(
                engine, "base", subnet, node_address(), node_files, ports.first, operations,
                leaves_shells="LXD 5.0 keeps the terminal of a shell that was left while it ran a"
                " program, and so the shell: use Incus, which ends it",
            )  # fmt: skip
        await engine.close()
