"""Which accelerators a node has, as its kernel tells; nothing is asked of the devices themselves.

    NVIDIA, AMD, Intel   display and 3D controllers and accelerators on the PCI bus
    Coral                PCI 1ac1:089a, whatever class it says
    Jetson               the graphics unit of the processor, which is on no bus

An accelerator is named by its PCI address, or for a Jetson by its place in the processor's memory:
both stay over boots. An index is never looked at: `card0` may be another card after the next one.
"""

import re
from pathlib import Path

from hutch.agent import pciids, sysfs
from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Health, Vendor

_VENDORS = {0x10DE: Vendor.NVIDIA, 0x1002: Vendor.AMD, 0x8086: Vendor.INTEL}
_CORAL = (0x1AC1, 0x089A)
_DISPLAY, _ACCELERATOR = 0x03, 0x12
"""PCI base classes, https://pci-ids.ucw.cz/read/PD."""
_DRIVERS = {
    Vendor.NVIDIA: {"nvidia"},
    Vendor.AMD: {"amdgpu"},
    Vendor.INTEL: {"i915", "xe"},
    Vendor.CORAL: {"apex"},
}
_NVIDIA_MAJOR = 195
_INTEGRATED = "0000:00:02.0"
"""Where Intel's processors have their own graphics: for a screen, not to be lent."""
_JETSON = re.compile(r"([0-9a-f]+)\.(gpu|ga10b|gv11b|gp10b|gm20b|gk20a)")
_JETSON_NODE = re.compile(r"nvhost-(?:[a-z_-]+-)?gpu|nvgpu/igpu0/[a-z-]+")
_JETSON_SHARED = ("nvmap", "nvhost-ctrl")
LONGEST_MODEL = 128


def discover(root: Path = Path("/")) -> list[FoundAccelerator]:
    """Every accelerator, by address."""
    nodes = sysfs.device_nodes(root)
    found = [_on_pci(root, device, nodes) for device in sysfs.entries(root / "sys/bus/pci/devices")]
    found += _jetson(root, nodes)
    return sorted((each for each in found if each is not None), key=lambda each: each.address)


def _on_pci(root: Path, device: Path, nodes: dict[str, DeviceNode]) -> FoundAccelerator | None:
    vendor = _vendor(device)
    # A virtual function is a part of a card that is there itself.
    if vendor is None or (device / "physfn").exists():
        return None
    address = device.name.lower()
    if vendor is Vendor.INTEL and address == _INTEGRATED:
        return None
    told = _nvidia(root, address) if vendor is Vendor.NVIDIA else {}
    health, reason = _driven(vendor, sysfs.driver(device))
    return FoundAccelerator(
        address=address,
        vendor=vendor,
        model=(told.get("Model") or _model(root, device, vendor))[:LONGEST_MODEL],
        memory=_memory(device),
        uuid=_uuid(told.get("GPU UUID")) or sysfs.text(device / "unique_id") or None,
        nodes=(*_own(vendor, told, device), *_drm(device, nodes)),
        shared=tuple(nodes[name] for name in ("kfd",) if vendor is Vendor.AMD and name in nodes),
        health=health,
        reason=reason,
    )


def _vendor(device: Path) -> Vendor | None:
    ids = (sysfs.number(device / "vendor"), sysfs.number(device / "device"))
    if ids == _CORAL:
        return Vendor.CORAL
    kind = (sysfs.number(device / "class") or 0) >> 16
    return _VENDORS.get(ids[0] or 0) if kind in {_DISPLAY, _ACCELERATOR} else None


def _driven(vendor: Vendor, driver: str | None) -> tuple[Health, str]:
    """Whether the driver that makes it usable has it."""
    wanted = " or ".join(sorted(_DRIVERS[vendor]))
    if driver is None:
        return Health.FAILED, f"No driver has taken it: {wanted} is not loaded, or gave up on it."
    if driver == "vfio-pci":
        return Health.FAILED, "It is set aside for virtual machines (vfio-pci)."
    if driver not in _DRIVERS[vendor]:
        return Health.FAILED, f"Its driver is {driver}, and computing needs {wanted}."
    return Health.OK, ""


