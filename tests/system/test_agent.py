"""A real agent beside a real server: both may end in any way at any time, and all is well again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.api.app import open_context
from hutch.domain.accelerators import Accelerator, Health, OpenedDevice, Process, Reading, Verb
from hutch.domain.events import Event
from hutch.domain.ids import new_id
from hutch.services import agents
from hutch.services.context import Context
from hutch.settings import Settings
from hutch.setup.private import PrivateIncus
from hutch.store import accelerators, containers, events, instances, nodes, users
from hutch.store.tables import leases
from tests.system.site import Person, Site, open_site

pytestmark = pytest.mark.incus


@pytest_asyncio.fixture(scope="module")
async def site(
    incus: PrivateIncus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("agent")
    url = f"sqlite:///{folder / 'hutch.db'}"
    async with open_site(
        incus, folder, url, agent_silence_seconds="2", reconcile_seconds="1", sample_seconds="1"
    ) as opened:
        yield opened


class Lab:
    """What the database says, and how long until it does."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def accelerators(self) -> list[Accelerator]:
        async with self.context.db.read() as session:
            return await accelerators.list_accelerators(session)

    async def health(self) -> dict[str, Health]:
        return {each.found.address: each.found.health for each in await self.accelerators()}

    async def ids(self) -> dict[str, str]:
        return {each.found.address: each.id for each in await self.accelerators()}

    async def readings(self) -> dict[str, Reading]:
        async with self.context.db.read() as session:
            found = await accelerators.list_readings(session)
        return {each.address: each for each in found.values()}

    async def events(self, action: str) -> list[Event]:
        async with self.context.db.read() as session:
            return await events.list_events(session, limit=100, action=action)

    async def until_well(self, *addresses: str) -> None:
        await until(lambda: self._is(dict.fromkeys(addresses, Health.OK)))

    async def until_unknown(self, *addresses: str) -> None:
        await until(lambda: self._is(dict.fromkeys(addresses, Health.UNKNOWN)))

    async def _is(self, wanted: dict[str, Health]) -> bool:
        return await self.health() == wanted

    async def until_heard(self) -> None:
        """Return once the agent has said something that was not said before."""
        before = await self._seen_at()
        await until(lambda: self._was_heard_after(before))

    async def _seen_at(self) -> object:
        async with self.context.db.read() as session:
            [node] = await nodes.list_nodes(session)
        return node.agent_seen_at

    async def _was_heard_after(self, before: object) -> bool:
        return await self._seen_at() != before


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as it is so."""
    async with asyncio.timeout(60):
        while not await check():
            await asyncio.sleep(0.05)


TWO = ("simulated:0", "simulated:1")


@pytest_asyncio.fixture
async def lab(site: Site) -> AsyncIterator[Lab]:
    """With a server and an agent that run, and two accelerators that are well."""
    site.steer({})
    if site.server is None or site.server.returncode is not None:
        await site.start()
    if site.agent is None or site.agent.returncode is not None:
        await site.start_agent()
    settings = Settings(data=site.folder / "data", database_url=site.database_url)
    made = Lab(open_context(settings))
    await made.until_well(*TWO)
    yield made
    await made.context.engines.close()
    await made.context.db.close()


async def test_what_the_node_has_and_does_is_known(site: Site, lab: Lab):
    assert sorted(each.name for each in site.gpus.iterdir()) == ["0", "1"]
    site.steer({"0": {"busy": 0.75, "memory": "3GiB"}})

    async def is_busy() -> bool:
        told = (await lab.readings()).get("simulated:0")
        return told is not None and told.utilisation == 0.75

    await until(is_busy)
    assert (await lab.readings())["simulated:1"].utilisation == 0.0


async def test_one_that_fails_and_one_that_vanishes_are_told_of(site: Site, lab: Lab):
    site.steer({"0": {"health": "failed", "reason": "ECC"}, "1": {"health": "missing"}})

    async def is_known() -> bool:
        return list((await lab.health()).values()) == [Health.FAILED, Health.MISSING]

    await until(is_known)
    site.steer({})
    await lab.until_well(*TWO)
    assert {each.detail["health"] for each in await lab.events("accelerator.failed")} >= {
        "failed", "missing",
    }  # fmt: skip


async def test_a_server_that_is_restarted_hears_of_everything_again(site: Site, lab: Lab):
    before = await lab.ids()
    assert await site.stop() == 0
    await site.start()
    await lab.until_heard()
    assert await lab.ids() == before
    assert site.agent is not None
    assert site.agent.returncode is None


async def test_a_server_that_is_killed_as_well(site: Site, lab: Lab):
    before = await lab.ids()
    for _ in range(3):
        await site.kill()
        await site.start()
        await lab.until_heard()
    await lab.until_well(*TWO)
    assert await lab.ids() == before


async def test_an_agent_that_is_stopped_ends_in_order_and_its_accelerators_wait(
    site: Site, lab: Lab
):
    before = len(await lab.events("node.agent_silent"))
    assert await site.stop_agent() == 0
    await lab.until_unknown(*TWO)
    assert len(await lab.events("node.agent_silent")) == before + 1
    await site.start_agent()
    await lab.until_well(*TWO)
    assert await lab.events("node.agent_returned")


async def test_an_agent_that_is_killed_and_started_again_changes_nothing(site: Site, lab: Lab):
    before = await lab.ids()
    found = len(await lab.events("accelerator.found"))
    for _ in range(3):
        await site.kill_agent()
        await site.start_agent()
        await lab.until_heard()
    await lab.until_well(*TWO)
    assert await lab.ids() == before
    assert len(await lab.events("accelerator.found")) == found


async def test_more_and_fewer_accelerators_are_known_after_a_restart(site: Site, lab: Lab):
    await site.stop_agent()
    await site.start_agent(gpus=3)
    await lab.until_well(*TWO, "simulated:2")
    await site.stop_agent()
    await site.start_agent(gpus=2)

    async def is_missing() -> bool:
        return (await lab.health())["simulated:2"] is Health.MISSING

    await until(is_missing)
    assert sorted(each.name for each in site.gpus.iterdir()) == ["0", "1"]
    # So that the other tests have two and no third.
    async with lab.context.db.write() as session:
        gone = (await lab.ids())["simulated:2"]
        await session.exec_driver_sql(f"DELETE FROM samples WHERE accelerator_id = '{gone}'")
        await session.exec_driver_sql(f"DELETE FROM accelerators WHERE id = '{gone}'")


async def test_an_agent_with_a_wrong_token_is_kept_out_until_it_has_the_right_one(
    site: Site, lab: Lab
):
    await site.stop_agent()
    right = site.token_file.read_text()
    site.token_file.write_text("hutch_node_wrong")
    log = site.folder / "agent.log"
    before = log.stat().st_size
    await site.start_agent()

    async def is_refused() -> bool:
        with log.open() as file:
            file.seek(before)
            return "does not know this agent's token" in file.read()

    await until(is_refused)
    await lab.until_unknown(*TWO)
    site.token_file.write_text(right)
    await lab.until_well(*TWO)


async def test_the_token_is_in_no_process_list_and_in_no_log(site: Site, lab: Lab):
    token = site.token_file.read_text().strip()
    assert site.agent is not None
    for file in ("cmdline", "environ"):
        assert token not in Path(f"/proc/{site.agent.pid}/{file}").read_text()
    for name in ("agent.log", "server.log"):
        assert token not in (site.folder / name).read_text()


# -- orders, on a real machine -----------------------------------------------------------------


class Machine:
    """A machine of alice's with a device that was attached by hand."""

    def __init__(self, site: Site, lab: Lab, container: str, lease_id: str, node_id: str) -> None:
        self.site = site
        self.lab = lab
        self.container = container
        self.lease_id = lease_id
        self.node_id = node_id

    async def run(self, script: str) -> str:
        ran = await self.site.incus_command("exec", self.container, "--", "bash", "-c", script)
        return ran.out

    async def order(self, verb: Verb) -> str:
        async with self.lab.context.db.write() as session:
            return await agents.order(
                session,
                self.lab.context,
                verb,
                node_id=self.node_id,
                lease_id=self.lease_id,
                container=self.container,
                devices=[OpenedDevice(1, 3, "/dev/hutch-gpu0")],
            )

    async def ask(self, verb: Verb) -> list[Process]:
        found = await agents.await_result(
            self.lab.context, self.node_id, await self.order(verb), timeout=30
        )
        assert found is not None
        return list(found.processes)


