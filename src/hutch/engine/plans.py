"""Which devices of the node an accelerator is inside an instance: one small table of vendors.

Devices are named after the accelerator, `gpu-<its id>`, not after the lease: shared by two leases
of one instance it is still one device. What accelerators of a kind share is named after itself,
`shared-kfd`, and goes when the last of them goes.

The libraries that speak to the driver are not in the table. NVIDIA's come from the node at each
start (`ContainerSpec.has_nvidia_driver`); the others' speak to any driver and are the image's.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath

from hutch.domain.accelerators import Accelerator, DeviceNode, Vendor
from hutch.engine.base import Device, DeviceKind

_LONGEST_NAME = 32
_UNFIT = re.compile(r"[^a-z0-9]+", re.ASCII)


def plan(accelerator: Accelerator) -> tuple[Device, ...]:
    """The devices that make an accelerator usable inside, those it shares last."""
    return _PLANS[accelerator.found.vendor](accelerator)


def plan_all(accelerators: Iterable[Accelerator]) -> tuple[Device, ...]:
    """The devices of several accelerators of one instance, each once, sorted by name."""
    devices = {device.name: device for each in accelerators for device in plan(each)}
    return tuple(devices[name] for name in sorted(devices))


def missing(seen: Sequence[Device], wanted: Sequence[Device]) -> tuple[Device, ...]:
    """The devices that a container should have and has not, or has as something else: attach."""
    return tuple(device for device in wanted if device not in seen)


def extra(seen: Sequence[Device], wanted: Sequence[Device]) -> tuple[str, ...]:
    """The names of devices that a container has and should not have: detach."""
    named = {device.name for device in wanted}
    return tuple(device.name for device in seen if device.name not in named)


# -- vendors -----------------------------------------------------------------------------------


def _card(accelerator: Accelerator) -> tuple[Device, ...]:
    """A card by its address; the engine finds the device nodes that its driver made."""
    return (
        Device(f"gpu-{accelerator.id}", DeviceKind.GPU, pci=_address(accelerator.found.address)),
    )


def _card_and_shared(accelerator: Accelerator) -> tuple[Device, ...]:
    """A card, and the node through which every program speaks to all cards of its kind."""
    return (*_card(accelerator), *_shared(accelerator))


def _nodes(accelerator: Accelerator) -> tuple[Device, ...]:
    """Device nodes, at the paths that its libraries look for: the node's own."""
    own = [
        # All names of one accelerator are equally long, so none is the beginning of another.
        Device(f"gpu-{accelerator.id}-{number:02}", DeviceKind.CHAR, source=node.path)
        for number, node in enumerate(accelerator.found.nodes)
    ]
    return (*own, *_shared(accelerator))


def _simulated(accelerator: Accelerator) -> tuple[Device, ...]:
    """`/dev/hutch-gpu/N` of the node, which is `/dev/hutch-gpuN` inside."""
    found = accelerator.found
    source = f"/dev/hutch-gpu/{found.address.removeprefix('simulated:')}"
    if found.nodes:
        source = found.nodes[0].path
    inside = f"/dev/hutch-gpu{PurePosixPath(source).name}"
    return (Device(f"gpu-{accelerator.id}", DeviceKind.CHAR, source=source, path=inside),)


def _shared(accelerator: Accelerator) -> tuple[Device, ...]:
    return tuple(
        Device(_shared_name(node), DeviceKind.CHAR, source=node.path)
        for node in accelerator.found.shared
    )


def _shared_name(node: DeviceNode) -> str:
    plain = _UNFIT.sub("-", node.path.removeprefix("/dev/").lower()).strip("-")
    name = f"shared-{plain}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"shared-{sha256(node.path.encode()).hexdigest()[:16]}"


def _address(address: str) -> str:
    """A PCI address with a domain of four digits, as the engine writes it: NVIDIA's has eight."""
    domain, _, rest = address.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


_PLANS: Mapping[Vendor, Callable[[Accelerator], tuple[Device, ...]]] = {
    # With the libraries the node adds `/dev/nvidiactl` and the like at each start.
    Vendor.NVIDIA: _card,
    # `/dev/kfd`: without it a program can draw, but not compute.
    Vendor.AMD: _card_and_shared,
    Vendor.INTEL: _card,
    Vendor.JETSON: _nodes,
    Vendor.CORAL: _nodes,
    Vendor.SIMULATED: _simulated,
}