def _nvidia(root: Path, address: str) -> dict[str, str]:
    """What NVIDIA's driver tells of a card: `Model`, `GPU UUID`, `Device Minor` and more."""
    told = sysfs.text(root / "proc/driver/nvidia/gpus" / address / "information") or ""
    pairs = (line.partition(":") for line in told.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _uuid(told: str | None) -> str | None:
    """A UUID; before the driver has started the card it writes question marks."""
    return told if told and "?" not in told else None


def _own(vendor: Vendor, told: dict[str, str], device: Path) -> list[DeviceNode]:
    """The device nodes through which a card computes, beside those of the graphics."""
    minor = told.get("Device Minor", "")
    if vendor is Vendor.NVIDIA and minor.isdecimal():
        return [DeviceNode(f"/dev/nvidia{minor}", _NVIDIA_MAJOR, int(minor))]
    if vendor is Vendor.CORAL:
        found = [_numbered(each, each.name) for each in sysfs.entries(device / "apex")]
        return [each for each in found if each is not None]
    return []


def _drm(device: Path, nodes: dict[str, DeviceNode]) -> list[DeviceNode]:
    names = [each.name for each in sysfs.entries(device / "drm")]
    found = [
        nodes.get(f"dri/{name}") or _numbered(device / "drm" / name, f"dri/{name}")
        for name in names
        if name.startswith(("card", "renderD"))
    ]
    return [each for each in found if each is not None]


def _numbered(folder: Path, name: str) -> DeviceNode | None:
    """The device node of a folder of sysfs that has a file `dev`."""
    numbers = re.fullmatch(r"(\d+):(\d+)", sysfs.text(folder / "dev") or "")
    if numbers is None:
        return None
    return DeviceNode(f"/dev/{name}", int(numbers.group(1)), int(numbers.group(2)))


def _model(root: Path, device: Path, vendor: Vendor) -> str:
    named = sysfs.text(device / "product_name")
    if named:
        return named
    if vendor is Vendor.CORAL:
        return "Coral Edge TPU"
    ids = (sysfs.number(device / "vendor") or 0, sysfs.number(device / "device") or 0)
    word = {Vendor.NVIDIA: "NVIDIA", Vendor.AMD: "AMD", Vendor.INTEL: "Intel"}[vendor]
    name = pciids.lookup(root, *ids)
    return f"{word} {name}" if name else f"{word} {ids[1]:04x}"


def _memory(device: Path) -> int:
    """Bytes of its own memory; 0 when the kernel does not tell, as for NVIDIA's."""
    told = [
        sysfs.number(device / "mem_info_vram_total"),  # amdgpu
        # Intel's xe, one for each tile; and its i915 from outside the kernel.
        sum(
            sysfs.number(tile / "physical_vram_size_bytes") or 0
            for tile in sysfs.entries(device)
            if re.fullmatch(r"tile\d+", tile.name)
        ),
        *(
            sysfs.number(card / "lmem_total_bytes")
            for card in sysfs.entries(device / "drm")
            if card.name.startswith("card")
        ),
    ]
    return next((each for each in told if each), 0)


def _jetson(root: Path, nodes: dict[str, DeviceNode]) -> list[FoundAccelerator]:
    board = sysfs.text(root / "proc/device-tree/model")
    places = {
        match.group(1)
        for each in sysfs.entries(root / "sys/class/devfreq")
        if (match := _JETSON.fullmatch(each.name))
    }
    own = [
        node
        for name, node in sorted(nodes.items())
        # Who switches the power on and off does not compute.
        if _JETSON_NODE.fullmatch(name) and "power" not in name
    ]
    return [
        FoundAccelerator(
            # One name, whatever the release of the system calls it: `.ga10b` became `.gpu`.
            address=f"platform:{place}.gpu",
            vendor=Vendor.JETSON,
            model=(board or "NVIDIA Jetson")[:LONGEST_MODEL],
            nodes=tuple(own),
            shared=tuple(nodes[name] for name in _JETSON_SHARED if name in nodes),
            health=Health.OK if own else Health.FAILED,
            reason="" if own else "Its driver has made no device nodes.",
        )
        for place in sorted(places)
    ]
