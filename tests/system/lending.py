"""Accelerators at a real site, seen from all sides: the API, the machines, Incus and the node.

`Lending` is a site with an agent, four simulated accelerators, and people who have machines.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hutch.client import load_login
from hutch.store.db import Database
from tests.system.site import Person, Ran, Site

GPUS = 4
PATIENCE = 90.0
NO_CONNECTION = 255
"""How ssh ends that did not get in."""
HOLD = """
import os, signal, sys, time
def leave(*_):
    open("/tmp/asked-" + sys.argv[2], "w").close()
    if sys.argv[3] == "polite": os._exit(0)
signal.signal(signal.SIGTERM, leave)
opened = open(sys.argv[1])
open("/tmp/ready-" + sys.argv[2], "w").write(str(os.getpid()))
while True: time.sleep(1)
"""
"""A program that has a file open until it is asked to end, or ended: path, name, manner."""


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return as soon as it is so; AssertionError when it never is."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await is_so():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None


class Api:
    """One person at the API."""

    def __init__(self, site: Site, person: Person) -> None:
        login = load_login(person.home / ".config" / "hutch" / "config.json", environment={})
        self._http = httpx.AsyncClient(
            base_url=f"{site.url}/api/v1/",
            headers={"Authorization": f"Bearer {login.token}"},
            timeout=40,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        """Ask for something that must be granted; the answer."""
        answer = await self._http.request(method, path, json=body or None)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    async def may_ask(self, method: str, path: str, **body: Any) -> httpx.Response | None:
        """Ask for something of a server that may be dying: None when it gave no answer."""
        try:
            return await self._http.request(method, path, json=body or None)
        except httpx.TransportError:
            return None

    async def take(self, count: int, instance: str, minutes: int = 60) -> dict[str, Any]:
        return await self.ask("POST", "leases", count=count, instance=instance, minutes=minutes)

    async def release(self, lease: dict[str, Any]) -> None:
        await self.ask("DELETE", f"leases?lease={lease['id']}")

    async def lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        return await self.ask("GET", f"leases/{lease['id']}")

    async def until_state(self, lease: dict[str, Any], *states: str) -> dict[str, Any]:
        """The lease once it is in one of these states, as who waits for it sees it."""
        async with asyncio.timeout(PATIENCE):
            seen = await self.lease(lease)
            while seen["state"] not in states:
                assert seen["state"] != "ended", seen
                version = httpx.QueryParams({"wait": 10, "seen": seen["version"]})
                seen = await self.ask("GET", f"leases/{lease['id']}?{version}")
        return seen

    async def taken(self, count: int, instance: str) -> dict[str, Any]:
        """A lease that is active."""
        return await self.until_state(await self.take(count, instance), "active")

    async def done(self, method: str, path: str, **body: Any) -> None:
        """Ask for an operation, and wait until it is done."""
        answer = await self.ask(method, path, **body)
        operation = answer.get("operation", answer)
        async with asyncio.timeout(PATIENCE * 2):
            while operation["state"] in {"pending", "running"}:
                operation = await self.ask("GET", f"operations/{operation['id']}?wait=10")
        assert operation["state"] == "done", operation


@dataclass
class Program:
    """A program that a test left running inside a machine."""

    box: "Box"
    name: str
    pid: int
    """Inside."""

    async def is_alive(self) -> bool:
        return (await self.box.sh(f"kill -0 {self.pid}")).code == 0

    async def was_asked(self) -> bool:
        return (await self.box.sh(f"test -e /tmp/asked-{self.name}")).code == 0


class Box:
    """A machine of somebody's, entered by ssh."""

    def __init__(self, person: Person, api: Api, name: str) -> None:
        self.person, self.api, self.name = person, api, name
        self._programs = 0
        self._where: dict[str, Any] | None = None

    @property
    def where(self) -> dict[str, Any]:
        """Where it is reached, once somebody has been there."""
        assert self._where is not None
        return self._where

    async def sh(self, command: str) -> Ran:
        """Run a command by ssh, whether the server runs or not; one that boots is waited for."""
        if self._where is None:
            self._where = await self.person.show(self.name)
        async with asyncio.timeout(PATIENCE):
            while (ran := await self.person.ssh(self._where, command)).code == NO_CONNECTION:
                await asyncio.sleep(0.1)
        return ran

    async def devices(self) -> set[str]:
        """The accelerators that are there inside."""
        ran = await self.sh("ls /dev")
        assert ran.code == 0, ran
        return {f"/dev/{name}" for name in ran.out.split() if name.startswith("hutch-gpu")}

    async def runs(self, path: str, manner: str = "polite") -> Program:
        """A program that has a file open, once it has."""
        self._programs += 1
        name = f"{self.name}{self._programs}"
        begun = await self.sh(
            f"setsid python3 -c '{HOLD}' {path} {name} {manner} > /dev/null 2>&1 < /dev/null &"
        )
        assert begun.code == 0, begun
        ready = f"until test -s /tmp/ready-{name}; do sleep 0.05; done; cat /tmp/ready-{name}"
        return Program(self, name, int((await self.sh(f"timeout 20 sh -c '{ready}'")).out))


