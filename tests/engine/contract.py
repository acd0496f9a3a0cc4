"""What every engine promises, as tests that take a `site`: an engine and where on it to test.

A module that runs them imports everything from here and has a fixture `site` of module scope.
What the containers that these tests make leave behind is removed when each test ends.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import asyncssh
import pytest
import pytest_asyncio

from hutch.domain.ids import new_engine_name
from hutch.domain.limits import Limits
from hutch.domain.people import SshKey
from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import (
    Change,
    ContainerSpec,
    Device,
    DeviceKind,
    Engine,
    Forward,
    Observed,
    Power,
)
from hutch.errors import EngineConflictError, EngineError, EngineNotFoundError
from hutch.operations.provision import put_keys, put_notice, put_person

SMALL = Limits(cpus=1, memory=256 * MiB, disk=2 * GiB, processes=256)
LARGER = Limits(cpus=2, memory=384 * MiB, disk=3 * GiB, processes=512)
ABSENT = "hutch-00000000"


class NodeFiles(Protocol):
    """Character devices like `/dev/null` that a test puts on the node, and takes away again."""

    def add(self) -> str:
        """The path of a new one."""
        ...

    def remove(self, path: str) -> None: ...


async def _no_operations() -> list[str]:
    return []


@dataclass
class Site:
    """An engine under test, and what a test may use of it."""

    engine: Engine
    image: str
    """Alias of an image that boots."""
    subnet: str
    """The bridge's network. Addresses from its 100th on are the tests' to use."""
    listen_address: str
    """An address of the node at which host ports can be forwarded."""
    nodes: "NodeFiles"
    """The node's `/dev`."""
    first_port: int = 16_000
    """Two runs at once on one machine forward at the same address: a real engine's site claims its
    own."""
    operations: Callable[[], Awaitable[list[str]]] = field(default=_no_operations)
    """The ids of what the engine says that it is doing at the moment."""
    leaves_shells: str = ""
    """Why a shell may stay that was left while it ran a program; nothing where none does."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def address(self) -> str:
        """An address that no other test uses."""
        return str(ipaddress.IPv4Network(self.subnet).network_address + next(self._numbers))

    def forward(self, name: str = "ssh", target_port: int = 22) -> Forward:
        """A forward of a host port that no other test uses."""
        port = self.first_port + next(self._numbers)
        return Forward(name, self.listen_address, port, target_port)

    def device(self, name: str | None = None, path: str | None = None) -> Device:
        """A character device of the node that no other test uses."""
        number = next(self._numbers)
        return Device(
            name or f"gpu-{number:04}",
            DeviceKind.CHAR,
            source=self.nodes.add(),
            path=path or f"/dev/hutch-gpu{number}",
        )

    def spec(self, name: str | None = None, **changes: object) -> ContainerSpec:
        labels = {"lab": "0123456789abcdef"}
        made = ContainerSpec(
            name or new_engine_name(), self.image, SMALL, self.address(), labels=labels
        )
        return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(site: Site) -> Engine:
    return site.engine


Maker = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def make(site: Site) -> AsyncIterator[Maker]:
    """Make a container and answer its name; it is deleted when the test ends."""
    made: list[str] = []

    async def make_one(spec: ContainerSpec | None = None, *, start: bool = False) -> str:
        spec = spec or site.spec()
        made.append(spec.name)
        await site.engine.create(spec, start=start)
        return spec.name

    yield make_one
    for name in made:
        await site.engine.delete(name)


@pytest_asyncio.fixture(scope="module")
async def running(site: Site) -> AsyncIterator[str]:
    """A running container that many tests share: they leave it running."""
    spec = site.spec()
    await site.engine.create(spec, start=True)
    yield spec.name
    await site.engine.delete(spec.name)


@pytest_asyncio.fixture(scope="module")
async def stopped(site: Site) -> AsyncIterator[str]:
    """A stopped container that many tests share: they leave it stopped."""
    spec = site.spec()
    await site.engine.create(spec)
    yield spec.name
    await site.engine.delete(spec.name)


def ssh_key(title: str) -> SshKey:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return SshKey("k1", "u1", title, "ssh-ed25519", "ssh-ed25519 AAAA", "SHA256:0", at)


def host_key() -> tuple[bytes, str]:
    """A private key as OpenSSH keeps it, and its public half."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key(), key.export_public_key().decode().strip()


@dataclass(frozen=True)
class Person:
    """Whose machine a container is to become."""

    user: str
    host_name: str
    secret: bytes
    public: str

    async def put(self, engine: Engine, name: str, *keys: str) -> None:
        await put_person(
            engine,
            name,
            user=self.user,
            host_name=self.host_name,
            host_secret=self.secret,
            host_key=self.public,
            keys=[ssh_key(title) for title in keys],
        )


async def seen(engine: Engine, name: str) -> Observed:
    found = await engine.get(name)
    assert found is not None, f"{name} is gone"
    return found


async def soon(condition: Callable[[], Awaitable[bool]], within: float = 5.0) -> bool:
    """Whether a condition comes to hold within some seconds."""
    end = time.monotonic() + within
    while not await condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def write(engine: Engine, name: str, path: str, content: bytes) -> None:
    result = await engine.exec(name, ["tee", path], stdin=content)
    assert result.code == 0, result.stderr


