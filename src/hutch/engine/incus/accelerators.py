"""The accelerators in what an Incus server tells of its host. No input or output.

Coral sticks are left out although the server lists them: a stick becomes another USB device, with
another address, when it is first used. The node's agent knows them.
"""

from typing import Any, cast

from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Vendor

Json = dict[str, Any]

_VENDORS = {"10de": Vendor.NVIDIA, "1002": Vendor.AMD, "8086": Vendor.INTEL}
"""By PCI vendor. Others' cards only show pictures: the chip of a server's console."""
_CORAL_PCI = {("1ac1", "089a")}


def found_accelerators(resources: Json) -> list[FoundAccelerator]:
    """The accelerators in what a server tells of its host's resources."""
    gpus = (_gpu(card) for card in _listed(resources, "gpu", "cards"))
    coral = (_coral(each) for each in _listed(resources, "pci", "devices"))
    return sorted((each for each in (*gpus, *coral) if each), key=lambda each: each.address)


def _listed(resources: Json, noun: str, items: str) -> list[Json]:
    described = cast("Json", resources.get(noun) or {})
    return cast("list[Json]", described.get(items) or [])


def _gpu(card: Json) -> FoundAccelerator | None:
    vendor = _VENDORS.get(str(card.get("vendor_id", "")).lower())
    address = card.get("pci_address")
    # One without a driver is of no use inside, and has no device nodes to give.
    if vendor is None or not address or not card.get("driver"):
        return None
    nvidia = cast("Json", card.get("nvidia") or {})
    drm = cast("Json", card.get("drm") or {})
    nodes = (
        _node("/dev/", nvidia, "card"),
        _node("/dev/dri/", drm, "card"),
        _node("/dev/dri/", drm, "render"),
    )
    return FoundAccelerator(
        address=str(address).lower(),
        vendor=vendor,
        model=str(nvidia.get("model") or card.get("product") or card.get("vendor") or vendor),
        uuid=nvidia.get("uuid") or None,
        nodes=tuple(node for node in nodes if node),
    )


def _node(folder: str, described: Json, kind: str) -> DeviceNode | None:
    """A device node that is described as `<kind>_name` and `<kind>_device`, if it is."""
    name = described.get(f"{kind}_name")
    major, _, minor = str(described.get(f"{kind}_device") or "").partition(":")
    if not name or not major.isdigit() or not minor.isdigit():
        return None
    return DeviceNode(f"{folder}{name}", int(major), int(minor))


def _coral(device: Json) -> FoundAccelerator | None:
    is_coral = (device.get("vendor_id"), device.get("product_id")) in _CORAL_PCI
    if not is_coral or not device.get("driver"):
        return None
    return FoundAccelerator(str(device["pci_address"]).lower(), Vendor.CORAL, "Coral Edge TPU")
