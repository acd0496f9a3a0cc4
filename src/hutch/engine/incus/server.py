"""What a server says of itself: its capabilities, and its host's capacity."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from hutch.engine.base import NodeStatus
from hutch.engine.incus.client import Client, Json, part

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Flavour:
    """In what servers differ that speak this API."""

    guest_api: str
    """The setting that gives containers a socket to the server."""
    starts_what_it_creates: bool
    """Whether `start` in a creation is heard, instead of ignored."""


class Server:
    def __init__(self, client: Client, pool: str) -> None:
        self._client = client
        self._pool = pool
        self._flavour: Flavour | None = None
        self._capacity: tuple[str, int, int] | None = None
        self._driver: str | None = None

    async def flavour(self) -> Flavour:
        if self._flavour is None:
            self._flavour = _flavour(cast("Json", await self._client.get("")))
        return self._flavour

    async def storage_driver(self) -> str:
        """What the pool is made of: `btrfs`, `zfs`, ..."""
        if self._driver is None:
            pool = cast("Json", await self._client.get(f"/storage-pools/{part(self._pool)}"))
            self._driver = str(pool["driver"])
        return self._driver

    async def status(self) -> NodeStatus:
        server = cast("Json", await self._client.get(""))
        space = await self._client.get(f"/storage-pools/{part(self._pool)}/resources")
        environment = server["environment"]
        boot_id = _boot_id(int(environment["server_pid"]), local=bool(self._client.socket))
        # A restarted server may have been upgraded, and a restarted host given more memory.
        if self._capacity is None or self._capacity[0] != boot_id:
            self._flavour = _flavour(server)
            self._capacity = (boot_id, *await self._cpus_and_memory())
        _, cpus, memory = self._capacity
        return NodeStatus(
            version=f"{environment['server']} {environment['server_version']}",
            boot_id=boot_id,
            cpus=cpus,
            memory=memory,
            disk=int(space["space"]["total"]),
            disk_used=int(space["space"]["used"]),
        )

    async def _cpus_and_memory(self) -> tuple[int, int]:
        resources = cast("Json", await self._client.get("/resources"))
        return int(resources["cpu"]["total"]), int(resources["memory"]["total"])


def _flavour(server: Json) -> Flavour:
    # A server that does not trust this client says little of itself.
    name = cast("Json", server.get("environment") or {}).get("server", "incus")
    return Flavour(
        guest_api="security.devlxd" if name == "lxd" else "security.guestapi",
        starts_what_it_creates="instance_create_start" in (server.get("api_extensions") or []),
    )


def _boot_id(pid: int, *, local: bool) -> str:
    """A text that changes when the daemon restarts.

    Its process id alone may be the same after a reboot, so on this machine the kernel's boot id
    and the moment the process began are added.
    """
    if not local:
        return f"{pid}"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Field 22; the second field is the program's name in brackets and may hold anything.
        began = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError) as error:
        log.warning("engine's process not found", pid=pid, reason=str(error))
        return f"{pid}"
    return f"{boot}-{pid}-{began}"
