"""A container's network card, and what keeps it from hearing or being anyone else.

Incus filters what a container sends by its MAC and IPv4 address, and port isolation lets frames
pass between the container and the bridge alone. One hole stays open: the bridge learns from a
frame *before* the filter drops it. Root of one container, sending from the MAC address of another,
would so draw everything meant for that other one to itself; and a frame to an address that the
bridge has forgotten goes to every container. So the bridge is told who is where, once, before the
container's first process runs, and learns and floods nothing at its port from then on.
"""

import secrets

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
        "ipv4.address": address,
        "security.mac_filtering": "true",
        "security.ipv4_filtering": "true",
        "security.ipv6_filtering": "true",
        "security.port_isolation": "true",
    }
    return {_HOOK: hook_of(card)}, card


def hook_of(card: Config) -> str:
    """What the node runs between making the card and starting the container.

    The card's end on the node has no fixed name: a crash could leave an interface of that name
    behind, and the container would never start again. It is found by the card's peer instead. When
    it is not, the container does not start: better none than one that is open.
    """
    mac = card["hwaddr"]
    # Made here, of hexadecimal digits: nothing that anyone typed comes into these lines.
    script = (
        "PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin; "
        "cards=$(nsenter --target $LXC_PID --net ip -o link) && "
        f'peer=$(echo "$cards" | sed -nE "s/.*@if([0-9]+):.* {mac} .*/\\1/p") && '
        'port=$(grep -lx "$peer" /sys/class/net/*/ifindex) && '
        "port=${port%/ifindex} && port=${port##*/} && "
        "bridge link set dev $port learning off flood off && "
        f"bridge fdb replace {mac} dev $port master static"
    )
    return f"lxc.hook.start-host = /bin/sh -c '{script}'"


def _random_mac() -> str:
    first = (secrets.randbits(8) & 0b11111100) | 0b10  # unicast, locally administered
    return ":".join(f"{octet:02x}" for octet in (first, *secrets.token_bytes(5)))
