"""A database with people and machines, gateway processes on it, and real ssh.

The machines are rows whose SSH port leads to a server of the test's own, which runs what it is told
in a shell: what the gateway carries is real, what is at the end need not be. The real thing is in
`tests/system/test_gateway.py`.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
import httpx

from hutch.domain.events import Event
from hutch.domain.ids import new_id
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor, Role, User
from hutch.services import instances as services
from hutch.services import keys, tokens
from hutch.services.context import Context, utc_now
from hutch.services.hostkeys import gateway_host_key
from hutch.services.instances import Wish
from hutch.services.vault import open_vault
from hutch.store import events, instances, nodes, users
from hutch.store.tables import containers, login_failures, operations, ports
from tests import lab as labs
from tests.system.site import Ran, free_port, new_key, run

READY_SECONDS = 30.0
PASSWORD = "a password of the tests"
HUTCH = (sys.executable, "-c", "from hutch.cli import main; main()")


@dataclass
class Running:
    """A gateway that was started with `hutch gateway`."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            await self.ended()

    async def workers(self) -> list[int]:
        """The processes that do the work."""
        listed = await run("pgrep", "-P", str(self.process.pid), "-f", "hutch.gateway.worker")
        return [int(word) for word in listed.out.split()]

    async def memory(self) -> int:
        """What the workers hold, in bytes."""
        held = 0
        for pid in await self.workers():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    held += int(line.split()[1]) * 1024
        return held


@dataclass
class Resident:
    """Somebody with an account and a key of their own."""

    house: "House"
    actor: Actor
    key: Path

    @property
    def name(self) -> str:
        return self.actor.name

    def options(self, gateway: Running, *, key: Path | None = None, **more: str) -> list[str]:
        """Of ssh, for a connection to the gateway itself: it may ask nothing, and trusts nobody."""
        known = self.house.known_hosts(gateway)
        options = {
            "UserKnownHostsFile": str(known),
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key or self.key),
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            **more,
        }
        flat = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "none", "-p", str(gateway.port), *flat]

    def through(
        self, gateway: Running, *, user: str = "anybody", key: Path | None = None, **more: str
    ) -> list[str]:
        """Options that lead any ssh program through the gateway."""
        jump = ["ssh", *self.options(gateway, key=key, **more), "-W", "[%h]:%p"]
        return [
            "-F", "none", "-o", f"ProxyCommand={' '.join(jump)} {user}@127.0.0.1",
            "-o", f"UserKnownHostsFile={self.house.machines_known()}",
            "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
            "-o", "HostKeyAlias=machine",
        ]  # fmt: skip

    async def ssh(
        self, gateway: Running, name: str, *command: str, stdin: bytes = b"", **how: Any
    ) -> Ran:
        """Log in to a machine through the gateway, as `ssh -J` does."""
        port = how.pop("port", 22)
        return await run(
            "ssh", *self.through(gateway, **how), "-p", str(port), f"{self.name}@{name}", *command,
            stdin=stdin,
        )  # fmt: skip

    async def forward(
        self, gateway: Running, target: str, *, stdin: bytes = b"", **how: Any
    ) -> Ran:
        """Ask the gateway for a way to `target`, HOST:PORT, and send some bytes there."""
        options = self.options(gateway, **how)
        return await run("ssh", *options, "-W", target, "anybody@127.0.0.1", stdin=stdin)

    async def lab(self, gateway: Running, *command: str, stdin: bytes = b"", **how: Any) -> Ran:
        """Log in to the gateway itself."""
        user = how.pop("user", "anybody")
        options = self.options(gateway, **how)
        return await run("ssh", *options, f"{user}@127.0.0.1", *command, stdin=stdin)


