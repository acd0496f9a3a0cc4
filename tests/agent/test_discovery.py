"""What a node has is told from its kernel's files alone, by names that stay over boots."""

from pathlib import Path

import pytest

from hutch.agent import amd, jetson, pciids
from hutch.agent.discovery import discover
from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Health, Reading, Vendor
from tests.agent import trees

GIB = 1024**3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.others(tmp_path)
    return tmp_path


def only(found: list[FoundAccelerator]) -> FoundAccelerator:
    assert len(found) == 1, found
    return found[0]


def test_a_node_without_accelerators_has_none(root: Path):
    assert discover(root) == []


def test_a_machine_without_any_of_these_files_has_none(tmp_path: Path):
    assert discover(tmp_path) == []


# -- each vendor -------------------------------------------------------------------------------


def test_a_card_of_nvidia(root: Path):
    trees.nvidia(root, "0000:3b:00.0", minor=0, card=1)
    assert discover(root) == [
        FoundAccelerator(
            address="0000:3b:00.0",
            vendor=Vendor.NVIDIA,
            model="NVIDIA H100 80GB HBM3",
            memory=0,  # the kernel does not tell: NVML does
            uuid="GPU-3f2c8f6e-1b7d-4d0c-9a40-5e0f6a1c2b3d",
            nodes=(
                DeviceNode("/dev/nvidia0", 195, 0),
                DeviceNode("/dev/dri/card1", 226, 1),
                DeviceNode("/dev/dri/renderD129", 226, 129),
            ),
        )
    ]


def test_a_card_of_amd(root: Path):
    trees.amd(root, "0000:63:00.0", card=0)
    assert discover(root) == [
        FoundAccelerator(
            address="0000:63:00.0",
            vendor=Vendor.AMD,
            model="AMD Instinct MI210",
            memory=64 * GIB,
            uuid="9f4b2c7a3d1e5f60",
            nodes=(
                DeviceNode("/dev/dri/card0", 226, 0),
                DeviceNode("/dev/dri/renderD128", 226, 128),
            ),
            shared=(DeviceNode("/dev/kfd", 511, 0),),
        )
    ]
    assert amd.read(only(discover(root)), root) == Reading(
        "0000:63:00.0", 0.37, 5 * GIB, 51.0, 187.0
    )


def test_a_card_of_intel(root: Path):
    trees.intel(root, "0000:03:00.1", card=2)
    found = only(discover(root))
    assert (found.vendor, found.memory, found.uuid) == (Vendor.INTEL, 16 * GIB, None)
    assert found.nodes == (
        DeviceNode("/dev/dri/card2", 226, 2),
        DeviceNode("/dev/dri/renderD130", 226, 130),
    )
    # It tells no utilisation, and none is made up.
    assert amd.read(found, root) == Reading("0000:03:00.1", None, None, 44.0, None)


def test_a_card_of_intel_with_the_driver_from_outside_the_kernel(root: Path):
    trees.intel(
        root, "0000:03:00.1", card=2, driver="i915",
        **{"drm/card2/lmem_total_bytes": 8 * GIB},
    )  # fmt: skip
    assert only(discover(root)).memory == 8 * GIB


def test_a_coral(root: Path):
    trees.coral(root, "0000:07:00.0", 0)
    found = only(discover(root))
    assert (found.vendor, found.model) == (Vendor.CORAL, "Coral Edge TPU")
    assert found.nodes == (DeviceNode("/dev/apex_0", 120, 0),)
    assert amd.read(found, root).temperature == 48.3


@pytest.mark.parametrize("name", ["17000000.gpu", "17000000.ga10b"])
def test_a_jetson_has_one_name_whatever_its_release_calls_it(tmp_path: Path, name: str):
    trees.jetson(tmp_path, name)
    found = only(discover(tmp_path))
    assert (found.address, found.vendor) == ("platform:17000000.gpu", Vendor.JETSON)
    assert found.model == "NVIDIA Jetson AGX Orin Developer Kit"
    assert {each.path for each in found.nodes} == {
        "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu", "/dev/nvhost-as-gpu", "/dev/nvhost-tsg-gpu",
        "/dev/nvhost-nvsched_ctrl_fifo-gpu", "/dev/nvgpu/igpu0/ctrl",
    }  # fmt: skip
    assert [each.path for each in found.shared] == ["/dev/nvmap", "/dev/nvhost-ctrl"]
    assert jetson.read(found, tmp_path) == Reading(
        "platform:17000000.gpu", 0.842, None, 57.5, pytest.approx(7.92)
    )


# -- what changes ------------------------------------------------------------------------------