class Lending:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.db = Database(site.database_url)
        self.apis: dict[str, Api] = {}

    async def person(self, name: str) -> tuple[Person, Api]:
        person = await self.site.person(name)
        self.apis.setdefault(name, Api(self.site, person))
        return person, self.apis[name]

    async def box(self, owner: str, name: str) -> Box:
        """A new machine of somebody's."""
        person, api = await self.person(owner)
        await api.done("POST", "instances", name=name, memory="512MiB", disk="3GiB", cpus=1)
        return Box(person, api, name)

    async def admin(self) -> Api:
        return (await self.person("ada"))[1]

    async def close(self) -> None:
        for api in self.apis.values():
            await api.close()
        await self.db.close()

    # -- what is so, seen past hutch ----------------------------------------------------------

    async def lent(self) -> dict[str, set[str]]:
        """The accelerators' ids that Incus has in each container, by the instance's id."""
        return {
            each["config"]["user.hutch.instance"]: {
                name.removeprefix("hutch-gpu-").removesuffix("_")
                for name in each["devices"]
                if name.startswith("hutch-gpu-")
            }
            for each in await self.site.incus_list()
            if "user.hutch.instance" in each["config"]
        }

    async def leased(self) -> dict[str, set[str]]:
        """The same, as leases say; every instance is named."""
        admin = await self.admin()
        found: dict[str, set[str]] = {
            each["id"]: set() for each in await admin.ask("GET", "instances?all=true")
        }
        names = {
            (each["owner"], each["name"]): each["id"]
            for each in await admin.ask("GET", "instances?all=true")
        }
        for lease in await admin.ask("GET", "leases?all=true"):
            assert lease["state"] in {"active", "queued"}, lease
            if lease["state"] == "active":
                instance = names[lease["owner"], lease["instance"]]
                found[instance] |= {each["id"] for each in lease["accelerators"]}
        return found

    async def leased_containers(self) -> dict[str, set[str]]:
        """What leases say, by the name of the container."""
        leased = await self.leased()
        return {
            each["name"]: leased[each["config"]["user.hutch.instance"]]
            for each in await self.site.incus_list()
            if "user.hutch.instance" in each["config"]
        }

    def holders(self) -> dict[str, set[str]]:
        """Containers whose processes have a device of this site open, by its number."""
        found: dict[str, set[str]] = {}
        for container, number in self.holding_containers():
            found.setdefault(number, set()).add(container)
        return found

    def holding_containers(self) -> set[tuple[str, str]]:
        """Each container and each device, by its number, that a process of it has open."""
        found: set[tuple[str, str]] = set()
        for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
            for path in _opened(pid):
                number = path.removesuffix(" (deleted)").removeprefix("/dev/hutch-gpu")
                if path.startswith("/dev/hutch-gpu") and number.isdecimal():
                    found |= {(container, number) for container in self._containers_of(pid)}
        return found

    def _containers_of(self, pid: int) -> set[str]:
        """The container of this site's that a process is in."""
        try:
            group = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return set()
        return set(re.findall(rf"lxc\.payload\.{self.site.incus.project}_([a-z0-9-]+)", group))

    async def is_whole(self) -> None:
        """Incus and the database tell the same story."""
        assert await self.lent() == await self.leased()


def _opened(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


@asynccontextmanager
async def lending_at(site: Site) -> AsyncIterator[Lending]:
    """A site with an agent that has signed in."""
    made = Lending(site)
    await site.start_agent(GPUS)
    admin = await made.admin()

    async def is_known() -> bool:
        found = await admin.ask("GET", "accelerators")
        return len(found) == GPUS and {each["health"] for each in found} == {"ok"}

    await until(is_known, "the agent has not signed in")
    yield made
    await made.close()