@dataclass
class House:
    context: Context
    folder: Path
    database_url: str
    hashed: str
    node_id: str
    machines: dict[str, asyncssh.SSHAcceptor] = field(default_factory=dict[str, Any])
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list[Any])
    """Those that the machines' SSH servers have."""
    running: list[Running] = field(default_factory=list[Running])
    server: asyncio.subprocess.Process | None = None
    server_port: int = 0

    # ---- people and machines ------------------------------------------------------------------

    async def person(self, name: str = "", role: Role = Role.MEMBER) -> Resident:
        """Somebody new, with a key that is registered and a password, PASSWORD."""
        name = name or f"p{new_id()[:8]}"
        key = await new_key(self.folder / name)
        user = User(new_id(), name, role, None, utc_now(), 0, self.context.settings.default_quota)
        async with self.context.db.write() as session:
            await users.add_user(session, user, self.hashed)
        actor = Actor(user.id, name, role)
        await keys.add(self.context, actor, Path(f"{key}.pub").read_text())
        return Resident(self, actor, key)

    async def machine(self, owner: Resident, name: str = "box", port: int = 0) -> Instance:
        """A running machine of somebody's; with `port` something else is its SSH server."""
        made, operation = await services.create(self.context, owner.actor, Wish(name))
        is_served = bool(port)
        port = port or free_port()
        async with self.context.db.write() as session:
            # Its creation is over: there is no server that would carry it out.
            await session.execute(operations.delete().where(operations.c.id == operation.id))
            moved = ports.update().where(ports.c.instance_id == made.id).values(host_port=port)
            await session.execute(moved)
            await instances.set_state(session, made.id, InstanceState.RUNNING)
        if not is_served:
            self.machines[made.id] = await self._serve(port)
        return replace(made, state=InstanceState.RUNNING, ssh_port=port)

    async def _serve(self, port: int) -> asyncssh.SSHAcceptor:
        """An SSH server that lets everyone in and runs what it is told in a shell."""
        return await asyncssh.listen(
            "127.0.0.1", port, server_factory=lambda: _Anyone(self.connections),
            server_host_keys=[str(self.folder / "machine")], process_factory=_in_a_shell,
            encoding=None, line_editor=False,
        )  # fmt: skip

    async def set_state(self, machine: Instance, state: InstanceState) -> None:
        async with self.context.db.write() as session:
            await instances.set_state(session, machine.id, state)

    async def remove(self, machine: Instance) -> None:
        """As its deletion leaves it: there is no such machine."""
        async with self.context.db.write() as session:
            await session.execute(containers.delete().where(containers.c.instance_id == machine.id))
            await instances.delete_instance(session, machine.id)

    async def state(self, machine: Instance) -> InstanceState:
        async with self.context.db.read() as session:
            found = await instances.get_instance(session, machine.id)
        assert found is not None
        return found.state

    async def forget_failures(self) -> None:
        """No address and no name has guessed wrong."""
        async with self.context.db.write() as session:
            await session.execute(login_failures.delete())

    async def events(self, action: str, by: str | None = None) -> list[Event]:
        """The newest first."""
        async with self.context.db.read() as session:
            return await events.list_events(session, limit=50, action=action, actor=by)

    # ---- gateways -----------------------------------------------------------------------------

    async def gateway(self, *, port: int = 0, **settings: Any) -> Running:
        """Start a gateway, and wait until it answers."""
        environment = {
            **os.environ,
            "HUTCH_DATA": str(self.folder),
            "HUTCH_DATABASE_URL": self.database_url,
            "HUTCH_GATEWAY_PROCESSES": "1",
            "HUTCH_LISTEN_PORT": str(self.server_port or 1),
            **{f"HUTCH_{key.upper()}": str(value) for key, value in settings.items()},
        }
        running = await start_gateway(self.folder, environment, port or free_port())
        self.running.append(running)
        return running

    async def start_server(self) -> None:
        """A `hutch server` on the same database, for what is asked of the gateway itself."""
        self.server_port = self.server_port or free_port()
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.server = await asyncio.create_subprocess_exec(
                *HUTCH, "server", "--port", str(self.server_port),
                env={
                    **os.environ,
                    "HUTCH_DATA": str(self.folder),
                    "HUTCH_DATABASE_URL": self.database_url,
                },
                stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while not await asyncio.to_thread(_is_ready, self.server_port):
            assert self.server.returncode is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.05)

    async def stop_server(self) -> None:
        if self.server is not None and self.server.returncode is None:
            self.server.kill()
            await self.server.wait()

    def known_hosts(self, gateway: Running) -> Path:
        file = self.folder / f"known-{gateway.port}"
        public, _ = gateway_host_key(self.context.vault)
        file.write_text(f"[127.0.0.1]:{gateway.port} {public}\n")
        return file

    def machines_known(self) -> Path:
        file = self.folder / "known-machines"
        file.write_text(f"machine {(self.folder / 'machine.pub').read_text()}")
        return file


async def start_gateway(folder: Path, environment: dict[str, str], port: int) -> Running:
    """Start a gateway, and wait until it answers."""
    log = folder / f"gateway-{new_id()[:6]}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *HUTCH, "gateway", "--host", "127.0.0.1", "--port", str(port),
            env=environment, stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    running = Running(process, port, log)
    # Another one may answer at the same port already.
    await _until(lambda: "Listening" in log.read_text() and _greets(port), running)
    return running


@asynccontextmanager
async def open_house(folder: Path, database_url: str) -> AsyncIterator[House]:
    """A database with a node; at the end everything that was started is stopped."""
    await new_key(folder / "machine")
    context = labs.open_context(database_url, folder)
    vault = open_vault(folder / "secret.key")
    context = replace(context, vault=vault)
    lab = await labs.fill(context.db, folder / "engine.db", context.settings.default_quota)
    async with context.db.write() as session:
        await nodes.update_node(session, lab.node.id, address="127.0.0.1")
    hashed = await tokens.hash_password(PASSWORD)
    house = House(context, folder, database_url, hashed, lab.node.id)
    try:
        yield house
    finally:
        for gateway in house.running:
            await gateway.stop()
        await house.stop_server()
        for machine in house.machines.values():
            machine.close()
        await labs.close_context(context)


class _Anyone(asyncssh.SSHServer):
    def __init__(self, connections: list[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return False


async def _in_a_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", process.command or "cat",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    feeding = asyncio.create_task(_feed(process, child.stdin))
    await asyncio.gather(
        _pass_on(child.stdout, process.stdout), _pass_on(child.stderr, process.stderr)
    )
    feeding.cancel()
    process.exit(await child.wait())


async def _feed(process: asyncssh.SSHServerProcess[bytes], to: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await process.stdin.read(65536):
            to.write(data)
            await to.drain()
    to.close()


async def _pass_on(source: asyncio.StreamReader, to: asyncssh.SSHWriter[bytes]) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            to.write(data)
            await to.drain()


async def _until(holds: Callable[[], bool], running: Running) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(holds):
        assert running.process.returncode is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        await asyncio.sleep(0.05)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(64).startswith(b"SSH-2.0-hutch")
    except OSError:
        return False
