"""Sizes of memory and disk: bytes inside, `4GiB` outside."""

import re

from hutch.errors import InvalidSizeError

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

_UNITS = {
    "": 1, "B": 1,
    "K": KiB, "KIB": KiB, "KB": 1000,
    "M": MiB, "MIB": MiB, "MB": 1000**2,
    "G": GiB, "GIB": GiB, "GB": 1000**3,
    "T": TiB, "TIB": TiB, "TB": 1000**4,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,3}))?\s*([A-Za-z]{0,3})", re.ASCII)
LARGEST = 1024 * TiB
"""Nothing that hutch grants is larger (1 PiB): a typing mistake, not a wish."""


def parse_size(text: str) -> int:
    """Bytes in a text such as `4GiB`, `512MiB`, `1.5T` or `1000000`.

    K, M, G, T alone mean the binary units, as `free -h` and Incus print them. Raises
    InvalidSizeError for anything else, for zero, and above LARGEST.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match.group(3).upper()) if match else None
    if match is None or unit is None:
        raise InvalidSizeError(text, "a number with a unit, such as 512MiB or 4GiB")
    whole, fraction, _ = match.groups()
    # Integers throughout: a float would lose bytes above 2**53.
    size = int(whole) * unit
    if fraction:
        size += int(fraction) * unit // 10 ** len(fraction)
    if not 0 < size <= LARGEST:
        raise InvalidSizeError(text, f"more than 0 and at most {format_size(LARGEST)}")
    return size


def format_size(size: int) -> str:
    """A size as people read it: the largest binary unit, one decimal where it is needed."""
    for unit, name in ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if size >= unit:
            value = size / unit
            return f"{value:.0f}{name}" if size % unit == 0 else f"{value:.1f}{name}"
    return f"{size}B"
