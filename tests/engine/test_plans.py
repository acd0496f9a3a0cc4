"""What each vendor's accelerator is inside an instance, down to the engine's own settings."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.accelerators import Accelerator, DeviceNode, FoundAccelerator, Vendor
from hutch.engine.base import Device, DeviceKind, check_devices
from hutch.engine.incus.devices import devices_config
from hutch.engine.plans import extra, missing, plan, plan_all

KFD = DeviceNode("/dev/kfd", 234, 0)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def accelerator(number: int, found: FoundAccelerator) -> Accelerator:
    return Accelerator(f"{number:016x}", "n1", "one", found, None, 1, AT, AT)


def nvidia(number: int, address: str = "0000:3b:00.0") -> Accelerator:
    nodes = (DeviceNode(f"/dev/nvidia{number}", 195, number),)
    shared = (DeviceNode("/dev/nvidiactl", 195, 255), DeviceNode("/dev/nvidia-uvm", 510, 0))
    found = FoundAccelerator(address, Vendor.NVIDIA, "NVIDIA A100", nodes=nodes, shared=shared)
    return accelerator(number, found)


def amd(number: int) -> Accelerator:
    nodes = (DeviceNode(f"/dev/dri/renderD{128 + number}", 226, 128 + number),)
    address = f"0000:{number:02x}:00.0"
    found = FoundAccelerator(address, Vendor.AMD, "Instinct MI210", nodes=nodes, shared=(KFD,))
    return accelerator(number, found)


def simulated(number: int) -> Accelerator:
    nodes = (DeviceNode(f"/dev/hutch-gpu/{number}", 1, 3),)
    return accelerator(
        number, FoundAccelerator(f"simulated:{number}", Vendor.SIMULATED, "Simulated", nodes=nodes)
    )


JETSON = accelerator(
    7,
    FoundAccelerator(
        "platform:17000000.gpu",
        Vendor.JETSON,
        "Jetson AGX Orin",
        nodes=(DeviceNode("/dev/nvhost-gpu", 506, 1), DeviceNode("/dev/nvgpu/igpu0/as", 506, 2)),
        shared=(DeviceNode("/dev/nvmap", 10, 117),),
    ),
)
CORAL = accelerator(
    8,
    FoundAccelerator(
        "0000:05:00.0", Vendor.CORAL, "Coral Edge TPU", nodes=(DeviceNode("/dev/apex_0", 120, 0),)
    ),
)
INTEL = accelerator(
    9, FoundAccelerator("0000:03:00.0", Vendor.INTEL, "Arc A770", nodes=(), shared=())
)

EVERYONE = {"mode": "0666"}
IN_INCUS = {
    "nvidia": (
        nvidia(1),
        {
            "hutch-gpu-0000000000000001_": {
                "type": "gpu",
                "gputype": "physical",
                "pci": "0000:3b:00.0",
                **EVERYONE,
            }
        },
    ),
    "amd": (
        amd(2),
        {
            "hutch-gpu-0000000000000002_": {
                "type": "gpu",
                "gputype": "physical",
                "pci": "0000:02:00.0",
                **EVERYONE,
            },
            "hutch-shared-kfd_": {"type": "unix-char", "source": "/dev/kfd", **EVERYONE},
        },
    ),
    "intel": (
        INTEL,
        {
            "hutch-gpu-0000000000000009_": {
                "type": "gpu",
                "gputype": "physical",
                "pci": "0000:03:00.0",
                **EVERYONE,
            }
        },
    ),
    "jetson": (
        JETSON,
        {
            "hutch-gpu-0000000000000007-00_": {
                "type": "unix-char",
                "source": "/dev/nvhost-gpu",
                **EVERYONE,
            },
            "hutch-gpu-0000000000000007-01_": {
                "type": "unix-char",
                "source": "/dev/nvgpu/igpu0/as",
                **EVERYONE,
            },
            "hutch-shared-nvmap_": {"type": "unix-char", "source": "/dev/nvmap", **EVERYONE},
        },
    ),
    "coral": (
        CORAL,
        {
            "hutch-gpu-0000000000000008-00_": {
                "type": "unix-char",
                "source": "/dev/apex_0",
                **EVERYONE,
            }
        },
    ),
    "simulated": (
        simulated(3),
        {
            "hutch-gpu-0000000000000003_": {
                "type": "unix-char",
                "source": "/dev/hutch-gpu/3",
                "path": "/dev/hutch-gpu3",
                **EVERYONE,
            }
        },
    ),
}


class TestPlan:
    @pytest.mark.parametrize("vendor", Vendor)
    def test_of_every_vendor_is_this_in_the_engine(self, vendor: Vendor):
        one, config = IN_INCUS[vendor.value]
        check_devices(plan(one))
        assert devices_config(plan(one)) == config

    def test_knows_a_card_by_the_address_as_nvidia_writes_it(self):
        (device,) = plan(nvidia(1, "00000000:3B:00.0"))
        assert device.pci == "0000:3b:00.0"

    def test_of_several_has_what_they_share_once(self):
        names = [device.name for device in plan_all([amd(1), amd(2)])]
        assert names == ["gpu-0000000000000001", "gpu-0000000000000002", "shared-kfd"]

    @given(st.lists(st.text("abcXYZ019-_/:.", min_size=1, max_size=60), min_size=1, max_size=20))
    def test_names_every_node_fit_for_an_engine_and_apart(self, paths: list[str]):
        nodes = tuple(DeviceNode(f"/dev/{path}", 1, 3) for path in paths)
        found = FoundAccelerator("platform:x", Vendor.JETSON, "x", nodes=nodes)
        names = [device.name for device in plan(accelerator(1, found))]
        assert len(set(names)) == len(names)
        assert not any(a != b and b.startswith(a) for a in names for b in names)


class TestDetaching:
    """What goes with accelerators that leave, while others of the instance stay."""

    def test_takes_what_is_an_accelerators_own(self):
        gone = extra(plan_all([nvidia(2)]), plan_all([nvidia(1)]))
        assert gone == ("gpu-0000000000000002",)

    def test_leaves_what_is_shared_while_another_of_the_kind_stays(self):
        assert extra(plan_all([amd(1)]), plan_all([amd(2)])) == ("gpu-0000000000000001",)

    def test_takes_what_is_shared_with_the_last_of_the_kind(self):
        gone = ("gpu-0000000000000001", "shared-kfd")
        assert extra(plan_all([amd(1)]), plan_all([nvidia(2)])) == gone
        assert extra(plan_all([amd(1)]), ()) == gone


class TestComparison:
    WANTED = plan_all([amd(1), simulated(3)])

    def test_of_what_is_as_it_should_be_finds_nothing(self):
        assert missing(self.WANTED, self.WANTED) == ()
        assert extra(self.WANTED, self.WANTED) == ()

    def test_finds_what_is_not_there(self):
        assert missing((), self.WANTED) == self.WANTED
        assert missing(self.WANTED[1:], self.WANTED) == self.WANTED[:1]

    def test_finds_what_should_not_be_there(self):
        assert extra(self.WANTED, ()) == tuple(device.name for device in self.WANTED)
        assert extra(self.WANTED, self.WANTED[:2]) == (self.WANTED[2].name,)

    def test_finds_what_is_something_else_to_be_replaced_and_not_to_be_removed(self):
        other = Device(self.WANTED[0].name, DeviceKind.GPU, pci="0000:ff:00.0")
        seen = (other, *self.WANTED[1:])
        assert missing(seen, self.WANTED) == self.WANTED[:1]
        assert extra(seen, self.WANTED) == ()
