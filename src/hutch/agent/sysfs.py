"""Reading the small files in which the kernel tells about devices.

Everything takes the folder that stands for `/`, so that recorded trees can be read as well. What
cannot be read is None: a card that is just being taken out is no reason to fail.
"""

import re
from pathlib import Path

from hutch.domain.accelerators import DeviceNode

_LARGEST = 64 * 1024


def text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace").strip("\0 \n\t")
    except OSError:
        return None


def number(path: Path) -> int | None:
    """An integer, also in hexadecimal as `0x10de`."""
    found = text(path)
    try:
        return None if found is None else int(found, 0)
    except ValueError:
        return None


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing when it is not there."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def driver(device: Path) -> str | None:
    """The name of the driver that has taken a device."""
    try:
        return (device / "driver").readlink().name
    except OSError:
        return None


def device_nodes(root: Path) -> dict[str, DeviceNode]:
    """Every character device that the kernel told udev of, by its name below `/dev`."""
    found: dict[str, DeviceNode] = {}
    for entry in entries(root / "sys/dev/char"):
        numbers = re.fullmatch(r"(\d+):(\d+)", entry.name)
        named = re.search(r"^DEVNAME=(.+)$", text(entry / "uevent") or "", re.MULTILINE)
        if numbers and named:
            name = named.group(1)
            major, minor = (int(part) for part in numbers.groups())
            found[name] = DeviceNode(f"/dev/{name}", major, minor)
    return found


def sensor(device: Path, *names: str) -> int | None:
    """The first of these files that a device's hardware monitor has."""
    for monitor in entries(device / "hwmon"):
        for name in names:
            found = number(monitor / name)
            if found is not None:
                return found
    return None
