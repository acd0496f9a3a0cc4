"""Which ports something else on this machine already listens on."""

from pathlib import Path

from hutch.domain.nodes import Node

_LISTEN = {"tcp": "0A", "udp": "07"}
"""State of a socket that waits for anyone, in /proc/net: Linux's include/net/tcp_states.h."""


def listening_ports(
    node: Node, protocol: str = "tcp", tables: Path = Path("/proc/net")
) -> frozenset[int]:
    """Ports in use on a node that is this machine; nothing is known of another one.

    A forward to an instance would silently take such a port away from who listens there.
    """
    if not node.url.startswith("unix:"):
        return frozenset()
    found: set[int] = set()
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (tables / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN[protocol]:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)
