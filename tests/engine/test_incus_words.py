"""What the Incus driver says and understands, without an Incus: names, errors, settings, events."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Vendor
from hutch.domain.limits import Limits
from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import (
    Change,
    ContainerSpec,
    Device,
    DeviceKind,
    Forward,
    Observed,
    Power,
)
from hutch.engine.incus import IncusEngine, card, devices, disks, spec
from hutch.engine.incus.accelerators import found_accelerators
from hutch.engine.incus.client import Client, part, refusal
from hutch.engine.incus.watch import MISSED, Listing, change_of
from hutch.errors import (
    ConfigurationError,
    EngineConflictError,
    EngineError,
    EngineNotFoundError,
    EngineUnavailableError,
)

LIMITS = Limits(cpus=3, memory=512 * MiB, disk=4 * GiB, processes=300)
FORWARD = Forward("ssh", "192.0.2.1", 22001, 22)


def instance(limits: Limits = LIMITS, forwards: tuple[Forward, ...] = ()) -> dict[str, Any]:
    """What Incus answers after it was asked for a container with these."""
    asked = ContainerSpec(
        "hutch-00000001", "base", limits, "10.0.0.9", labels={"lab": "a"}, forwards=forwards
    )
    body = spec.instance_body(
        asked, pool="p", network="br0", guest_api="security.guestapi", start=False
    )
    return {**body, "status": "Stopped", "expanded_devices": body["devices"]}


class TestUrls:
    @pytest.mark.parametrize(
        "url", ["", "unix://", "unix://host/path", "http://host", "https://host:8443", "/path"]
    )
    def test_others_than_a_socket_or_https_with_certificates_are_refused(self, url: str):
        with pytest.raises(ConfigurationError):
            Client(url, "hutch")

    async def test_of_a_socket_that_is_not_there_is_an_engine_unavailable(self, tmp_path: Path):
        engine = IncusEngine(f"unix://{tmp_path}/none", project="hutch", pool="p", network="br0")
        for call in (engine.status(), engine.containers(), engine.start("hutch-1")):
            with pytest.raises(EngineUnavailableError):
                await call
        await engine.close()

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../x", "a/b", "a?b", "a#b", "a b", "ü", "a\n", "%2e", "a" * 64]
    )
    def test_have_no_part_that_leads_elsewhere(self, name: str):
        with pytest.raises(EngineError):
            part(name)

    @given(st.text())
    def test_have_only_harmless_characters(self, name: str):
        try:
            assert part(name) == name
        except EngineError:
            return


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "message", "kind"),
        [
            (404, "Not Found", EngineNotFoundError),
            (400, "Instance not found", EngineNotFoundError),
            (500, "Image not provided for instance creation", EngineNotFoundError),
            (409, "anything", EngineConflictError),
            (412, "ETag doesn't match", EngineConflictError),
            (400, "Instance is busy running a stop operation", EngineConflictError),
            (500, 'Instance "x" already exists', EngineConflictError),
            (400, 'IP address "10.0.0.9" already defined on another NIC', EngineConflictError),
        ],
    )
    def test_are_told_apart(self, status: int, message: str, kind: type[EngineError]):
        assert type(refusal(status, message, path="")) is kind

    def test_keep_the_words_of_the_engine(self):
        error = refusal(500, "Disk on fire", path="")
        assert type(error) is EngineError
        assert "Disk on fire" in error.message
        assert error.hint


class TestSettings:
    @given(
        st.builds(
            Limits,
            cpus=st.integers(1, 1024),
            memory=st.integers(128 * MiB, 1 << 45),
            disk=st.integers(1 * GiB, 1 << 45),
            processes=st.integers(64, 1_000_000),
        )
    )
    def test_read_back_what_was_asked(self, limits: Limits):
        assert spec.observed(instance(limits, (FORWARD,))) == Observed(
            "hutch-00000001", Power.STOPPED, "10.0.0.9", limits, (FORWARD,), {"lab": "a"}
        )

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("limits.cpu.allowance", "50%"),
            ("limits.cpu.allowance", "150ms/100ms"),
            ("limits.cpu.allowance", None),
            ("limits.memory", "50%"),
            ("limits.memory", None),
            ("limits.processes", ""),
        ],
    )
    def test_changed_by_hand_are_no_limits_of_hutchs(self, key: str, value: str | None):
        changed = instance()
        changed["config"].pop(key)
        if value is not None:
            changed["config"][key] = value
        assert spec.observed(changed).limits is None

    def test_written_by_hand_in_another_unit_are_understood(self):
        changed = instance()
        changed["config"]["limits.memory"] = "512MiB"
        changed["devices"]["root"]["size"] = "4GiB"
        assert spec.observed(changed).limits == LIMITS

    def test_depend_on_no_profile(self):
        assert instance()["profiles"] == []

    def test_leave_what_ran_to_run_again_after_a_restart(self):
        assert "boot.autostart" not in instance()["config"]

    @pytest.mark.parametrize("label", ["", "a b", "A", "../x", "a\n"])
    def test_refuse_a_strange_label(self, label: str):
        with pytest.raises(EngineError):
            spec.labels_config({label: "x"})

    @given(st.text(max_size=40))
    def test_put_nothing_that_anyone_chose_into_the_hook(self, name: str):
        settings, device = card.new(name, name)
        assert set(device["hwaddr"]) <= set("0123456789abcdef:")
        assert int(device["hwaddr"][:2], 16) & 0b11 == 0b10
        same = {"hwaddr": device["hwaddr"]}
        assert card.hook_of(same) == settings["raw.lxc"]


CARD = Device("gpu-a", DeviceKind.GPU, pci="0000:3b:00.0")
NODE = Device("gpu-b", DeviceKind.CHAR, source="/dev/hutch-gpu/0", path="/dev/hutch-gpu0")
SAME = Device("shared-kfd", DeviceKind.CHAR, source="/dev/kfd")


class TestDevices:
    def test_are_read_back_as_they_were_asked_for(self):
        found = instance()
        found["devices"] |= devices.devices_config((NODE, SAME, CARD))
        assert spec.observed(found).devices == (CARD, NODE, SAME)
        assert spec.observed(instance()).devices == ()

    def test_are_for_every_account_inside(self):
        for config in devices.devices_config((NODE, SAME, CARD)).values():
            assert config["mode"] == "0666"

    @pytest.mark.parametrize("name", ["root", "eth0", "forward-ssh", "gpu-a", "hutch-a", "a_"])
    def test_of_other_names_are_nobodys_loan(self, name: str):
        found = instance()
        found["devices"][name] = {"type": "unix-char", "source": "/dev/kfd"}
        assert spec.observed(found).devices == ()

    def test_rewritten_by_hand_are_shown_as_what_they_are(self):
        found = instance()
        found["devices"] |= {
            devices.device_name("gpu-a"): {"type": "gpu", "id": "0"},
            devices.device_name("gpu-b"): {"type": "disk", "source": "/", "path": "/mnt"},
        }
        assert spec.observed(found).devices == (Device("gpu-a", DeviceKind.GPU),)

    @given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True), unique=True))
    def test_have_names_of_which_none_is_the_beginning_of_another(self, names: list[str]):
        inside = [devices.device_name(name) for name in names]
        assert not any(a != b and b.startswith(a) for a in inside for b in inside)
        assert all(len(each) <= 64 for each in inside)

    def test_that_are_lost_are_told_from_other_reasons_not_to_start(self):
        says = 'The engine refused: Failed to start device "{}": Invalid PCI address.'
        assert devices.lost(says.format("hutch-gpu-a_")) == "hutch-gpu-a_"
        for message in (says.format("eth0"), says.format("forward-ssh"), "Disk on fire"):
            assert devices.lost(message) is None


class TestNvidiaDriver:
    def test_is_asked_for_when_a_container_is_made(self):
        asked = ContainerSpec("hutch-1", "base", LIMITS, "10.0.0.9", has_nvidia_driver=True)
        body = spec.instance_body(
            asked, pool="p", network="br0", guest_api="security.guestapi", start=False
        )
        assert body["config"]["nvidia.runtime"] == "true"
        assert body["config"]["nvidia.driver.capabilities"] == "compute,utility"
        found = {**body, "status": "Stopped", "expanded_devices": body["devices"]}
        assert spec.observed(found).has_nvidia_driver

    def test_is_asked_of_no_other(self):
        assert not [key for key in instance()["config"] if key.startswith("nvidia")]

    def test_can_be_asked_for_later_and_be_given_up(self):
        found = instance()
        found["config"] |= devices.driver_config(True)
        assert spec.observed(found).has_nvidia_driver
        # Set to nothing is how a setting is taken away.
        found["config"] |= devices.driver_config(False)
        assert not spec.observed(found).has_nvidia_driver
        assert devices.driver_config(False) == {
            "nvidia.runtime": "",
            "nvidia.driver.capabilities": "",
        }


class TestAccelerators:
    RESOURCES = json.loads((Path(__file__).parent / "resources.json").read_text())

    def test_are_the_cards_that_compute(self):
        assert found_accelerators(self.RESOURCES) == [
            FoundAccelerator(
                "0000:03:00.0",
                Vendor.INTEL,
                "DG2 [Arc A770]",
                nodes=(
                    DeviceNode("/dev/dri/card1", 226, 1),
                    DeviceNode("/dev/dri/renderD129", 226, 129),
                ),
            ),
            FoundAccelerator("0000:05:00.0", Vendor.CORAL, "Coral Edge TPU"),
            FoundAccelerator(
                "0000:3b:00.0",
                Vendor.NVIDIA,
                "NVIDIA A100-PCIE-40GB",
                uuid="GPU-6ddadebd-dafe-2db9-f10f-125719770fd3",
                nodes=(
                    DeviceNode("/dev/nvidia0", 195, 0),
                    DeviceNode("/dev/dri/card2", 226, 2),
                    DeviceNode("/dev/dri/renderD130", 226, 130),
                ),
            ),
            FoundAccelerator(
                "0000:c3:00.0",
                Vendor.AMD,
                "Aldebaran/MI200 [Instinct MI210]",
                nodes=(
                    DeviceNode("/dev/dri/card3", 226, 3),
                    DeviceNode("/dev/dri/renderD131", 226, 131),
                ),
            ),
        ]

    @pytest.mark.parametrize(
        "resources",
        [
            {},
            {"gpu": None, "pci": None},
            {"gpu": {"cards": None}, "pci": {"devices": None}},
            {"gpu": {"cards": [{"vendor_id": "10de"}]}},
            {"gpu": {"cards": [{"usb_address": "2:7", "driver": "udl"}]}},
        ],
    )
    def test_are_none_where_nothing_is_told(self, resources: dict[str, Any]):
        assert found_accelerators(resources) == []


class TestBeingWhole:
    def test_is_told_from_what_the_server_notes_last(self):
        unfinished = instance()
        unfinished["config"] |= {"volatile.uuid": "x", "volatile.last_state.idmap": "[]"}
        assert not spec.is_whole(unfinished)
        for mark in ("volatile.apply_template", "volatile.last_state.power"):
            assert spec.is_whole({"config": {**unfinished["config"], mark: "x"}})


class TestRoomOnAFullDisk:
    def test_is_given_and_not_shown(self):
        found = instance()
        body = disks.widened(found, spec.root_disk(found))
        found["config"] |= body["config"]
        found["devices"] |= body["devices"]
        assert int(found["devices"]["root"]["size"]) == LIMITS.disk + disks.SLACK
        assert spec.observed(found).limits == LIMITS
        # It stays while the disk is as large as it was, and goes with the next size.
        again = spec.resized(found, LIMITS)
        assert again["devices"]["root"]["size"] == str(LIMITS.disk + disks.SLACK)
        larger = spec.resized(found, Limits(3, 512 * MiB, 5 * GiB, 300))
        assert larger["devices"]["root"]["size"] == str(5 * GiB)
        assert larger["config"][disks.SLACK_KEY] == ""

    def test_ends(self):
        def fill_again_and_again() -> None:
            for _ in range(100):
                body = disks.widened(found, spec.root_disk(found))
                found["config"] |= body["config"]
                found["devices"] |= body["devices"]

        found = instance()
        with pytest.raises(EngineError, match="full"):
            fill_again_and_again()
        assert int(found["devices"]["root"]["size"]) <= LIMITS.disk + disks.MOST_SLACK

    def test_a_disk_is_not_made_smaller_than_what_is_in_it(self):
        disks.check_shrink("x", 2 * GiB, 1 * GiB)
        for used in (2 * GiB, 3 * GiB, None):
            with pytest.raises(EngineError):
                disks.check_shrink("x", 2 * GiB, used)


def event(action: str, source: str) -> str:
    return json.dumps({"type": "lifecycle", "metadata": {"action": action, "source": source}})


class TestEvents:
    @pytest.mark.parametrize(
        ("action", "source", "change"),
        [
            ("instance-started", "/1.0/instances/hutch-1", Change("hutch-1", "instance-started")),
            ("instance-updated", "/1.0/instances/hutch-1?project=hutch",
             Change("hutch-1", "instance-updated")),
            ("instance-snapshot-created", "/1.0/instances/hutch-1/snapshots/s",
             Change("hutch-1", "instance-snapshot-created")),
            ("instance-started", "/1.0/instances/other", None),
            ("instance-exec", "/1.0/instances/hutch-1", None),
            ("image-created", "/1.0/images/abc", None),
            ("", "", None),
        ],
    )  # fmt: skip
    def test_are_about_containers(self, action: str, source: str, change: Change | None):
        assert change_of(event(action, source)) == change

    @pytest.mark.parametrize("message", ["{}", '{"metadata": null}', '{"metadata": {}}'])
    def test_of_an_unknown_kind_are_passed_over(self, message: str):
        assert change_of(message) is None


class Server:
    """Stands in for a client: answers lists, and counts how often it was asked."""

    url = "test"

    def __init__(self, *names: str) -> None:
        self.instances = {name: {**instance(), "name": name} for name in names}
        self.lists = 0
        self.fetched: list[str] = []
        self.on_list = lambda: None

    async def get(self, path: str, **_: object) -> list[dict[str, Any]]:
        self.lists += 1
        answer = [dict(each) for each in self.instances.values()]
        self.on_list()
        return answer

    async def fetch(self, name: str) -> Observed | None:
        self.fetched.append(name)
        found = self.instances.get(name)
        return spec.observed(found) if found else None

    def set(self, name: str, status: str) -> None:
        self.instances[name] = {**instance(), "name": name, "status": status}


class TestListing:
    def _listing(self, server: Server, *, connected: bool = True) -> Listing:
        listing = Listing(server, server.fetch)  # type: ignore[arg-type]
        listing.watcher.start = lambda: None
        if connected:
            listing.watcher.connected.set()
        return listing

    async def test_is_asked_for_once(self):
        server = Server("hutch-b", "hutch-a", "other")
        listing = self._listing(server)
        for _ in range(3):
            assert [each.name for each in await listing.read()] == ["hutch-a", "hutch-b"]
        assert (server.lists, server.fetched) == (1, [])

    async def test_fetches_what_changed_and_nothing_else(self):
        server = Server("hutch-a", "hutch-b")
        listing = self._listing(server)
        await listing.read()
        server.set("hutch-b", "Running")
        server.set("hutch-c", "Running")
        for name in ("hutch-b", "hutch-b", "hutch-c"):
            listing._on_change(Change(name, "x"))
        assert [each.power.value for each in await listing.read()] == [
            "stopped", "running", "running",
        ]  # fmt: skip
        del server.instances["hutch-a"]
        listing._on_change(Change("hutch-a", "x"))
        assert [each.name for each in await listing.read()] == ["hutch-b", "hutch-c"]
        assert server.lists == 1
        assert sorted(server.fetched) == ["hutch-a", "hutch-b", "hutch-c"]

    async def test_is_asked_for_again_after_a_reconnect(self):
        server = Server("hutch-a")
        listing = self._listing(server)
        await listing.read()
        server.set("hutch-b", "Running")
        listing._on_change(MISSED)
        assert len(await listing.read()) == 2
        assert server.lists == 2

    async def test_keeps_nothing_while_nobody_tells_of_changes(self):
        server = Server("hutch-a")
        listing = self._listing(server, connected=False)
        await listing.read()
        server.set("hutch-b", "Running")
        assert len(await listing.read()) == 2

    async def test_misses_no_change_made_while_it_was_on_its_way(self):
        server = Server("hutch-a")
        listing = self._listing(server)

        def change_meanwhile() -> None:
            server.set("hutch-a", "Running")
            listing._on_change(Change("hutch-a", "x"))

        server.on_list = change_meanwhile
        assert (await listing.read())[0].power is Power.STOPPED
        assert (await listing.read())[0].power is Power.RUNNING

    async def test_misses_no_reconnect_made_while_it_was_on_its_way(self):
        server = Server("hutch-a")
        listing = self._listing(server)
        server.on_list = lambda: listing._on_change(MISSED) if server.lists == 1 else None
        await listing.read()
        server.set("hutch-b", "Running")
        assert len(await listing.read()) == 2

    async def test_that_failed_is_asked_for_again(self):
        server = Server("hutch-a")
        listing = self._listing(server)

        def fail() -> None:
            raise EngineUnavailableError("away")

        server.on_list = fail
        with pytest.raises(EngineUnavailableError):
            await listing.read()
        server.on_list = lambda: None
        assert len(await listing.read()) == 1

    async def test_of_many_changes_is_asked_for_whole(self):
        names = [f"hutch-{number:03}" for number in range(80)]
        server = Server(*names)
        listing = self._listing(server)
        await listing.read()
        for name in names:
            listing.touched(name)
        assert len(await listing.read()) == 80
        assert (server.lists, server.fetched) == (2, [])

    async def test_a_listener_that_does_not_read_is_told_to_look_at_everything(self):
        listing = self._listing(Server())
        changes = listing.watcher.changes()
        for number in range(5000):
            listing.watcher._tell(Change(f"hutch-{number}", "x"))
        async with asyncio.timeout(5):
            assert await anext(changes) == MISSED
        await changes.aclose()
