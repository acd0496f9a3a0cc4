"""Which host port, and which address on a node's bridge, goes to whom."""

import ipaddress
from collections.abc import Collection
from functools import lru_cache

from hutch.errors import NoAddressLeftError, NoPortLeftError

RESERVED_ADDRESSES = 10
"""Left free at the start of a subnet: the gateway is one, an administrator may use others."""


def pick_port(first: int, last: int, taken: Collection[int]) -> int:
    """The lowest port from `first` to `last` that nobody has. Raises NoPortLeftError."""
    used = taken if isinstance(taken, set | frozenset) else frozenset(taken)
    for port in range(first, last + 1):
        if port not in used:
            return port
    raise NoPortLeftError(first, last)


def pick_address(subnet: str, taken: Collection[str]) -> str:
    """The lowest free address of a subnet, past the reserved ones. Raises NoAddressLeftError."""
    network = _network(subnet)
    used = taken if isinstance(taken, set | frozenset) else frozenset(taken)
    first = int(network.network_address) + RESERVED_ADDRESSES
    for number in range(first, int(network.broadcast_address)):
        address = str(ipaddress.IPv4Address(number))
        if address not in used:
            return address
    raise NoAddressLeftError(subnet)


@lru_cache(maxsize=64)
def _network(subnet: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(subnet, strict=False)
