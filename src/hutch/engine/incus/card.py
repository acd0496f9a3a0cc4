"""A container's network card, and what keeps it from hearing or being anyone else.

Incus filters what a container sends by its MAC and IPv4 address, and port isolation lets frames
pass between the container and the bridge alone. One hole stays open: the bridge learns from a
frame *before* the filter drops it. Root of one container, sending from the MAC address of another,
would so draw everything meant for that other one to itself; and a frame to an address that the
bridge has forgotten goes to every container. So the bridge is told who is where, once, before the
container's first process runs, and learns and floods nothing at its port from then on.
"""

import secrets

from hutch.engine.incus.client import Json
from hutch.errors import EngineError

Config = dict[str, str]

_HOOK = "raw.lxc"


def new(network: str, address: str) -> tuple[Config, Config]:
    """Settings of the container, and its card `eth0`, on a bridge and with one address.

    Set whole at creation: changing the card of a running container may lose its network.
    """
    card = {
        "type": "nic",
        "network": network,
        "name": "eth0",
        # Known here because the bridge is told; drawn from 2**46, so that nobody guesses it.
        "hwaddr": _random_mac(),
        "host_name": _random_name(),
        "ipv4.address": address,
        "security.mac_filtering": "true",
        "security.ipv4_filtering": "true",
        "security.ipv6_filtering": "true",
        "security.port_isolation": "true",
    }
    return {_HOOK: _hook(card)}, card


def renamed(instance: Json) -> Json:
    """What to PATCH so that the card's end on the node has another name."""
    card: Config | None = instance["devices"].get("eth0")
    if card is None or "hwaddr" not in card:
        raise EngineError(f"Container {instance['name']} has no network card of hutch's making.")
    card = {**card, "host_name": _random_name()}
    return {"config": {_HOOK: _hook(card)}, "devices": {"eth0": card}}


def is_name_taken(error: EngineError) -> bool:
    """Whether a start failed because a crash left an interface of the card's name behind."""
    return "veth interfaces" in error.message and "File exists" in error.message


def _hook(card: Config) -> str:
    port, mac = card["host_name"], card["hwaddr"]
    # Both made here, of hexadecimal digits: nothing that anyone typed comes into this line.
    return (
        "lxc.hook.start-host = /bin/sh -c 'PATH=$PATH:/usr/sbin:/sbin; "
        f"bridge link set dev {port} learning off flood off && "
        f"bridge fdb replace {mac} dev {port} master static'"
    )


def _random_mac() -> str:
    first = (secrets.randbits(8) & 0b11111100) | 0b10  # unicast, locally administered
    return ":".join(f"{octet:02x}" for octet in (first, *secrets.token_bytes(5)))


def _random_name() -> str:
    return f"hu-{secrets.token_hex(4)}"
