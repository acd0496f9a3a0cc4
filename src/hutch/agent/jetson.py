"""What the graphics unit of a Jetson does: from the files of its kernel.

It computes in the memory of the whole machine, so there is no memory of its own to tell of.
"""

from pathlib import Path

from hutch.agent import sysfs
from hutch.domain.accelerators import FoundAccelerator, Reading

_ZONES = {"gpu-thermal", "GPU-therm"}


def read(found: FoundAccelerator, root: Path = Path("/")) -> Reading:
    place = found.address.removeprefix("platform:").partition(".")[0]
    load = _load(root, place)
    temperature = _temperature(root)
    return Reading(
        address=found.address,
        # In thousandths.
        utilisation=None if load is None else min(max(load / 1000, 0.0), 1.0),
        memory_used=None,
        temperature=None if temperature is None else temperature / 1000,
        power=_power(root),
    )


def _load(root: Path, place: str) -> int | None:
    for each in sysfs.entries(root / "sys/class/devfreq"):
        if each.name.startswith(f"{place}."):
            return sysfs.number(each / "device/load")
    return None


def _temperature(root: Path) -> int | None:
    for zone in sysfs.entries(root / "sys/class/thermal"):
        if sysfs.text(zone / "type") in _ZONES:
            return sysfs.number(zone / "temp")
    return None


def _power(root: Path) -> float | None:
    """Watts of the rail that feeds the graphics unit, from the board's own meter (INA3221)."""
    for monitor in sysfs.entries(root / "sys/class/hwmon"):
        for channel in range(1, 4):
            rail = sysfs.text(monitor / f"in{channel}_label") or ""
            millivolts = sysfs.number(monitor / f"in{channel}_input")
            milliamperes = sysfs.number(monitor / f"curr{channel}_input")
            if "GPU" in rail and millivolts is not None and milliamperes is not None:
                return max(0.0, millivolts * milliamperes / 1_000_000)
    return None
