"""What is known about one request before anyone has looked at who sent it."""

import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

SCOPE_KEY = "hutch.call"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Call:
    """One request, as the log and the audit will name it."""

    request_id: str
    address: str
    """Where it came from, as far as that can be believed."""
    actor: str | None = None
    """Who it turned out to be."""


def request_id(given: str | None) -> str:
    """The caller's request id if it is one, else a new one: it ends up in logs and in rows."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(8)


def trusted_networks(proxies: Iterable[str]) -> tuple[Network, ...]:
    """The proxies whose word is taken, as addresses or networks; ValueError for anything else."""
    return tuple(ipaddress.ip_network(each, strict=False) for each in proxies)


def client_address(peer: str, forwarded: str | None, trusted: tuple[Network, ...]) -> str:
    """Who sent a request: the peer, or the right-most hop that no trusted proxy vouches against.

    Everything to the left of that hop may have been made up by it. An empty `peer` is a Unix
    socket, which is trusted as its file's rights say who may use it.
    """
    if not forwarded or (peer and not is_trusted(peer, trusted)):
        return peer
    known = peer
    for hop in reversed(forwarded.split(",")):
        address = _normalised(hop.strip())
        if address is None:
            return known
        known = address
        if not is_trusted(address, trusted):
            return address
    return known


@lru_cache(maxsize=1024)
def _normalised(text: str) -> str | None:
    """An address in its one spelling; None for what is no address."""
    try:
        address = ipaddress.ip_address(text[:64])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@lru_cache(maxsize=1024)
def is_trusted(text: str, trusted: tuple[Network, ...]) -> bool:
    """Whether an address is that of a proxy whose word is taken."""
    plain = _normalised(text)
    if plain is None:
        return False
    address = ipaddress.ip_address(plain)
    return any(address.version == each.version and address in each for each in trusted)
