"""Which private network the bridge of hutch may take: one that nothing on this machine uses.

`choose_subnet` is pure; `used_networks` reads the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

from hutch.setup.commands import CommandError, run
from hutch.setup.incus_api import IncusApi

#: Private ranges (RFC 1918), each searched from a part that other software seldom takes.
BLOCKS = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
)
#: Room for more than the 2,000 instances that one node is made for.
DEFAULT_PREFIX = 20


class NoFreeSubnetError(Exception):
    """Every private network of the wanted size overlaps one that is in use."""


def choose_subnet(
    used: Iterable[IPv4Network],
    uplinks: Iterable[IPv4Network] = (),
    prefix: int = DEFAULT_PREFIX,
) -> IPv4Network:
    """The first free private network, `2**(32 - prefix)` addresses large.

    Blocks in which one of the machine's own `uplinks` lies are tried last: the rest of such a
    block is often the network of the institute, and people there must reach the instances.

    Raises:
        NoFreeSubnetError: none is free.
    """
    taken = [network for network in used if network.prefixlen > 0]
    outside = list(uplinks)
    blocks = sorted(BLOCKS, key=lambda block: any(block.overlaps(up) for up in outside))
    for block in blocks:
        for candidate in _candidates(block, prefix):
            if not any(candidate.overlaps(network) for network in taken):
                return candidate
    raise NoFreeSubnetError(
        f"Every private IPv4 network of size /{prefix} overlaps one that this machine uses"
    )


def _candidates(block: IPv4Network, prefix: int) -> Iterator[IPv4Network]:
    """All networks of the block: the upper half first, since people number from the bottom."""
    if prefix < block.prefixlen:
        return
    lower, upper = block.subnets() if prefix > block.prefixlen else (block, block)
    for half in dict.fromkeys((upper, lower)):
        yield from half.subnets(new_prefix=prefix)


def used_networks(incus: IncusApi | None = None) -> set[IPv4Network]:
    """Every IPv4 network that this machine has a route, an address, a bridge or a server in."""
    found = set(_routes()) | set(_addresses()) | set(_name_servers()) | set(_docker())
    if incus is not None:
        found |= set(_incus_networks(incus))
    return found


def uplink_networks() -> set[IPv4Network]:
    """The networks of the interfaces that carry a default route."""
    rows = _ip("route", "show", "default")
    devices = {str(row["dev"]) for row in rows if "dev" in row}
    return set(_addresses(devices))


def _ip(*args: str) -> list[dict[str, Any]]:
    text = run(["ip", "-4", "-j", *args])
    return cast("list[dict[str, Any]]", json.loads(text or "[]"))


def _routes() -> Iterator[IPv4Network]:
    for row in _ip("route", "show", "table", "all"):
        for field in ("dst", "gateway"):
            yield from _parsed(row.get(field))


def _addresses(devices: set[str] | None = None) -> Iterator[IPv4Network]:
    for row in _ip("addr", "show"):
        if devices is not None and row["ifname"] not in devices:
            continue
        for address in row.get("addr_info", []):
            yield from _parsed(f"{address['local']}/{address['prefixlen']}")


def _parsed(value: object) -> Iterator[IPv4Network]:
    """The network a text names, or nothing (`default`, `broadcast`, IPv6, damage)."""
    try:
        yield IPv4Network(str(value), strict=False)
    except (AddressValueError, ValueError):
        return


def _name_servers() -> Iterator[IPv4Network]:
    """Name servers are often reached through the default route, so no other route names them."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        for match in re.finditer(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
            yield from _parsed(match.group(1))


def _docker() -> Iterator[IPv4Network]:
    """Networks of Docker that have no bridge up just now; none where Docker does not answer."""
    try:
        ids = run(["docker", "network", "ls", "-q"], timeout=5).split()
        text = run(["docker", "network", "inspect", *ids], timeout=10) if ids else "[]"
    except CommandError:
        return
    for network in cast("list[dict[str, Any]]", json.loads(text)):
        plan = cast("dict[str, Any]", network.get("IPAM") or {})
        for pool in cast("list[dict[str, Any]]", plan.get("Config") or []):
            yield from _parsed(pool.get("Subnet"))


def _incus_networks(incus: IncusApi) -> Iterator[IPv4Network]:
    for project in incus.names("/projects"):
        with incus.in_project(project) as api:
            for name in api.names("/networks"):
                network = api.find(f"/networks/{name}")
                config = cast("dict[str, str]", (network or {}).get("config") or {})
                yield from _parsed(config.get("ipv4.address"))


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The bridge's own address: the first of the network."""
    return subnet.network_address + 1