def test_cards_keep_their_names_when_their_indices_change(tmp_path: Path):
    before, after = tmp_path / "before", tmp_path / "after"
    trees.nvidia(before, "0000:3b:00.0", minor=0, uuid="GPU-a", card=0)
    trees.nvidia(before, "0000:5e:00.0", minor=1, uuid="GPU-b", card=1)
    # After a boot the driver has found them the other way round.
    trees.nvidia(after, "0000:3b:00.0", minor=1, uuid="GPU-a", card=1)
    trees.nvidia(after, "0000:5e:00.0", minor=0, uuid="GPU-b", card=0)
    assert [(each.address, each.uuid) for each in discover(before)] == [
        (each.address, each.uuid) for each in discover(after)
    ]
    assert discover(before)[0].nodes[0].path == "/dev/nvidia0"
    assert discover(after)[0].nodes[0].path == "/dev/nvidia1"


def test_a_card_that_vanished_is_not_found(root: Path):
    trees.nvidia(root, "0000:3b:00.0", minor=0)
    trees.amd(root, "0000:63:00.0", card=0)
    assert len(discover(root)) == 2
    trees.remove(root, "0000:3b:00.0")
    assert only(discover(root)).address == "0000:63:00.0"


def test_a_card_that_vanishes_while_it_is_read_is_missing(root: Path):
    trees.amd(root, "0000:63:00.0", card=0)
    found = only(discover(root))
    trees.remove(root, "0000:63:00.0")
    reading = amd.read(found, root)
    assert (reading.health, reading.utilisation) == (Health.MISSING, None)


# -- what cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (None, "No driver has taken it"),
        ("nouveau", "Its driver is nouveau"),
        ("vfio-pci", "virtual machines"),
    ],
)
def test_a_card_without_the_driver_that_computes_is_broken(
    root: Path, driver: str | None, reason: str
):
    trees.nvidia(root, "0000:3b:00.0", minor=None, driver=driver)
    found = only(discover(root))
    assert found.health is Health.FAILED
    assert reason in found.reason
    assert found.nodes == ()


def test_a_card_that_its_driver_has_not_started_tells_no_uuid(root: Path):
    trees.nvidia(root, "0000:3b:00.0", minor=0, uuid="GPU-????????-????-????-????-????????????")
    assert only(discover(root)).uuid is None


def test_memory_that_lost_something_makes_a_card_broken(root: Path):
    trees.amd(root, "0000:63:00.0", card=0, **{"ras/umc_err_count": "ue: 3\nce: 170"})
    reading = amd.read(only(discover(root)), root)
    assert reading.health is Health.FAILED
    assert "3 errors" in reading.reason


def test_errors_that_were_corrected_are_no_failure(root: Path):
    trees.amd(root, "0000:63:00.0", card=0, **{"ras/umc_err_count": "ue: 0\nce: 170"})
    assert amd.read(only(discover(root)), root).health is Health.OK


def test_a_jetson_without_device_nodes_is_broken(tmp_path: Path):
    trees.write(tmp_path, {"sys/class/devfreq/17000000.gpu/device/load": 0})
    assert only(discover(tmp_path)).health is Health.FAILED


def test_a_virtual_function_is_no_card_of_its_own(root: Path):
    trees.amd(root, "0000:63:00.0", card=0)
    trees.amd(root, "0000:63:02.0", card=1, physfn=Path("../0000:63:00.0"))
    assert only(discover(root)).address == "0000:63:00.0"


@pytest.mark.parametrize("content", ["", "garbage", "-5", "999999"])
def test_nonsense_in_a_file_fails_nothing(root: Path, content: str):
    trees.amd(root, "0000:63:00.0", card=0, gpu_busy_percent=content, mem_info_vram_used="?")
    reading = amd.read(only(discover(root)), root)
    assert reading.utilisation in {None, 0.0, 1.0}
    assert reading.memory_used is None


# -- names -------------------------------------------------------------------------------------


def test_a_model_is_named_by_the_list_of_the_system(root: Path):
    trees.write(root, {"usr/share/misc/pci.ids": trees.PCI_IDS})
    trees.nvidia(root, "0000:3b:00.0", minor=None)
    trees.intel(root, "0000:03:00.1", card=2)
    assert [each.model for each in discover(root)] == [
        "Intel Arc A770", "NVIDIA H100 SXM5 80GB",
    ]  # fmt: skip


def test_a_model_that_no_list_has_is_named_by_its_number(root: Path):
    trees.nvidia(root, "0000:3b:00.0", minor=None)
    assert only(discover(root)).model == "NVIDIA 2330"


@pytest.mark.parametrize(
    ("vendor", "device", "name"),
    [(0x10DE, 0x26B9, "AD102GL"), (0x10DE, 0x56A0, None), (0x8086, 0x16C1, None)],
)
def test_a_name_is_of_its_own_vendor(tmp_path: Path, vendor: int, device: int, name: str | None):
    trees.write(tmp_path, {"usr/share/hwdata/pci.ids": trees.PCI_IDS})
    assert pciids.lookup(tmp_path, vendor, device) == name


def test_a_model_of_any_length_fits(root: Path):
    trees.nvidia(root, "0000:3b:00.0", minor=0, model="x" * 1000)
    assert len(only(discover(root)).model) == 128
