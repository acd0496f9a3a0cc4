"""kill -9 of the server and of the node's agent at random moments, while accelerators come and go.

People take and give back, stop, start and rebuild, and their programs have devices open that they
do not let go of. In the end devices inside containers equal leases in the database, and no program
has a device open that its machine has no lease of.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from hutch.setup.private import PrivateIncus
from tests.system.lending import GPUS, Box, Lending, lending_at, until
from tests.system.site import open_site

pytestmark = [pytest.mark.incus, pytest.mark.timeout(900)]

ROUNDS = 20
OWNERS = {"a": "alice", "b": "bob"}


@pytest_asyncio.fixture
async def lending(
    incus: PrivateIncus,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Lending]:
    folder = tmp_path_factory.mktemp("killed-gpus")
    url = f"sqlite:///{folder / 'hutch.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    async with (
        open_site(
            incus, folder, url,
            operation_lease_seconds="1", release_grace_seconds="0.5", reconcile_seconds="1",
            quota_accelerators=str(GPUS),
        ) as site,
        lending_at(site) as made,
    ):  # fmt: skip
        yield made


class Crowd:
    """People who keep asking for random things, and whose programs use whatever is there."""

    def __init__(self, lending: Lending, boxes: list[Box], dice: random.Random) -> None:
        self.lending, self.boxes, self.dice = lending, boxes, dice
        self.programs: list[asyncio.Task[Any]] = []

    async def ask(self) -> None:
        box = self.dice.choice(self.boxes)
        path = f"instances/{box.name}"
        take = ("POST", "leases", {"count": self.dice.randint(1, 3), "instance": box.name})
        release = ("DELETE", f"leases?instance={box.name}", {})
        start = ("POST", f"{path}/start", {})
        others = [("POST", f"{path}/{verb}", {}) for verb in ("stop", "restart", "rebuild")]
        # Mostly what moves accelerators: a machine that is made anew is busy for a long time.
        choices = [take] * 8 + [release] * 5 + [start] * 3 + others
        method, where, body = self.dice.choice(choices)
        answer = await box.api.may_ask(method, where, **body)
        assert answer is None or answer.status_code < 500, answer.text

    def use(self) -> None:
        """Have a program of somebody's open a device, if there is one, and keep it."""
        number = self.dice.randrange(GPUS)
        script = f"exec 7< /dev/hutch-gpu{number} && trap '' TERM && while :; do sleep 1; done"
        box = self.dice.choice(self.boxes)
        command = f'setsid bash -c "{script}" > /dev/null 2>&1 < /dev/null &'
        self.programs.append(asyncio.create_task(box.person.ssh(box.where, command)))


@pytest.mark.parametrize("lending", ["sqlite", "postgresql"], indirect=True)
async def test_devices_equal_leases_whoever_dies_when(lending: Lending) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    site = lending.site
    boxes = [await lending.box(owner, name) for name, owner in OWNERS.items()]
    for box in boxes:
        await box.devices()
    crowd = Crowd(lending, boxes, dice)
    killed = {"server": 0, "agent": 0}
    for _ in range(ROUNDS):
        asking = [asyncio.create_task(crowd.ask()) for _ in range(3)]
        for _ in range(2):
            crowd.use()
        # The moment is the whole point: anywhere between a request and a step far into it.
        await asyncio.sleep(dice.uniform(0, 1.5))
        dying = dice.choice([("server",), ("agent",), ("server", "agent")])
        for each in dying:
            killed[each] += 1
            await (site.kill() if each == "server" else site.kill_agent())
        await asyncio.gather(*asking)
        for each in dying:
            await (site.start() if each == "server" else site.start_agent(GPUS))
    await asyncio.gather(*crowd.programs)
    print(f"killed {killed}")

    await until(lambda: _is_at_rest(lending), "something goes on for ever")
    admin = await lending.admin()
    past = await admin.ask("GET", "leases/history?all=true&limit=500")
    print(f"leases that ended: {Counter(each['end_reason'] for each in past)}")
    ended = await admin.ask("GET", "events?action=lease.kill&limit=500")
    print(f"{len(ended)} times something was ended")
    stuck = await admin.ask("GET", "operations?all=true&limit=500")
    assert [each for each in stuck if each["state"] == "stuck"] == []
    await lending.is_whole()
    await assert_nobody_else_has_one_open(lending)

    for box in boxes:
        await box.api.may_ask("DELETE", f"leases?instance={box.name}")
    await until(lambda: _is_at_rest(lending), "what is given back does not come back")
    assert lending.holders() == {}
    assert {path for held in (await lending.lent()).values() for path in held} == set()


async def _is_at_rest(lending: Lending) -> bool:
    admin = await lending.admin()
    live = await admin.ask("GET", "operations?all=true&live=true&limit=500")
    moving = [
        each
        for each in await admin.ask("GET", "leases?all=true")
        if each["state"] in {"attaching", "detaching"}
    ]
    # A lease may wait for more than can ever be free: that is no motion.
    return not moving and not [each for each in live if each["state"] in {"pending", "running"}]


async def assert_nobody_else_has_one_open(lending: Lending) -> None:
    admin = await lending.admin()
    known = {each["id"]: each["address"] for each in await admin.ask("GET", "accelerators")}
    entitled = {
        (container, known[accelerator_id].removeprefix("simulated:"))
        for container, lent in (await lending.leased_containers()).items()
        for accelerator_id in lent
    }
    assert lending.holding_containers() <= entitled
