"""Devices of the node that a container has on loan.

A device on loan is named `hutch-<name>_` in the container's own devices; no
other is ever read as one, replaced or removed. The name ends in a character that is in no other
place of it on purpose: Incus takes away the device nodes of every device whose name begins with
that of the one it removes, so that with `gpu-1` it would also take those of `gpu-10`.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from hutch.engine.base import Device, DeviceKind
from hutch.engine.incus.client import Client, Json, part
from hutch.errors import EngineConflictError, EngineNotFoundError

Config = dict[str, str]

_PREFIX, _END = "hutch-", "_"
_TRIES = 5
"""How often a container is read and replaced again when others change it in between."""
_FAILED_AT_START = re.compile(r'Failed to start device "([^"]+)"')
NVIDIA_DRIVER: Config = {
    "nvidia.runtime": "true",
    "nvidia.driver.capabilities": "compute,utility",
}
"""What has the node's driver libraries put in at each start."""


def device_name(name: str) -> str:
    """What a device on loan is called in Incus."""
    return f"{_PREFIX}{name}{_END}"


def on_loan(devices: Iterable[str]) -> list[str]:
    """Those of Incus's names that are of devices on loan."""
    return [each for each in devices if each.startswith(_PREFIX) and each.endswith(_END)]


def devices_config(devices: Iterable[Device]) -> dict[str, Config]:
    """Devices as Incus is asked for them."""
    return {device_name(device.name): _config(device) for device in devices}


def _config(device: Device) -> Config:
    # Whose machine it is, may use it: with the node's own mode a card would be root's alone.
    settings = {"mode": "0666"}
    if device.kind is DeviceKind.GPU:
        return {"type": "gpu", "gputype": "physical", "pci": device.pci or "", **settings}
    settings |= {"type": "unix-char", "source": device.source or ""}
    return settings | ({"path": device.path} if device.path else {})


def devices_of(devices: Mapping[str, Config]) -> tuple[Device, ...]:
    """The devices on loan among a container's."""
    found = (_device(name, devices[name]) for name in on_loan(devices))
    return tuple(sorted((each for each in found if each), key=lambda each: each.name))


def _device(name: str, config: Config) -> Device | None:
    """A device read back; None when someone rewrote it into something else."""
    name = name.removeprefix(_PREFIX).removesuffix(_END)
    match config.get("type"):
        case "gpu":
            return Device(name, DeviceKind.GPU, pci=config.get("pci"))
        case "unix-char":
            return Device(
                name, DeviceKind.CHAR, source=config.get("source"), path=config.get("path")
            )
        case _:
            return None


def lost(message: str) -> str | None:
    """Incus's name of the device on loan for whose sake it did not start a container."""
    found = _FAILED_AT_START.search(message)
    return found.group(1) if found and on_loan([found.group(1)]) else None


def driver_config(wanted: bool) -> Config:
    """The settings that put the NVIDIA driver's libraries in or no longer do."""
    return dict(NVIDIA_DRIVER) if wanted else dict.fromkeys(NVIDIA_DRIVER, "")


def has_nvidia_driver(config: Config) -> bool:
    return config.get("nvidia.runtime") == "true"


async def take_away(client: Client, name: str, unwanted: Collection[str]) -> bool:
    """Remove those of a container's devices that it has, by Incus's names; whether it had any."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return await _take_away(client, f"/instances/{part(name)}", unwanted)
        except EngineNotFoundError:
            return False
        except EngineConflictError as error:
            if not tries_left or "ETag" not in error.message:
                raise
    raise AssertionError


async def _take_away(client: Client, path: str, unwanted: Collection[str]) -> bool:
    # Only a whole replacement removes a device; the tag refuses it if anything has changed.
    instance, etag = await client.get_with_etag(path)
    found = [each for each in unwanted if each in instance["devices"]]
    if found:
        body = writable(instance)
        for each in found:
            del body["devices"][each]
        await client.send("PUT", path, body, etag=etag)
    return bool(found)


def writable(instance: Json) -> Json:
    """The part of an instance that a PUT replaces."""
    fields = ("architecture", "config", "description", "devices", "ephemeral", "profiles")
    return {field: instance[field] for field in fields}
