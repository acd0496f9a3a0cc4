"""The rival: what a person types who has no hutch, run as the same argument vectors.

The image is hutch's own with a host key and the person's key already inside, as a lab's golden
image has them: nobody by hand is faster than that. hutch gives each instance a host key and an
account of its own instead, and its time contains that.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from bench import ssh
from hutch.setup.private import PrivateIncus

IMAGE = "byhand"


@dataclass(frozen=True, slots=True)
class Size:
    """What one instance gets, by hutch and by hand alike."""

    cpus: int = 1
    memory: int = 512 * 1024**2
    disk: int = 10 * 1024**3


@dataclass(frozen=True, slots=True)
class Machine:
    """One container made by hand: a name, its address and the host port that leads to it."""

    name: str
    address: str
    port: int


def create_argv(machine: Machine, size: Size, pool: str, network: str) -> list[str]:
    """`incus init` with the limits, the isolation and the disk that hutch gives."""
    config = {
        "security.idmap.isolated": "true",
        "security.nesting": "true",
        "security.guestapi": "false",
        "limits.cpu.allowance": f"{size.cpus * 100}ms/100ms",
        "limits.memory": str(size.memory),
        "limits.memory.swap": "false",
        "limits.processes": "8192",
    }
    card = {
        "type": "nic",
        "network": network,
        "name": "eth0",
        "ipv4.address": machine.address,
        "security.mac_filtering": "true",
        "security.ipv4_filtering": "true",
        "security.ipv6_filtering": "true",
        "security.port_isolation": "true",
    }
    disk = {"type": "disk", "path": "/", "pool": pool, "size": str(size.disk)}
    argv = ["incus", "init", IMAGE, machine.name, "--quiet", "--no-profiles"]
    argv += _flags("-c", (f"{key}={value}" for key, value in config.items()))
    for name, device in (("root", disk), ("eth0", card)):
        argv += _flags("-d", (f"{name},{key}={value}" for key, value in device.items()))
    return argv


def _flags(flag: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def forward_argv(machine: Machine, host: str, *, nat: bool) -> list[str]:
    """`incus config device add` for the SSH port: in the kernel, or by a process of Incus."""
    target = machine.address if nat else "127.0.0.1"
    return [
        "incus", "config", "device", "add", machine.name, "ssh", "proxy", "--quiet",
        f"listen=tcp:{host}:{machine.port}", f"connect=tcp:{target}:22",
        *(["nat=true"] if nat else []),
    ]  # fmt: skip


class ByHand:
    """Runs the commands on a private Incus."""

    def __init__(self, incus: PrivateIncus, host: str, size: Size, first_port: int) -> None:
        self._incus = incus
        self._host = host
        self._size = size
        self._environment = {**os.environ, **incus.environment()}
        self._numbers = itertools.count()
        self._first_port = first_port
        self._subnet: IPv4Network = incus.subnet
        self._host_key = ""

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def make_image(self, folder: Path, public_key: str) -> None:
        """The golden image: hutch's, with keys in it, never yet started."""
        self._host_key = ssh.make_key(folder / "host")
        authorized = folder / "authorized"
        authorized.write_text(public_key + "\n")
        self.run("incus", "init", "base", "golden", "--quiet")
        push = ("incus", "file", "push", "--quiet", "--uid=0", "--gid=0", "--create-dirs")
        host_key = "golden/etc/ssh/ssh_host_ed25519_key"
        self.run(*push, "--mode=0644", str(folder / "host.pub"), f"{host_key}.pub")
        self.run(*push, "--mode=0600", str(folder / "host"), host_key)
        self.run(*push, "--mode=0600", str(authorized), "golden/root/.ssh/authorized_keys")
        self.run("incus", "publish", "golden", "--alias", IMAGE, "--compression", "none", "--quiet")
        self.run("incus", "delete", "golden", "--quiet")

    def new(self) -> Machine:
        """A name, an address and a port that nobody has. Addresses from the end that hutch does
        not begin at."""
        number = next(self._numbers)
        last = int(self._subnet.broadcast_address) - 2
        address = str(type(self._subnet.network_address)(last - number % 200))
        return Machine(f"hand-{number}", address, self._first_port + number)

    def door(self, machine: Machine) -> ssh.Door:
        return ssh.Door(self._host, machine.port, "root", self._host_key)

    def create(self, machine: Machine, *, nat: bool = True) -> None:
        """Until its SSH server greets at the host port."""
        pool, network = self._incus.pool, self._incus.network
        self.run(*create_argv(machine, self._size, pool, network))
        self.run(*forward_argv(machine, self._host, nat=nat))
        self.start(machine)

    def start(self, machine: Machine) -> None:
        self.run("incus", "start", machine.name, "--quiet")
        self.wait(machine)

    def wait(self, machine: Machine) -> None:
        ssh.wait_for_banner(self._host, machine.port)

    def stop(self, machine: Machine) -> None:
        self.run("incus", "stop", machine.name, "--quiet")

    def snapshot(self, machine: Machine, name: str) -> None:
        self.run("incus", "snapshot", "create", machine.name, name, "--quiet")

    def restore(self, machine: Machine, name: str) -> None:
        """Of a running machine: Incus itself stops it, puts the disk back and starts it."""
        self.run("incus", "snapshot", "restore", machine.name, name, "--quiet")

    def delete(self, machine: Machine) -> None:
        self.run("incus", "delete", "--force", machine.name, "--quiet")
