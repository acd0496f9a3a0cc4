"""What hutch needs inside an Incus: a storage pool, a bridge, a project, and its default profile.

Each `ensure_*` looks first and makes only what is missing, and tells whether it made something.
Names and places are all given, so that the tests and the benchmarks prepare an Incus of their own
with the same code. Nothing that does not bear these names is touched.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal, cast

from hutch.domain.sizes import GiB
from hutch.setup.incus_api import IncusApi, IncusApiError, Json
from hutch.setup.subnets import (
    DEFAULT_PREFIX,
    NoFreeSubnetError,
    choose_subnet,
    gateway,
    uplink_networks,
    used_networks,
)

PoolDriver = Literal["zfs", "btrfs", "dir"]

#: Set on every NIC at creation: changing it later costs a running instance its network.
NIC_ISOLATION = {
    "security.mac_filtering": "true",
    "security.ipv4_filtering": "true",
    "security.port_isolation": "true",
}
_SUBNET_TRIES = 5
_VANISHED_TRIES = 10


@dataclass(frozen=True, slots=True)
class Names:
    """What hutch's own things are called inside an Incus."""

    project: str = "hutch"
    network: str = "hutchbr0"
    """A network interface of the host: 15 characters at most."""
    pool: str = "hutch"

    @property
    def acl(self) -> str:
        """Access rules of the bridge."""
        return f"{self.project}-isolation"


def pool_size(folder: Path, share: float = 0.8) -> int:
    """Bytes for the pool's file: most of the free space in `folder`, 20 % and more left over.

    The file takes space only as it fills; this is how large it may become.
    """
    free = shutil.disk_usage(folder).free
    return int(free * share) // GiB * GiB


def ensure_pool(api: IncusApi, name: str, driver: PoolDriver, size: int) -> bool:
    """A pool of its own on a file of `size` bytes (a folder, for the driver `dir`)."""
    if api.find(f"/storage-pools/{name}") is not None:
        return False
    config = {} if driver == "dir" else {"size": f"{size}B"}
    api.call("POST", "/storage-pools", {"name": name, "driver": driver, "config": config})
    return True


def ensure_network(api: IncusApi, name: str, prefix: int = DEFAULT_PREFIX) -> bool:
    """A bridge with NAT, DHCP and DNS on a private network that nothing on the machine uses.

    Raises:
        NoFreeSubnetError: every private network is in use.
    """
    if api.find(f"/networks/{name}") is not None:
        return False
    taken: set[IPv4Network] = set()
    for _ in range(_SUBNET_TRIES):
        subnet = choose_subnet(used_networks(api) | taken, uplink_networks(), prefix)
        try:
            _set_up_bridge(api, "POST", "/networks", _network(name, subnet))
        except IncusApiError:
            # Another bridge may have come up on that network after we looked.
            if api.find(f"/networks/{name}") is not None or subnet not in used_networks(api):
                raise
            taken.add(subnet)
        else:
            return True
    raise NoFreeSubnetError("Another program took every private network that was tried")


def _network(name: str, subnet: IPv4Network) -> Json:
    return {
        "name": name,
        "type": "bridge",
        "config": {
            "ipv4.address": f"{gateway(subnet)}/{subnet.prefixlen}",
            "ipv4.nat": "true",
            "ipv6.address": "none",
            "dns.mode": "managed",
        },
    }


def subnet_of(api: IncusApi, name: str) -> IPv4Network:
    """The IPv4 network of a bridge."""
    network = cast("Json", api.get(f"/networks/{name}"))
    return IPv4Network(network["config"]["ipv4.address"], strict=False)


def ensure_isolation(api: IncusApi, names: Names) -> bool:
    """Keeps instances from each other's packets through the gateway, in the firewall of the node.

    Port isolation on the bridge stops what goes straight from one to another; two that each add
    a route through the bridge's own address still met there (tried: they did). Incus keeps the
    rule and sets it anew at every start. DNS, DHCP, the internet and forwarded ports stay open.
    """
    if is_isolated(api, names):
        return False
    rules = [_isolation_rule(subnet_of(api, names.network))]
    acl = api.find(f"/network-acls/{names.acl}")
    if acl is None:
        api.call("POST", "/network-acls", {"name": names.acl, "egress": rules})
    else:
        api.call("PUT", f"/network-acls/{names.acl}", {**acl, "egress": rules})
    _set_up_bridge(api, "PATCH", f"/networks/{names.network}", {"config": _isolation_config(names)})
    return True


def _set_up_bridge(api: IncusApi, method: str, path: str, body: Json) -> None:
    """Create or change a bridge, which makes Incus look at every interface of the host.

    One that goes away while it looks, because some container stops, makes it give up.
    """
    for attempt in range(_VANISHED_TRIES):
        try:
            api.call(method, path, body)
        except IncusApiError as error:
            vanished = "bridge children" in str(error) and "does not exist" in str(error)
            if not vanished or attempt + 1 == _VANISHED_TRIES:
                raise
        else:
            return


def is_isolated(api: IncusApi, names: Names) -> bool:
    """Whether the rule is there, and the bridge goes by it."""
    acl = api.find(f"/network-acls/{names.acl}")
    network = api.find(f"/networks/{names.network}")
    if acl is None or network is None:
        return False
    config = cast("dict[str, str]", network["config"])
    rules = [_isolation_rule(subnet_of(api, names.network))]
    goes_by_it = all(config.get(key) == value for key, value in _isolation_config(names).items())
    return goes_by_it and acl["egress"] == rules


def _isolation_config(names: Names) -> dict[str, str]:
    return {
        "security.acls": names.acl,
        "security.acls.default.egress.action": "allow",
        "security.acls.default.ingress.action": "allow",
    }


def _isolation_rule(subnet: IPv4Network) -> dict[str, str]:
    first, last = gateway(subnet) + 1, subnet.broadcast_address - 1
    return {
        "action": "drop",
        "description": "Instances do not reach each other through the gateway",
        "destination": f"{first}-{last}",
        "state": "enabled",
    }


def ensure_project(api: IncusApi, name: str) -> bool:
    """A project with images, profiles and volumes of its own, and the machine's networks."""
    if api.find(f"/projects/{name}") is not None:
        return False
    config = {
        "features.images": "true",
        "features.networks": "false",
        "features.profiles": "true",
        "features.storage.volumes": "true",
    }
    description = "Machines made by hutch"
    body: Json = {"name": name, "description": description, "config": config}
    api.call("POST", "/projects", body)
    return True


def ensure_profile(api: IncusApi, names: Names) -> bool:
    """The project's default profile: unprivileged, isolated, on hutch's pool and bridge."""
    if has_profile(api, names):
        return False
    with api.in_project(names.project) as inside:
        inside.call("PUT", "/profiles/default", _profile(names))
    return True


def has_profile(api: IncusApi, names: Names) -> bool:
    with api.in_project(names.project) as inside:
        profile = inside.find("/profiles/default")
    if profile is None:
        return False
    return all(profile[key] == value for key, value in _profile(names).items())


def _profile(names: Names) -> Json:
    return {
        "description": "What every machine made by hutch starts from",
        "config": {"security.idmap.isolated": "true", "security.privileged": "false"},
        "devices": {
            "root": {"type": "disk", "path": "/", "pool": names.pool},
            "eth0": {"type": "nic", "name": "eth0", "network": names.network, **NIC_ISOLATION},
        },
    }
