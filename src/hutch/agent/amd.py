"""What AMD's and Intel's cards, and Coral's, do: from the files of their drivers.

AMD's driver tells everything (kernel.org, "AMDGPU Thermal" and "Miscellaneous information"). Those
of Intel and Coral tell temperature and power at most, and no utilisation: nothing is made up.
"""

from pathlib import Path

from hutch.agent import sysfs
from hutch.domain.accelerators import FoundAccelerator, Health, Reading


def read(found: FoundAccelerator, root: Path = Path("/")) -> Reading:
    """A reading of a card on the PCI bus."""
    device = root / "sys/bus/pci/devices" / found.address
    busy = sysfs.number(device / "gpu_busy_percent")
    temperature = sysfs.sensor(device, "temp1_input")
    if temperature is None:
        temperature = _coral_temperature(device)
    power = sysfs.sensor(device, "power1_average", "power1_input")
    health, reason = _health(device)
    return Reading(
        address=found.address,
        utilisation=None if busy is None else min(max(busy / 100, 0.0), 1.0),
        memory_used=sysfs.number(device / "mem_info_vram_used"),
        temperature=None if temperature is None else temperature / 1000,
        power=None if power is None else power / 1_000_000,
        health=health,
        reason=reason,
    )


def _coral_temperature(device: Path) -> int | None:
    found = (sysfs.number(each / "temp") for each in sysfs.entries(device / "apex"))
    return next((each for each in found if each is not None), None)


def _health(device: Path) -> tuple[Health, str]:
    if sysfs.number(device / "vendor") is None:
        return Health.MISSING, "It has fallen off the bus."
    # "ue: 0" and "ce: 0" on lines of their own: errors that could not be corrected, and others.
    told = dict(
        line.split(": ", 1)
        for line in (sysfs.text(device / "ras" / "umc_err_count") or "").splitlines()
        if ": " in line
    )
    lost = told.get("ue", "0").strip()
    if lost.isdecimal() and int(lost) > 0:
        return Health.FAILED, f"Its memory has had {lost} errors that could not be corrected."
    return Health.OK, ""
