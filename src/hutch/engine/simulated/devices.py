"""Devices of a simulated node: which there are, and which containers have them.

A node has no accelerators until some are put into it. The device nodes `/dev/hutch-gpu/0`, `1`, ...
are always there, also in folders called as each hutch of a machine calls its own: a simulated
accelerator needs no more, and its agent says how many there are.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter

from hutch.domain.accelerators import FoundAccelerator, Vendor
from hutch.engine.base import Device, DeviceKind, check_device_names, check_devices
from hutch.engine.simulated.database import Database
from hutch.errors import EngineError

_SIMULATED = re.compile(r"/dev/[a-z0-9-]*-gpu(-[0-9]+)?/[0-9]+", re.ASCII)
_FOUND = TypeAdapter(FoundAccelerator)
_NULL = (1, 3)
"""Major and minor number of `/dev/null`, which a simulated accelerator's node is one more of."""


class Devices:
    """Calls that are parts of the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # -- of the node ---------------------------------------------------------------------------

    def accelerators(self) -> list[FoundAccelerator]:
        rows = self._db.execute("SELECT found FROM accelerators ORDER BY address")
        return [_FOUND.validate_json(row[0]) for row in rows]

    def add_accelerator(self, found: FoundAccelerator) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO accelerators VALUES (?, ?)",
            found.address,
            _FOUND.dump_json(found).decode(),
        )

    def lose_accelerator(self, address: str) -> None:
        self._db.execute("DELETE FROM accelerators WHERE address = ?", address)

    def refuse_missing_driver(self) -> None:
        if not any(each.vendor is Vendor.NVIDIA for each in self.accelerators()):
            raise EngineError("The NVIDIA container tools couldn't be found on the node.")

    def _numbers(self, device: Device) -> tuple[int, int] | None:
        """Major and minor number of what a device is on the node; None when it is not there."""
        there = self.accelerators()
        if device.kind is DeviceKind.GPU:
            return next((_NULL for each in there if each.address == device.pci), None)
        for accelerator in there:
            for node in (*accelerator.nodes, *accelerator.shared):
                if node.path == device.source:
                    return node.major, node.minor
        return _NULL if _SIMULATED.fullmatch(device.source or "") else None

    # -- of containers -------------------------------------------------------------------------

    def of(self, container: str) -> Iterator[Device]:
        """A container's devices by name."""
        rows = self._db.execute(
            "SELECT * FROM devices WHERE container = ? ORDER BY name", container
        )
        return (_device(row) for row in rows)

    def all(self) -> dict[str, list[Device]]:
        """Every container's devices, those by name."""
        found: dict[str, list[Device]] = {}
        for row in self._db.execute("SELECT * FROM devices ORDER BY name"):
            found.setdefault(row["container"], []).append(_device(row))
        return found

    def put(self, container: str, devices: Sequence[Device], *, at_once: bool) -> None:
        """`at_once` they must be there; else this shows when the container is started."""
        check_devices(devices)
        for device in devices:
            if at_once and self._numbers(device) is None:
                raise EngineError(
                    f"Failed to start device {device.name}: the node has no"
                    f" {device.pci or device.source}.",
                    container=container,
                )
            self._db.execute(
                "INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?)",
                container,
                device.name,
                device.kind,
                device.pci,
                device.source,
                device.path,
            )

    def remove(self, container: str, names: Sequence[str]) -> bool:
        """Whether there was one of them."""
        check_device_names(names)
        removed = [
            self._db.execute(
                "DELETE FROM devices WHERE container = ? AND name = ?", container, name
            ).rowcount
            for name in names
        ]
        return any(removed)

    def drop_lost(self, container: str) -> None:
        """Take from a container that starts what the node has no longer."""
        lost = [each.name for each in self.of(container) if self._numbers(each) is None]
        self.remove(container, lost)

    def node_inside(self, container: str, path: str) -> tuple[int, int] | None:
        """Major and minor number of a device node inside a running container."""
        for device in self.of(container):
            if path == (device.path or device.source):
                return self._numbers(device)
        return None


def _device(row: Any) -> Device:
    return Device(
        row["name"], DeviceKind(row["kind"]), pci=row["pci"], source=row["source"], path=row["path"]
    )
