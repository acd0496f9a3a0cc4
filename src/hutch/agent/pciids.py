"""The names of PCI devices, from the list that the operating system has (`pci.ids`)."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

_PLACES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


@lru_cache(maxsize=64)
def lookup(root: Path, vendor: int, device: int) -> str | None:
    """What people call a device: of `Navi 31 [Radeon RX 7900 XTX]` what is in brackets."""
    for place in _PLACES:
        try:
            with (root / place).open(encoding="utf-8", errors="replace") as lines:
                name = _find(lines, f"{vendor:04x}  ", f"\t{device:04x}  ")
        except OSError:
            continue
        if name is not None:
            marketed = re.search(r"\[([^\]]+)\]$", name)
            return marketed.group(1) if marketed else name
    return None


def _find(lines: Iterable[str], vendor: str, device: str) -> str | None:
    inside = False
    for line in lines:
        if inside and line.startswith(device):
            return line[len(device) :].strip()
        if line.startswith(vendor):
            inside = True
        elif inside and line[:1] not in {"\t", "#"}:
            return None
    return None
