"""Both contenders on one private Incus: a hutch server with a person in it, and the commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import Block, claimed

from bench import ssh
from bench.byhand import ByHand, Size
from bench.server import HUTCH, Server
from hutch.client.answers import Instance, Operation
from hutch.client.client import Client
from hutch.domain.instances import ContainerRole
from hutch.setup.private import PrivateIncus
from hutch.store import containers
from hutch.store.db import Database

PERSON = "bench"
"""The account in every instance."""
_MUCH = 1000
_LONG_POLL = 30


class Hutch:
    """A person at a hutch server: what they ask, and waiting until it is done."""

    def __init__(
        self, server: Server, administrator: Client, client: Client, key: Path, token: str
    ) -> None:
        self.server = server
        self.token = token
        self.administrator = administrator
        self.client = client
        self.key = key

    def finish(self, operation: Operation) -> None:
        """Wait for an operation's end as the command line does. RuntimeError unless it is done."""
        while operation["state"] in {"pending", "running"}:
            operation = self.client.show_operation(
                operation["id"], wait=_LONG_POLL, seen=operation["version"]
            )
        if operation["state"] != "done":
            raise RuntimeError(f"{operation['kind']} ended {operation['state']}: {operation}")

    def create(self, name: str) -> ssh.Door:
        """Through the API until the operation is done."""
        begun = self.client.create_instance(name)
        self.finish(begun["operation"])
        return door(begun["instance"])

    def create_by_command(self, name: str) -> ssh.Door:
        """Through `hutch create`, the start of that program included."""
        done = subprocess.run(
            [*HUTCH, "create", name, "--json"],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return door(json.loads(done.stdout)["instance"])

    def environment(self) -> dict[str, str]:
        """With which `hutch` is this person's."""
        folder = str(self.server.data / "config")
        return {
            **self.server.environment(),
            "HUTCH_URL": self.server.url,
            "HUTCH_TOKEN": self.token,
            "XDG_CONFIG_HOME": folder,
        }

    def log_in(self, place: ssh.Door) -> None:
        ssh.log_in(place, self.key)

    def delete(self, name: str) -> None:
        self.finish(self.client.delete_instance(name)["operation"])

    def set_pool(self, size: int, *, patience: float = 900.0) -> None:
        """Wait until as many machines are ready in advance."""
        end = time.monotonic() + patience
        while (found := self._in_pool()) != (size, size):
            if time.monotonic() > end:
                raise RuntimeError(f"the pool has {found[0]} of {size} machines ready")
            # Setting it wakes the reconciler, which else would look every half minute only.
            self.administrator.set_pool("base", size)
            time.sleep(1.0)

    def _in_pool(self) -> tuple[int, int]:
        """How many are ready, and how many there are."""

        async def count() -> tuple[int, int]:
            database = Database(f"sqlite:///{self.server.data / 'hutch.db'}")
            try:
                async with database.read() as session:
                    everything = await containers.list_containers(session)
            finally:
                await database.close()
            pool = [each for each in everything if each.role is ContainerRole.POOL]
            return sum(each.ready for each in pool), len(pool)

        return asyncio.run(count())


def door(instance: Instance) -> ssh.Door:
    place = instance["ssh"]
    return ssh.Door(place["host"], place["port"], place["user"], place["host_key"])


@contextmanager
def contest(size: Size) -> Generator[tuple[Hutch, ByHand]]:
    """Both contenders, ready to run; everything is removed at the end."""
    if os.geteuid() != 0 or shutil.which("incus") is None:
        raise RuntimeError("this measures a real Incus: it needs root and the package incus")
    host = node_address()
    incus = PrivateIncus()
    incus.start()
    try:
        with (
            claimed() as ports,
            claimed() as by_hands,
            tempfile.TemporaryDirectory(prefix="hutch-bench-") as folder,
        ):
            home = Path(folder)
            public = ssh.make_key(home / "key")
            by_hand = ByHand(incus, host, size, by_hands.first)
            by_hand.make_image(home, public)
            (home / "data").mkdir()
            server = _server(home / "data", size, ports)
            try:
                yield _person(server, incus, host, home / "key", public), by_hand
            finally:
                server.stop()
    finally:
        incus.remove()


def _server(data: Path, size: Size, ports: Block) -> Server:
    """As hutch comes, but that one person may have more than a small machine has, with host ports
    that nobody else uses."""
    middle = (ports.first + ports.last) // 2
    return Server(
        data,
        eager_pool=True,
        ssh_port_first=ports.first,
        ssh_port_last=middle,
        port_first=middle + 1,
        port_last=ports.last,
        default_cpus=size.cpus,
        default_memory=size.memory,
        default_disk=size.disk,
        quota_instances=_MUCH,
        quota_cpus=_MUCH,
        overcommit_cpus=100,
        overcommit_memory=100,
        overcommit_disk=100,
    )


def _person(server: Server, incus: PrivateIncus, host: str, key: Path, public: str) -> Hutch:
    token = server.make_administrator("ada")
    server.start()
    administrator = Client(server.url, token)
    administrator.add_node(
        "node1",
        engine="incus",
        url=incus.url,
        address=host,
        subnet=str(incus.subnet),
        project=incus.project,
        pool=incus.pool,
        network=incus.network,
    )
    administrator.add_image("base")
    password: Any = administrator.add_user(PERSON)["password"]
    own = Client(server.url).login(PERSON, password)["token"]
    client = Client(server.url, own)
    client.add_key(public)
    return Hutch(server, administrator, client, key, own)


def node_address() -> str:
    """The address of this machine at which its default route leaves, where ports are forwarded."""
    routes = subprocess.run(
        ["ip", "-4", "-j", "route", "get", "198.51.100.1"], capture_output=True, check=True
    )
    return str(json.loads(routes.stdout)[0]["prefsrc"])