@pytest_asyncio.fixture
async def machine(site: Site, lab: Lab) -> AsyncIterator[Machine]:
    alice: Person = await site.person("alice")
    if "box" not in (await alice.ok("list")).out:
        await alice.ok("create", "box", "--memory", "256MiB", "--disk", "2GiB")
    async with lab.context.db.read() as session:
        user = await users.find_user(session, "alice", lab.context.settings.default_quota)
        assert user is not None
        box = await instances.find_instance(session, user.id, "box")
        assert box is not None
        container = await containers.current(session, box.id)
        assert container is not None
    lease_id = new_id()
    async with lab.context.db.write() as session:
        await session.execute(
            leases.insert().values(
                id=lease_id, instance_id=box.id, instance_name="box", owner_id=user.id,
                node_id=box.node_id, count=1, seconds=60, state="ended",
                requested_at=lab.context.now(),
            )
        )  # fmt: skip
    name = container.engine_name
    await site.incus_command(
        "config", "device", "add", name, "by-hand", "unix-char", f"source={site.gpus}/0",
        "path=/dev/hutch-gpu0", "mode=0666",
    )  # fmt: skip
    made = Machine(site, lab, name, lease_id, box.node_id)
    await made.run(
        "for what in hutch-gpu0 null; do"
        ' setsid -f bash -c "exec 3<>/dev/$what; exec sleep 600" </dev/null >/dev/null 2>&1;'
        " done; until test $(pgrep -cx sleep) = 2; do :; done"
    )
    yield made
    await made.run("pkill -KILL -x sleep")
    await site.incus_command("config", "device", "remove", name, "by-hand")


async def test_an_order_ends_who_holds_a_device_and_only_that(machine: Machine):
    [holder] = await machine.ask(Verb.SHUT)
    assert (holder.command, holder.user) == ("sleep", "root")
    assert [each.pid for each in await machine.ask(Verb.END)] == [holder.pid]
    assert not Path(f"/proc/{holder.pid}").exists()
    assert await machine.ask(Verb.SHUT) == []
    assert (await machine.run("pgrep -cx sleep")).strip() == "1"


@pytest.mark.parametrize("victim", ["server", "agent", "both"])
async def test_an_order_outlives_whoever_was_to_carry_it_out(
    site: Site, machine: Machine, victim: str
):
    if victim in {"server", "both"}:
        await site.kill()
    if victim in {"agent", "both"}:
        await site.kill_agent()
    order = await machine.order(Verb.END)
    waiting = asyncio.create_task(
        agents.await_result(
            machine.lab.context, machine.node_id, order, timeout=agents.ORDER_SECONDS
        )
    )
    with contextlib.suppress(AssertionError):
        if victim in {"server", "both"}:
            await site.start()
    if victim in {"agent", "both"}:
        await site.start_agent()
    ended = await waiting
    assert ended is not None
    assert [each.command for each in ended.processes] == ["sleep"]
    assert (await machine.run("pgrep -cx sleep")).strip() == "1"
