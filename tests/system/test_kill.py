"""kill -9 of the server at random moments, round after round, against the real Incus.

A person asks for things; the server is killed in the middle of doing them and started again.
Whatever was accepted is done or refused with a reason, exactly once, and in the end the database
and Incus tell the same story: nothing is lost, nothing is doubled, nothing is left behind.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from hutch.client import load_login
from hutch.setup.private import PrivateIncus
from tests.system.site import Person, Site, open_site

pytestmark = pytest.mark.incus

ROUNDS = 12
NAMES = ["a", "b", "c"]
LIVE = {"pending", "running"}


@pytest_asyncio.fixture
async def killed_site(
    incus: PrivateIncus,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("killed")
    url = f"sqlite:///{folder / 'hutch.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    async with open_site(incus, folder, url, operation_lease_seconds="1") as site:
        yield site


class Asker:
    """Somebody who keeps asking for random things, whatever the answers are."""

    def __init__(self, site: Site, person: Person, seed: int) -> None:
        login = load_login(person.home / ".config" / "hutch" / "config.json", environment={})
        self._http = httpx.AsyncClient(
            base_url=f"{site.url}/api/v1/",
            headers={"Authorization": f"Bearer {login.token}"},
            timeout=10,
        )
        self._random = random.Random(seed)
        self.accepted: list[str] = []

    async def ask(self) -> None:
        """One request. A server that dies in the middle of it gives no answer, or half a one."""
        name = self._random.choice(NAMES)
        method, path, body = self._random.choice(
            [
                ("POST", "instances", {"name": name, "memory": "256MiB", "disk": "2GiB"}),
                ("POST", "instances", {"name": name, "memory": "256MiB", "disk": "2GiB"}),
                ("DELETE", f"instances/{name}", None),
                ("POST", f"instances/{name}/stop", None),
                ("POST", f"instances/{name}/start", None),
                ("POST", f"instances/{name}/restart", None),
                ("POST", f"instances/{name}/rebuild", {}),
                ("PATCH", f"instances/{name}", {"memory": "300MiB"}),
                ("POST", f"instances/{name}/snapshots", {"name": "one"}),
                ("POST", f"instances/{name}/snapshots/one/restore", None),
                ("DELETE", f"instances/{name}/snapshots/one", None),
            ]
        )
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError:
            return
        assert answer.status_code < 500, answer.text
        if answer.status_code == 202:
            self.accepted.append(answer.json()["operation"]["id"])

    async def get(self, path: str) -> Any:
        answer = await self._http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def close(self) -> None:
        await self._http.aclose()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("killed_site", ["sqlite", "postgresql"], indirect=True)
async def test_nothing_is_lost_doubled_or_left_behind(killed_site: Site) -> None:
    site = killed_site
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    asker = Asker(site, await site.person("alice"), seed)
    for _ in range(ROUNDS):
        asking = [asyncio.create_task(asker.ask()) for _ in range(4)]
        # The moment is the whole point: anywhere between the request and a step far into it.
        await asyncio.sleep(dice.uniform(0, 1.5))
        await site.kill()
        await asyncio.gather(*asking)
        await site.start()

    async with asyncio.timeout(240):
        while live := [
            each for each in await asker.get("operations?limit=500") if each["state"] in LIVE
        ]:
            await asker.get(f"operations/{live[0]['id']}?wait=10")

    ended = {each["id"]: each for each in await asker.get("operations?limit=500")}
    assert set(asker.accepted) <= set(ended), "an operation that was accepted is gone"
    strange = [each for each in ended.values() if each["state"] == "stuck"]
    assert strange == []
    failed = [each["error"] for each in ended.values() if each["state"] == "failed"]
    print(f"{len(ended)} operations, {len(failed)} failed: {failed}")
    await assert_same_story(site, asker)

    for instance in await asker.get("instances"):
        assert (await asker._http.delete(f"instances/{instance['id']}")).status_code == 202
    async with asyncio.timeout(120):
        while live := [
            each for each in await asker.get("operations?live=true") if each["state"] in LIVE
        ]:
            await asker.get(f"operations/{live[0]['id']}?wait=10")
    assert await asker.get("instances") == []
    assert await site.engine_names() == set()
    await asker.close()


async def assert_same_story(site: Site, asker: Asker) -> None:
    instances = await asker.get("instances")
    real = {each["config"]["user.hutch.container"]: each for each in await site.incus_list()}
    alive = [each for each in instances if each["state"] != "failed"]
    assert len(real) == len(alive), (sorted(real), alive)
    by_port = {
        device["listen"].rpartition(":")[2]: container
        for container in real.values()
        for device in container["devices"].values()
        if device["type"] == "proxy"
    }
    for instance in alive:
        assert instance["state"] in {"running", "stopped"}, instance
        container = by_port.pop(str(instance["ssh"]["port"]))
        assert container["status"].lower() == instance["state"], instance
        assert int(container["config"]["limits.memory"].removesuffix("B")) == instance["memory"]
        kept = await asker.get(f"instances/{instance['id']}/snapshots")
        assert len(kept) == len(container["snapshots"] or []), (kept, container["snapshots"])
        assert {each["state"] for each in kept} <= {"ready"}
    assert by_port == {}