class TestNode:
    async def test_status_tells_what_the_node_has(self, engine: Engine):
        status = await engine.status()
        assert status.version
        assert status.cpus >= 1
        assert status.memory > 128 * MiB
        assert 0 <= status.disk_used <= status.disk
        assert status.disk > 1 * GiB

    async def test_boot_id_stays_while_the_engine_runs(self, engine: Engine):
        first, second = await engine.status(), await engine.status()
        assert first.boot_id
        assert first.boot_id == second.boot_id

    async def test_accelerators_are_told_apart_by_their_address(self, engine: Engine):
        # Most machines on which this runs have none.
        addresses = [each.address for each in await engine.accelerators()]
        assert all(addresses)
        assert len(set(addresses)) == len(addresses)

    async def test_images_names_the_image(self, site: Site):
        assert site.image in await site.engine.images()


class TestCreate:
    async def test_makes_a_stopped_container_just_as_asked(self, site: Site, make: Maker):
        spec = site.spec()
        await make(spec)
        assert await seen(site.engine, spec.name) == Observed(
            name=spec.name,
            power=Power.STOPPED,
            address=spec.address,
            limits=spec.limits,
            forwards=(),
            labels=spec.labels,
        )

    async def test_makes_its_forwards_too(self, site: Site, make: Maker):
        spec = site.spec(forwards=(site.forward("ssh"), site.forward("web", 8080)))
        await make(spec)
        assert (await seen(site.engine, spec.name)).forwards == spec.forwards

    async def test_with_a_port_that_leads_elsewhere_is_a_conflict(self, site: Site, stopped: str):
        forward = site.forward()
        await site.engine.set_forward(stopped, forward)
        spec = site.spec(forwards=(forward,))
        with pytest.raises(EngineConflictError):
            await site.engine.create(spec, start=True)
        assert await site.engine.get(spec.name) is None
        await site.engine.remove_forward(stopped, forward.name)

    async def test_again_leaves_the_first_as_it_is(self, site: Site, make: Maker):
        spec = site.spec()
        await make(spec)
        before = await seen(site.engine, spec.name)
        await site.engine.create(replace(spec, limits=LARGER, labels={}, image="no-such-image"))
        assert await seen(site.engine, spec.name) == before

    async def test_starts_when_told_to_and_again_changes_nothing(self, site: Site, make: Maker):
        spec = site.spec()
        await make(spec, start=True)
        assert (await seen(site.engine, spec.name)).power is Power.RUNNING
        await site.engine.create(spec, start=True)
        await site.engine.create(spec)
        assert (await seen(site.engine, spec.name)).power is Power.RUNNING

    async def test_again_with_start_starts_a_stopped_one(self, site: Site, make: Maker):
        spec = site.spec()
        await make(spec)
        await site.engine.create(spec, start=True)
        assert (await seen(site.engine, spec.name)).power is Power.RUNNING

    async def test_of_an_unknown_image_is_not_found_and_leaves_nothing(self, site: Site):
        spec = site.spec(image="no-such-image")
        with pytest.raises(EngineNotFoundError):
            await site.engine.create(spec)
        assert await site.engine.get(spec.name) is None

    async def test_of_a_taken_address_is_refused_at_the_start(
        self, site: Site, make: Maker, running: str
    ):
        taken = (await seen(site.engine, running)).address
        name = await make(site.spec(address=taken))
        with pytest.raises(EngineError):
            await site.engine.start(name)
        assert (await seen(site.engine, name)).power is Power.STOPPED
        assert (await seen(site.engine, running)).power is Power.RUNNING

    async def test_many_times_at_once_makes_one(self, site: Site, make: Maker):
        spec = site.spec()
        results = await asyncio.gather(*(make(spec) for _ in range(4)), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        assert len(failed) < 4
        assert all(isinstance(error, EngineConflictError) for error in failed), failed
        assert [each.name for each in await site.engine.containers()].count(spec.name) <= 1
        assert (await seen(site.engine, spec.name)).address == spec.address

    async def test_of_different_ones_at_once_makes_all(self, site: Site, make: Maker):
        specs = [site.spec() for _ in range(3)]
        await asyncio.gather(*(make(spec) for spec in specs))
        for spec in specs:
            assert (await seen(site.engine, spec.name)).address == spec.address


class TestPower:
    async def test_start_and_stop_may_be_repeated(self, engine: Engine, make: Maker):
        name = await make()
        await engine.stop(name)
        assert (await seen(engine, name)).power is Power.STOPPED
        for _ in range(2):
            await engine.start(name)
            assert (await seen(engine, name)).power is Power.RUNNING
        for _ in range(2):
            await engine.stop(name, timeout=2)
            assert (await seen(engine, name)).power is Power.STOPPED

    async def test_stop_without_patience_is_by_force(self, engine: Engine, make: Maker):
        name = await make(start=True)
        program = asyncio.create_task(engine.exec(name, ["sleep", "60"], timeout=30))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await engine.stop(name, timeout=0.1)
        assert (await seen(engine, name)).power is Power.STOPPED
        assert time.monotonic() - began < 15
        # What ran inside is killed with it, and whoever waits for that learns of it.
        assert (await program).code == 128 + signal.SIGKILL

    @pytest.mark.parametrize("method", ["start", "stop"])
    async def test_of_an_absent_one_is_not_found(self, engine: Engine, method: str):
        with pytest.raises(EngineNotFoundError):
            await getattr(engine, method)(ABSENT)


class TestDelete:
    async def test_takes_a_running_one_with_its_snapshots_and_forwards(
        self, site: Site, make: Maker, stopped: str
    ):
        spec, forward = site.spec(), site.forward()
        name = await make(spec, start=True)
        await site.engine.set_forward(name, forward)
        await site.engine.snapshot(name, "s1")
        await site.engine.delete(name)
        assert await site.engine.get(name) is None
        # Address, port and name are free again.
        await make(site.spec(name, address=spec.address))
        assert await site.engine.snapshots(name) == []
        await site.engine.set_forward(stopped, forward)
        await site.engine.remove_forward(stopped, forward.name)

    async def test_of_an_absent_one_is_quiet(self, engine: Engine, make: Maker):
        name = await make()
        await engine.delete(name)
        await engine.delete(name)
        await engine.delete(ABSENT)


class TestLimits:
    async def test_change_at_once_while_it_runs(self, engine: Engine, running: str):
        for limits in (LARGER, LARGER, SMALL):
            await engine.set_limits(running, limits)
            assert (await seen(engine, running)).limits == limits
        assert (await seen(engine, running)).power is Power.RUNNING

    async def test_change_while_it_is_stopped(self, engine: Engine, stopped: str):
        for limits in (LARGER, SMALL):
            await engine.set_limits(stopped, limits)
            assert (await seen(engine, stopped)).limits == limits

    async def test_a_disk_smaller_than_what_is_used_is_refused(self, site: Site, make: Maker):
        name, forward = await make(), site.forward()
        too_small = replace(LARGER, disk=16 * MiB)
        with pytest.raises(EngineError):
            await site.engine.set_limits(name, too_small)
        with pytest.raises(EngineError):
            await site.engine.prepare(
                name, limits=too_small, forward=forward, labels={"instance": "one"}
            )
        found = await seen(site.engine, name)
        assert (found.limits, found.forwards) == (SMALL, ())

    async def test_of_an_absent_one_is_not_found(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            await engine.set_limits(ABSENT, SMALL)


class TestPrepare:
    async def test_sets_limits_and_forward_and_may_be_repeated(self, site: Site, make: Maker):
        name, forward = await make(start=True), site.forward()
        for _ in range(2):
            await site.engine.prepare(
                name, limits=LARGER, forward=forward, labels={"instance": "one"}
            )
            found = await seen(site.engine, name)
            assert (found.limits, found.forwards) == (LARGER, (forward,))
            assert found.labels["instance"] == "one"

    async def test_is_refused_for_a_port_that_leads_elsewhere(
        self, site: Site, running: str, stopped: str
    ):
        forward = site.forward()
        await site.engine.set_forward(running, forward)
        with pytest.raises(EngineConflictError):
            await site.engine.prepare(
                stopped, limits=SMALL, forward=forward, labels={"instance": "one"}
            )
        await site.engine.remove_forward(running, forward.name)

    async def test_of_an_absent_one_is_not_found(self, site: Site):
        with pytest.raises(EngineNotFoundError):
            await site.engine.prepare(ABSENT, limits=SMALL, forward=site.forward(), labels={})


class TestLabels:
    async def test_set_keeps_those_not_named(self, site: Site, make: Maker):
        spec = site.spec(labels={"a": "1", "b": "2"})
        name = await make(spec)
        for _ in range(2):
            await site.engine.set_labels(name, {"b": "two", "c": "3 = III"})
            assert dict((await seen(site.engine, name)).labels) == {
                "a": "1",
                "b": "two",
                "c": "3 = III",
            }

    async def test_one_set_to_nothing_is_gone(self, site: Site, make: Maker):
        name = await make(site.spec(labels={"a": "1", "b": "", "c": "3"}))
        assert dict((await seen(site.engine, name)).labels) == {"a": "1", "c": "3"}
        await site.engine.set_labels(name, {"a": ""})
        assert dict((await seen(site.engine, name)).labels) == {"c": "3"}

    async def test_of_an_absent_one_is_not_found(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            await engine.set_labels(ABSENT, {"a": "1"})


class TestForwards:
    @pytest.fixture(params=["running", "stopped"])
    def name(self, request: pytest.FixtureRequest, running: str, stopped: str) -> str:
        return running if request.param == "running" else stopped

    async def test_set_replace_and_remove(self, site: Site, name: str):
        engine, first, second = site.engine, site.forward("ssh"), site.forward("ssh", 2222)
        for forward in (first, first, second):
            await engine.set_forward(name, forward)
            assert (await seen(engine, name)).forwards == (forward,)
        for _ in range(2):
            await engine.remove_forward(name, "ssh")
            assert (await seen(engine, name)).forwards == ()

    async def test_several_stand_side_by_side(self, site: Site, name: str):
        forwards = {site.forward("ssh"), site.forward("web", 8080)}
        for forward in forwards:
            await site.engine.set_forward(name, forward)
        assert set((await seen(site.engine, name)).forwards) == forwards
        await site.engine.remove_forward(name, "web")
        assert {each.name for each in (await seen(site.engine, name)).forwards} == {"ssh"}
        await site.engine.remove_forward(name, "ssh")

    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    async def test_at_loopback_and_back_to_the_nodes_address(
        self, site: Site, name: str, protocol: str
    ):
        everywhere = replace(site.forward("web", 8080), protocol=protocol)
        local = replace(everywhere, listen_address="127.0.0.1")
        for forward in (local, everywhere, local):
            await site.engine.set_forward(name, forward)
            assert (await seen(site.engine, name)).forwards == (forward,)
        await site.engine.remove_forward(name, "web")

    async def test_tcp_and_udp_of_one_number_are_two(self, site: Site, name: str):
        tcp = site.forward("web", 8080)
        udp = replace(tcp, name="dns", protocol="udp")
        for forward in (tcp, udp):
            await site.engine.set_forward(name, forward)
        assert set((await seen(site.engine, name)).forwards) == {tcp, udp}
        for forward in (tcp, udp):
            await site.engine.remove_forward(name, forward.name)

    async def test_survive_a_stop_and_a_start(self, site: Site, make: Maker):
        name, forward = await make(), site.forward()
        await site.engine.set_forward(name, forward)
        await site.engine.start(name)
        assert (await seen(site.engine, name)).forwards == (forward,)

    async def test_of_a_port_that_leads_elsewhere_is_a_conflict(
        self, site: Site, running: str, stopped: str
    ):
        engine, forward = site.engine, site.forward()
        await engine.set_forward(stopped, forward)
        with pytest.raises(EngineConflictError):
            await engine.set_forward(running, forward)
        with pytest.raises(EngineConflictError):
            await engine.set_forward(stopped, replace(forward, name="other"))
        assert (await seen(engine, running)).forwards == ()
        await engine.remove_forward(stopped, forward.name)
        await engine.set_forward(running, forward)
        await engine.remove_forward(running, forward.name)

    async def test_set_on_an_absent_one_is_not_found(self, site: Site):
        with pytest.raises(EngineNotFoundError):
            await site.engine.set_forward(ABSENT, site.forward())

    async def test_remove_from_an_absent_one_is_quiet(self, engine: Engine):
        await engine.remove_forward(ABSENT, "ssh")


async def opens(engine: Engine, name: str, device: Device) -> bool:
    """Whether a device's node is inside, and is the one of `/dev/null` that it is a copy of."""
    result = await engine.exec(name, ["stat", "-c", "%t %T", device.path or device.source or ""])
    assert result.code or result.stdout == b"1 3\n", result.stdout
    return result.code == 0


class TestDevices:
    """What a container has on loan of the node's devices."""

    @pytest_asyncio.fixture
    async def name(self, engine: Engine, running: str) -> AsyncIterator[str]:
        yield running
        left = [device.name for device in (await seen(engine, running)).devices]
        await engine.detach(running, left)

    async def devices(self, engine: Engine, name: str) -> list[Device]:
        found = (await seen(engine, name)).devices
        listed = {each.name: each.devices for each in await engine.containers()}
        assert listed[name] == found, "the listing shows what `get` shows"
        return list(found)

    async def test_are_there_at_once_while_it_runs(self, site: Site, name: str):
        engine, device = site.engine, site.device()
        for _ in range(2):
            await engine.attach(name, [device])
            assert await self.devices(engine, name) == [device]
            assert await opens(engine, name, device)
        for _ in range(2):
            await engine.detach(name, [device.name])
            assert await self.devices(engine, name) == []
            assert not await opens(engine, name, device)
        assert (await seen(engine, name)).power is Power.RUNNING

    async def test_may_be_opened_by_every_account_inside(self, site: Site, name: str):
        # A machine's accelerator is its owner's, who should not need to be root to compute.
        engine, device = site.engine, site.device()
        await engine.attach(name, [device])
        read = await engine.exec(name, ["cat", device.path or ""], user=65534, group=65534)
        assert (read.code, read.stdout) == (0, b"")

    async def test_of_a_stopped_one_are_there_when_it_starts(self, site: Site, make: Maker):
        engine, name = site.engine, await make()
        kept, taken = site.device(), site.device()
        await engine.attach(name, [kept, taken])
        assert await self.devices(engine, name) == [kept, taken]
        await engine.detach(name, [taken.name])
        assert await self.devices(engine, name) == [kept]
        await engine.start(name)
        assert await opens(engine, name, kept)
        assert not await opens(engine, name, taken)

    async def test_survive_a_stop_and_a_start(self, site: Site, make: Maker):
        engine, name, device = site.engine, await make(start=True), site.device()
        await engine.attach(name, [device])
        await engine.stop(name, timeout=0.1)
        await engine.start(name)
        assert await self.devices(engine, name) == [device]
        assert await opens(engine, name, device)
        await engine.detach(name, [device.name])
        assert not await opens(engine, name, device)

    async def test_that_the_node_has_lost_keep_no_machine_from_starting(
        self, site: Site, make: Maker
    ):
        engine, name = site.engine, await make(start=True)
        lost, also_lost, kept = site.device(), site.device(), site.device()
        await engine.attach(name, [lost, also_lost, kept])
        await engine.stop(name, timeout=0.1)
        for device in (lost, also_lost):
            site.nodes.remove(device.source or "")
        await engine.start(name)
        assert (await seen(engine, name)).power is Power.RUNNING
        assert await self.devices(engine, name) == [kept]
        assert await opens(engine, name, kept)

    async def test_come_all_or_none(self, site: Site, name: str):
        engine, devices = site.engine, [site.device() for _ in range(3)]
        await engine.attach(name, devices)
        assert await self.devices(engine, name) == devices
        assert all([await opens(engine, name, device) for device in devices])
        await engine.detach(name, [device.name for device in devices])
        assert await self.devices(engine, name) == []

        absent = Device("gpu-9", DeviceKind.CHAR, source="/dev/no-such-device", path="/dev/x")
        with pytest.raises(EngineError):
            await engine.attach(name, [*devices, absent])
        assert await self.devices(engine, name) == []
        assert not any([await opens(engine, name, device) for device in devices])

    async def test_of_an_unknown_pci_address_are_refused(self, engine: Engine, name: str):
        with pytest.raises(EngineError):
            await engine.attach(name, [Device("gpu-1", DeviceKind.GPU, pci="0000:fe:00.0")])
        assert await self.devices(engine, name) == []

    async def test_are_replaced_by_another_of_their_name(self, site: Site, name: str):
        engine, first = site.engine, site.device()
        await engine.attach(name, [first])
        second = site.device(first.name)
        await engine.attach(name, [second])
        assert await self.devices(engine, name) == [second]
        assert not await opens(engine, name, first)
        assert await opens(engine, name, second)
        await engine.detach(name, [first.name])

    async def test_go_alone_also_when_their_name_begins_like_another(self, site: Site, name: str):
        engine, one, ten = site.engine, site.device("gpu-1"), site.device("gpu-10")
        await engine.attach(name, [one, ten])
        await engine.detach(name, ["gpu-1", "gpu-100"])
        assert await self.devices(engine, name) == [ten]
        assert await opens(engine, name, ten)
        assert not await opens(engine, name, one)
        await engine.detach(name, ["gpu-10"])

    async def test_leave_forwards_and_limits_alone(self, site: Site, make: Maker):
        engine, name, device = site.engine, await make(start=True), site.device("ssh")
        await engine.set_forward(name, site.forward("ssh"))
        before = await seen(engine, name)
        await engine.attach(name, [device])
        assert await seen(engine, name) == replace(before, devices=(device,))
        for other in ("ssh", "root", "eth0", "forward-ssh"):
            await engine.detach(name, [other])
            assert await seen(engine, name) == before
        await engine.attach(name, [device])
        await engine.remove_forward(name, "ssh")
        assert await self.devices(engine, name) == [device]

    async def test_come_and_go_side_by_side(self, site: Site, name: str):
        engine, devices = site.engine, [site.device() for _ in range(4)]

        async def persist(act: Callable[[], Awaitable[None]]) -> None:
            for _ in devices:
                with contextlib.suppress(EngineConflictError):
                    return await act()
            raise AssertionError("it is a conflict even after all others are done")

        await asyncio.gather(
            *(persist(partial(engine.attach, name, [device])) for device in devices)
        )
        assert await self.devices(engine, name) == devices
        await asyncio.gather(
            *(persist(partial(engine.detach, name, [device.name])) for device in devices)
        )
        assert await self.devices(engine, name) == []

    @pytest.mark.parametrize(
        "device",
        [
            Device("", DeviceKind.CHAR, source="/dev/null"),
            Device("../x", DeviceKind.CHAR, source="/dev/null"),
            Device("gpu_1", DeviceKind.CHAR, source="/dev/null"),
            Device("GPU", DeviceKind.CHAR, source="/dev/null"),
            Device("g" * 33, DeviceKind.CHAR, source="/dev/null"),
            Device("gpu", DeviceKind.CHAR),
            Device("gpu", DeviceKind.CHAR, source="/etc/passwd"),
            Device("gpu", DeviceKind.CHAR, source="/dev/../etc/passwd"),
            Device("gpu", DeviceKind.CHAR, source="/dev/null", path="/etc/passwd"),
            Device("gpu", DeviceKind.GPU),
            Device("gpu", DeviceKind.GPU, pci="0"),
            Device("gpu", DeviceKind.GPU, pci="0000:3b:00.0,id=0"),
        ],
    )
    async def test_that_make_no_sense_are_refused(self, engine: Engine, name: str, device: Device):
        with pytest.raises(EngineError):
            await engine.attach(name, [device])
        assert await self.devices(engine, name) == []

    async def test_with_a_name_that_makes_no_sense_are_refused(self, engine: Engine, name: str):
        twice = [Device("gpu", DeviceKind.CHAR, source="/dev/null")] * 2
        with pytest.raises(EngineError):
            await engine.attach(name, twice)
        with pytest.raises(EngineError):
            await engine.detach(name, ["../x"])

    async def test_of_an_absent_container(self, site: Site):
        with pytest.raises(EngineNotFoundError):
            await site.engine.attach(ABSENT, [site.device()])
        await site.engine.detach(ABSENT, ["gpu"])

    async def test_are_not_in_the_next_container_of_the_name(self, site: Site, make: Maker):
        engine, spec, device = site.engine, site.spec(), site.device()
        await make(spec, start=True)
        await engine.attach(spec.name, [device])
        await engine.delete(spec.name)
        await engine.create(spec, start=True)
        assert await self.devices(engine, spec.name) == []
        assert not await opens(engine, spec.name, device)

    async def test_do_not_come_back_with_a_snapshot(self, site: Site, make: Maker):
        engine, name = site.engine, await make(start=True)
        before, after = site.device(), site.device()
        await engine.attach(name, [before])
        await engine.snapshot(name, "s1")
        await engine.detach(name, [before.name])
        await engine.attach(name, [after])
        await engine.stop(name, timeout=0.1)
        await engine.restore(name, "s1")
        assert await self.devices(engine, name) == [after]
        await engine.start(name)
        assert await opens(engine, name, after)
        assert not await opens(engine, name, before)


class TestNvidiaDriver:
    async def test_is_not_there_by_default(self, engine: Engine, stopped: str):
        assert not (await seen(engine, stopped)).has_nvidia_driver
        await engine.set_nvidia_driver(stopped, False)
        assert not (await seen(engine, stopped)).has_nvidia_driver

    async def test_is_refused_clearly_by_a_node_without_it(
        self, site: Site, make: Maker, stopped: str
    ):
        for _ in range(2):
            with pytest.raises(EngineError, match="NVIDIA container tools"):
                await site.engine.set_nvidia_driver(stopped, True)
        assert not (await seen(site.engine, stopped)).has_nvidia_driver
        spec = site.spec(has_nvidia_driver=True)
        with pytest.raises(EngineError, match="NVIDIA container tools"):
            await make(spec, start=True)

    async def test_of_an_absent_container_is_not_found(self, engine: Engine):
        for wanted in (True, False):
            with pytest.raises(EngineNotFoundError):
                await engine.set_nvidia_driver(ABSENT, wanted)


class TestSnapshots:
    async def test_are_listed_oldest_first(self, engine: Engine, make: Maker):
        name = await make()
        assert await engine.snapshots(name) == []
        for snapshot in ("zebra", "ant", "monkey"):
            await engine.snapshot(name, snapshot)
        await engine.snapshot(name, "zebra")
        assert await engine.snapshots(name) == ["zebra", "ant", "monkey"]
        for _ in range(2):
            await engine.delete_snapshot(name, "ant")
            assert await engine.snapshots(name) == ["zebra", "monkey"]

    async def test_restore_puts_the_files_back(self, engine: Engine, make: Maker):
        name = await make(start=True)
        await write(engine, name, "/root/kept", b"before")
        await engine.snapshot(name, "s1")
        await write(engine, name, "/root/kept", b"after")
        await write(engine, name, "/root/new", b"new")
        await engine.snapshot(name, "s2")

        with pytest.raises(EngineError):
            await engine.restore(name, "s1")
        assert await engine.read_file(name, "/root/kept") == b"after"

        await engine.stop(name, timeout=10)
        for _ in range(2):
            await engine.restore(name, "s1")
            assert await engine.read_file(name, "/root/kept") == b"before"
            assert await engine.read_file(name, "/root/new") is None
        assert (await seen(engine, name)).power is Power.STOPPED

        # A later snapshot outlives the restore of an earlier one: it is the way back.
        assert await engine.snapshots(name) == ["s1", "s2"]
        await engine.restore(name, "s2")
        assert await engine.read_file(name, "/root/kept") == b"after"
        assert await engine.read_file(name, "/root/new") == b"new"

    async def test_restore_keeps_limits_labels_and_forwards(self, site: Site, make: Maker):
        # The disk goes back, and nothing else does: quotas and ports are hutch's to decide.
        engine, name = site.engine, await make()
        await engine.snapshot(name, "s1")
        forward = site.forward()
        await engine.set_limits(name, LARGER)
        await engine.set_labels(name, {"new": "1"})
        await engine.set_forward(name, forward)
        before = await seen(engine, name)
        await engine.restore(name, "s1")
        assert await seen(engine, name) == before

    async def test_restore_of_an_absent_snapshot_is_not_found(self, engine: Engine, stopped: str):
        with pytest.raises(EngineNotFoundError):
            await engine.restore(stopped, "never")

    async def test_of_an_absent_container(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            await engine.snapshots(ABSENT)
        with pytest.raises(EngineNotFoundError):
            await engine.snapshot(ABSENT, "s1")
        with pytest.raises(EngineNotFoundError):
            await engine.restore(ABSENT, "s1")
        await engine.delete_snapshot(ABSENT, "s1")


class TestExec:
    async def test_gives_code_and_both_streams(self, engine: Engine, running: str):
        await write(engine, running, "/root/there", b"content")
        result = await engine.exec(running, ["cat", "/root/there", "/no/such/file"])
        assert result.code == 1
        assert result.stdout == b"content"
        assert b"/no/such/file" in result.stderr
        assert not result.truncated
        assert (await engine.exec(running, ["true"])).code == 0
        assert (await engine.exec(running, ["false"])).code == 1

    @pytest.mark.parametrize(
        ("argv", "code"),
        [(["no-such-program"], 127), (["/etc/passwd"], 126), ([""], 127), ([], -1)],
    )
    async def test_of_what_is_no_program_has_a_code_too(
        self, engine: Engine, running: str, argv: list[str], code: int
    ):
        assert (await engine.exec(running, argv)).code == code

    @pytest.mark.parametrize("size", [0, 1, 1024 * 1024], ids=["empty", "one byte", "1 MiB"])
    async def test_passes_stdin_through_unchanged(self, engine: Engine, running: str, size: int):
        given = (bytes(range(256)) * (size // 256 + 1))[:size]
        result = await engine.exec(running, ["cat"], stdin=given)
        assert result.code == 0
        assert result.stdout == given
        assert not result.truncated

    async def test_leaves_each_argument_as_it_is(self, engine: Engine, running: str):
        arguments = [
            "$(id)",
            "`id`",
            "a b",
            "; false",
            "'\"",
            "*",
            "",
            "|x",
            "\\n",
            "ü",
            "two\nlines",
        ]
        result = await engine.exec(running, ["echo", *arguments])
        assert result.stdout.decode() == " ".join(arguments) + "\n"

    async def test_sets_environment_user_group_and_directory(self, engine: Engine, running: str):
        async def printed(*argv: str) -> str:
            result = await engine.exec(
                running, argv, environment={"GREETING": "a = b; $c"}, user=33, group=34, cwd="/etc"
            )
            return result.stdout.decode()

        assert await printed("printenv", "GREETING") == "a = b; $c\n"
        assert await printed("id", "-u") == "33\n"
        assert await printed("id", "-g") == "34\n"
        assert await printed("pwd") == "/etc\n"

    async def test_is_root_in_the_root_directory_by_default(self, engine: Engine, running: str):
        assert (await engine.exec(running, ["id", "-u"])).stdout == b"0\n"
        assert (await engine.exec(running, ["id", "-g"])).stdout == b"0\n"
        assert (await engine.exec(running, ["pwd"])).stdout == b"/\n"
        assert (await engine.exec(running, ["printenv", "HOME", "USER"])).stdout == b"/root\nroot\n"

    async def test_ends_what_takes_too_long(self, engine: Engine, running: str):
        began = time.monotonic()
        with pytest.raises(EngineError):
            await engine.exec(running, ["sleep", "60"], timeout=0.5)
        assert time.monotonic() - began < 10

    async def test_throws_away_what_is_too_much(self, engine: Engine, running: str):
        result = await engine.exec(
            running, ["head", "-c", "3000000", "/dev/zero"], most_output=100_000
        )
        assert (result.code, result.truncated) == (0, True)
        assert result.stdout == bytes(100_000)

    async def test_may_be_many_at_once(self, engine: Engine, running: str):
        results = await asyncio.gather(
            *(engine.exec(running, ["echo", str(number)]) for number in range(8))
        )
        assert [result.stdout for result in results] == [b"%d\n" % n for n in range(8)]

    async def test_in_a_stopped_or_absent_one_is_refused(self, engine: Engine, stopped: str):
        with pytest.raises(EngineError):
            await engine.exec(stopped, ["true"])
        with pytest.raises(EngineNotFoundError):
            await engine.exec(ABSENT, ["true"])


class TestReadFile:
    async def test_of_a_running_one(self, engine: Engine, running: str):
        await write(engine, running, "/root/file", b"\x00\xff content\n")
        assert await engine.read_file(running, "/root/file") == b"\x00\xff content\n"
        assert await engine.read_file(running, "/root/none") is None
        assert await engine.read_file(running, "/no/such/folder/file") is None

    async def test_reads_no_more_than_asked(self, engine: Engine, running: str):
        await write(engine, running, "/root/file", b"content")
        assert await engine.read_file(running, "/root/file", most=4) == b"cont"

    async def test_of_a_folder_is_none(self, engine: Engine, running: str):
        assert await engine.read_file(running, "/etc") is None

    async def test_of_a_stopped_one(self, engine: Engine, stopped: str):
        assert b"root" in (await engine.read_file(stopped, "/etc/passwd") or b"")
        assert await engine.read_file(stopped, "/root/none") is None

    async def test_of_an_absent_one_is_not_found(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            await engine.read_file(ABSENT, "/etc/passwd")


class TestUsage:
    async def test_of_a_running_one(self, engine: Engine, running: str):
        usage = await engine.usage(running)
        assert usage.cpu_seconds >= 0
        assert 0 < usage.memory <= SMALL.memory
        assert 0 < usage.processes <= SMALL.processes
        assert usage.disk > 0

    async def test_counts_what_is_written(self, engine: Engine, running: str):
        before = (await engine.usage(running)).disk
        await write(engine, running, "/root/large", random.randbytes(8 * MiB))
        assert 8 * MiB <= (await engine.usage(running)).disk - before < 32 * MiB

    async def test_of_a_stopped_one_is_disk_alone(self, engine: Engine, stopped: str):
        usage = await engine.usage(stopped)
        assert (usage.cpu_seconds, usage.memory, usage.processes) == (0, 0, 0)
        assert usage.disk >= 0

    async def test_of_an_absent_one_is_not_found(self, engine: Engine):
        with pytest.raises(EngineNotFoundError):
            await engine.usage(ABSENT)


@pytest.fixture
def person() -> Person:
    return Person("ada", "turing", b"secret\n", "ssh-ed25519 AAAA")


class TestProvisioning:
    """hutch's own scripts, run as its operations run them."""

    async def test_leaves_a_machine_that_is_the_persons_own(
        self, engine: Engine, make: Maker, person: Person
    ):
        name = await make(start=True)
        for _ in range(2):
            await person.put(engine, name, "laptop")

        async def content(path: str) -> bytes | None:
            return await engine.read_file(name, path)

        assert await content("/etc/hostname") == b"turing\n"
        assert b"127.0.1.1 turing\n" in (await content("/etc/hosts") or b"")
        assert await content("/etc/ssh/ssh_host_ed25519_key") == b"secret\n"
        assert await content("/etc/ssh/ssh_host_ed25519_key.pub") == b"ssh-ed25519 AAAA\n"
        assert b"ada ALL" in (await content("/etc/sudoers.d/90-hutch") or b"")
        assert (await content("/etc/passwd") or b"").count(b"\nada:") == 1
        assert (await engine.exec(name, ["hostname"])).stdout == b"turing\n"
        as_person = await engine.exec(name, ["runuser", "-u", "ada", "--", "id", "-u"])
        assert int(as_person.stdout) >= 1000

        authorized = "/home/ada/.ssh/authorized_keys.hutch"
        assert b"laptop" in (await content(authorized) or b"")
        await write(engine, name, "/home/ada/.ssh/authorized_keys", b"by hand")
        await put_keys(engine, name, user="ada", keys=[ssh_key("desktop")])
        assert b"laptop" not in (await content(authorized) or b"")
        assert b"desktop" in (await content(authorized) or b"")
        assert await content("/home/ada/.ssh/authorized_keys") == b"by hand"

    async def test_refuses_an_account_of_the_system(
        self, engine: Engine, running: str, person: Person
    ):
        with pytest.raises(EngineError, match="operating system"):
            await replace(person, user="root").put(engine, running)

    async def test_of_keys_needs_the_account(self, engine: Engine, running: str):
        with pytest.raises(EngineError, match="no account"):
            await put_keys(engine, running, user="nobody-here", keys=[])
        result = await engine.exec(running, ["runuser", "-u", "nobody-here", "--", "true"])
        assert result.code == 1

    async def test_leaves_a_notice_for_the_next_login(
        self, engine: Engine, make: Maker, person: Person
    ):
        name = await make(start=True)
        await person.put(engine, name)
        for login in (b"first\n", b"first\nsecond\n"):
            await put_notice(engine, name, user="ada", notice_id="n1", text=b"said", login=login)
            assert await engine.read_file(name, "/run/motd.d/90-hutch") == login

    async def test_of_a_notice_needs_the_account(self, engine: Engine, running: str):
        with pytest.raises(EngineError, match="no such user"):
            await put_notice(
                engine, running, user="nobody-here", notice_id="n1", text=b"", login=b""
            )


class TestBanner:
    async def test_comes_when_it_runs_has_a_host_key_and_its_port_leads_there(
        self, site: Site, make: Maker, person: Person
    ):
        engine, name, forward = site.engine, await make(), site.forward()
        await engine.set_forward(name, forward)
        where = (name, forward.listen_address, forward.listen_port)
        assert not await engine.wait_for_banner(*where, timeout=0.2)
        await engine.start(name)
        assert not await engine.wait_for_banner(*where, timeout=0.2)
        secret, public = host_key()
        await replace(person, secret=secret, public=public).put(engine, name)
        assert await engine.wait_for_banner(*where, timeout=20)
        await engine.remove_forward(name, forward.name)
        assert not await engine.wait_for_banner(*where, timeout=0.2)

    async def test_does_not_come_from_a_port_that_leads_nowhere(self, site: Site, running: str):
        forward = site.forward()
        began = time.monotonic()
        assert not await site.engine.wait_for_banner(
            running, forward.listen_address, forward.listen_port, timeout=0.5
        )
        assert time.monotonic() - began < 3


class TestListing:
    async def test_shows_what_get_shows(self, engine: Engine, running: str, stopped: str):
        listed = {each.name: each for each in await engine.containers()}
        for name in (running, stopped):
            assert listed[name] == await engine.get(name)
        assert all(name.startswith("hutch-") for name in listed)

    async def test_soon_reflects_every_change(self, site: Site, make: Maker):
        engine = site.engine
        name, forward = await make(), site.forward()

        async def is_listed() -> bool:
            listed = [each for each in await engine.containers() if each.name == name]
            return listed == ([found] if (found := await engine.get(name)) else [])

        assert await soon(is_listed)
        for change in (
            engine.set_limits(name, LARGER),
            engine.set_forward(name, forward),
            engine.set_labels(name, {"new": "1"}),
            engine.start(name),
            engine.remove_forward(name, forward.name),
            engine.stop(name, timeout=0.1),
            engine.delete(name),
        ):
            await change
            assert await soon(is_listed), "the listing stays stale"

    async def test_get_of_an_absent_one_is_none(self, engine: Engine):
        assert await engine.get(ABSENT) is None


class TestChanges:
    async def test_tell_of_what_happens_to_a_container(self, engine: Engine, make: Maker):
        told: list[Change] = []

        async def listen() -> None:
            async for change in engine.changes():
                told.append(change)  # noqa: PERF401 - it has no end to wait for

        listening = asyncio.create_task(listen())
        try:
            await asyncio.sleep(1.0)  # connecting is asynchronous and says nothing when done
            name = await make()
            for method in ("start", "snapshot", "stop", "delete"):
                told.clear()
                arguments = {"snapshot": ["s1"]}.get(method, [])
                options = {"stop": {"timeout": 0.1}}.get(method, {})
                await getattr(engine, method)(name, *arguments, **options)
                assert await soon(lambda: _told_of(told, name)), method
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


async def _told_of(told: list[Change], name: str) -> bool:
    return any(change.name == name and change.action for change in told)
