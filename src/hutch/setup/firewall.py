"""Lets the bridge's traffic through firewalls which other software on the machine set up.

Incus writes its own accepting rules, but in nftables a packet must be accepted by every chain:
Docker sets the policy of FORWARD to drop, and so does ufw, which also refuses the instances' DNS
and DHCP. Run again at each start, since Docker's chains are gone after a reboot:
`python -m hutch.setup.firewall BRIDGE`.
"""

from __future__ import annotations

import shutil
import sys

from hutch.setup.commands import CommandError, run, succeeds

_DIRECTIONS = ("-i", "-o")
_LASTING = ("firewall-cmd", "--permanent")


def problem(bridge: str) -> str | None:
    """Who keeps instances off the network, or None."""
    if _forward_drops() and not all(_has_rule(bridge, way) for way in _DIRECTIONS):
        return "Docker" if _has_chain("DOCKER-USER") else "the policy of iptables' FORWARD chain"
    if _ufw_active() and f"67/udp on {bridge} " not in run(["ufw", "status"]):
        return "ufw"
    if _firewalld_active() and not _in_own_zone(bridge):
        return "firewalld"
    return None


def open_bridge(bridge: str) -> list[str]:
    """Lets the bridge's traffic through; whose firewall was told so."""
    told: list[str] = []
    while (who := problem(bridge)) is not None and who not in told:
        if who == "ufw":
            _open_ufw(bridge)
        elif who == "firewalld":
            _open_firewalld(bridge)
        else:
            _accept_forwarded(bridge)
        told.append(who)
    return told


def _open_ufw(bridge: str) -> None:
    """The host itself is reached for names and addresses alone: its other ports are no business
    of an instance. The rule that `problem` looks for comes last."""
    run(["ufw", "route", "allow", "in", "on", bridge])
    run(["ufw", "route", "allow", "out", "on", bridge])
    for port, protocol in (("53", "tcp"), ("53", "udp"), ("67", "udp")):
        run(["ufw", "allow", "in", "on", bridge, "to", "any", "port", port, "proto", protocol])


def _open_firewalld(bridge: str) -> None:
    """A zone of the bridge's own, named like it, in which only names and addresses are served;
    what is forwarded passes by two policies. (The zone `trusted` would open every port.)"""
    zone = f"--zone={bridge}"
    if not succeeds([*_LASTING, f"--info-zone={bridge}"]):
        run([*_LASTING, f"--new-zone={bridge}"])
    run([*_LASTING, zone, "--set-target=default"])
    run([*_LASTING, zone, "--add-service=dns", "--add-service=dhcp"])
    run([*_LASTING, zone, f"--change-interface={bridge}"])
    _forward_policy(f"{bridge}-o", source=bridge, target="ANY")
    _forward_policy(f"{bridge}-i", source="ANY", target=bridge)
    run(["firewall-cmd", "--reload"])


def _forward_policy(name: str, *, source: str, target: str) -> None:
    policy = f"--policy={name}"
    if not succeeds([*_LASTING, f"--info-policy={name}"]):
        run([*_LASTING, f"--new-policy={name}"])
    run([*_LASTING, policy, f"--add-ingress-zone={source}", f"--add-egress-zone={target}"])
    run([*_LASTING, policy, "--set-target=ACCEPT"])


def _accept_forwarded(bridge: str) -> None:
    for way in _DIRECTIONS:
        if not _has_rule(bridge, way):
            run(["iptables", "-w", "-I", _chain(), *_rule(bridge, way)])


def _chain() -> str:
    """Docker empties its other chains whenever it likes; DOCKER-USER is kept for others."""
    return "DOCKER-USER" if _has_chain("DOCKER-USER") else "FORWARD"


def _rule(bridge: str, way: str) -> list[str]:
    return [way, bridge, "-m", "comment", "--comment", "hutch", "-j", "ACCEPT"]


def _has_rule(bridge: str, way: str) -> bool:
    return succeeds(["iptables", "-w", "-C", _chain(), *_rule(bridge, way)])


def _has_chain(name: str) -> bool:
    return succeeds(["iptables", "-w", "-n", "-L", name])


def _forward_drops() -> bool:
    """Whether iptables' FORWARD chain, if there is one, drops what no rule accepts."""
    if shutil.which("iptables") is None:
        return False
    try:
        return run(["iptables", "-w", "-S", "FORWARD"]).startswith("-P FORWARD DROP")
    except CommandError:
        return False


def _ufw_active() -> bool:
    if shutil.which("ufw") is None:
        return False
    try:
        return "Status: active" in run(["ufw", "status"])
    except CommandError:
        return False


def _firewalld_active() -> bool:
    return shutil.which("firewall-cmd") is not None and succeeds(["firewall-cmd", "--state"])


def _in_own_zone(bridge: str) -> bool:
    return succeeds(["firewall-cmd", f"--zone={bridge}", f"--query-interface={bridge}"])


def main() -> int:
    for who in open_bridge(sys.argv[1]):
        print(f"{who} now lets {sys.argv[1]} through")
    return 0


if __name__ == "__main__":
    sys.exit(main())
