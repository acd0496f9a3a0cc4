"""Which host port, and which address on a node's bridge, goes to whom."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from hutch.errors import InvalidLimitError, NoAddressLeftError, NoPortLeftError, PortTakenError

LOOPBACK = "127.0.0.1"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class PortState(StrEnum):
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class Reach(StrEnum):
    """From where a port is reached."""

    NETWORK = "network"
    """At the node's address: by everyone who reaches the node."""
    NODE = "node"
    """At the node's loopback: by programs of the node itself."""
    WEB = "web"
    """Nowhere. It is an app in a browser, behind hutch's sign-in, and nothing listens for it."""


class OpenTo(StrEnum):
    """Who may open a port in a browser, besides the owner and those who may log in."""

    OWNER = "owner"
    """Nobody else."""
    PEOPLE = "people"
    """Certain people."""
    EVERYONE = "everyone"
    """Everyone who is signed in."""


@dataclass(frozen=True, slots=True)
class Port:
    """What leads to a port of an instance: a host port of its node, or hutch's sign-in alone."""

    id: str
    instance_id: str
    name: str
    """Unique within the instance."""
    protocol: Protocol
    host_port: int | None
    """Unique over all nodes, for each protocol. None for one that is reached in a browser alone."""
    target_port: int
    state: PortState
    reach: Reach
    open_to: OpenTo
    people: tuple[str, ...]
    """The names of whom it is open to."""
    keeps_path: bool
    """In a browser, what listens there is told the whole path, and not what comes after its
    prefix: for programs that have to be told their base path."""
    until: datetime | None
    created_at: datetime | None


RESERVED_ADDRESSES = 10
"""Left free at the start of a subnet: the gateway is one, an administrator may use others."""


def pick_port(first: int, last: int, taken: Collection[int]) -> int:
    """The lowest port from `first` to `last` that nobody has. Raises NoPortLeftError."""
    used = taken if isinstance(taken, set | frozenset) else frozenset(taken)
    for port in range(first, last + 1):
        if port not in used:
            return port
    raise NoPortLeftError(first, last)


def claim_port(wanted: int, first: int, last: int, taken: Collection[int]) -> int:
    """The port that somebody asks for. Raises InvalidLimitError outside the range, and
    PortTakenError when it is somebody's already, or something on the node listens there."""
    if not first <= wanted <= last:
        raise InvalidLimitError("host port", str(wanted), f"{first} to {last}, or none to be given")
    if wanted in taken:
        raise PortTakenError(wanted)
    return wanted


def check_target(port: int) -> int:
    """Return a port's number, or raise InvalidLimitError when no port has it."""
    if not 1 <= port <= 65535:
        raise InvalidLimitError("port", str(port), "1 to 65535")
    return port


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
