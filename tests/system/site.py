"""A whole hutch for tests: real server processes, the real command line, real ssh, real Incus.

`Site` has a data folder and a database of its own, and a node on the private Incus that the run
started. Everything goes through the doors that people use: the `hutch` command, the API, ssh.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hutch.api.app import open_context
from hutch.domain.nodes import EngineKind
from hutch.domain.people import SYSTEM, Role
from hutch.services import images, nodes, users
from hutch.settings import Settings
from hutch.setup.private import PrivateIncus
from hutch.store import migrate
from tests.engine.incus_fixtures import node_address
from tests.ports import Block, claimed

READY_SECONDS = 20.0


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def run(*argv: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """Run a command to its end; it gets no terminal."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        raise AssertionError(f"{argv} did not end") from None
    return Ran(process.returncode or 0, out.decode(), err.decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Person:
    """Somebody with a home folder of their own, signed in."""

    site: "Site"
    name: str
    home: Path
    key: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            # ssh looks for keys in the home folder of the system's account, not in $HOME.
            "SSH_AUTH_SOCK": str(self.site.folder / "ssh-agent"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    async def hutch(self, *argv: str, stdin: bytes = b"") -> Ran:
        """Run the `hutch` command as this person."""
        return await run("hutch", *argv, env=self.env, stdin=stdin)

    async def ok(self, *argv: str, stdin: bytes = b"") -> Ran:
        """Run a `hutch` command that must succeed."""
        ran = await self.hutch(*argv, stdin=stdin)
        assert ran.code == 0, (argv, ran)
        return ran

    async def show(self, name: str) -> dict[str, Any]:
        return (await self.ok("show", name, "--json")).json()

    async def ssh(self, instance: dict[str, Any], *command: str, key: Path | None = None) -> Ran:
        """Plain OpenSSH, trusting only the host key that hutch told; it may ask nothing."""
        where = instance["ssh"]
        known = self.home / "known_hosts"
        known.write_text(f"[{where['host']}]:{where['port']} {where['host_key']}\n")
        return await run(
            "ssh", "-p", str(where["port"]), "-i", str(key or self.key),
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10",
            # A machine that is stopped under it says nothing any more.
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4",
            "-F", "none", f"{where['user']}@{where['host']}", *command,
        )  # fmt: skip

    async def says(self, instance: dict[str, Any], *command: str) -> str:
        """What a command prints that must succeed over ssh."""
        ran = await self.ssh(instance, *command)
        assert ran.code == 0, (command, ran)
        return ran.out

    async def reaches(self, name: str) -> str:
        """What the machine says it is called, over ssh."""
        return (await self.says(await self.show(name), "hostname")).strip()


async def new_key(path: Path) -> Path:
    """A new SSH key pair; the path of the private half."""
    made = await run(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)
    )
    assert made.code == 0, made
    return path


@dataclass
class Site:
    incus: PrivateIncus
    folder: Path
    port: int
    database_url: str
    ports: Block
    """Host ports that no other run on this machine uses: a hundred for SSH, then for people."""
    settings: dict[str, str] = field(default_factory=dict[str, str])
    passwords: dict[str, str] = field(default_factory=dict[str, str])
    server: asyncio.subprocess.Process | None = None
    agent: asyncio.subprocess.Process | None = None
    """Of the node: it watches simulated accelerators."""
    ssh_agent: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port_first(self) -> int:
        """The first host port that people may lead to a port of theirs."""
        return self.ports.first + 100

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "HUTCH_DATA": str(self.folder / "data"),
            "HUTCH_DATABASE_URL": self.database_url,
            "HUTCH_LISTEN_PORT": str(self.port),
            "HUTCH_SSH_PORT_FIRST": str(self.ports.first),
            "HUTCH_SSH_PORT_LAST": str(self.port_first - 1),
            "HUTCH_PORT_FIRST": str(self.port_first),
            "HUTCH_PORT_LAST": str(self.ports.last),
            "HUTCH_OPERATION_LEASE_SECONDS": "2",
            "HUTCH_RECONCILE_SECONDS": "2",
            **{
                f"HUTCH_{key.upper()}": value.replace("{port}", str(self.port))
                for key, value in self.settings.items()
            },
        }

    async def prepare(self) -> None:
        """The database, the node, the image and an administrator, as the set-up makes them."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(migrate.upgrade, self.database_url)
        context = open_context(Settings(data=self.folder / "data", database_url=self.database_url))
        try:
            await nodes.add(
                context, SYSTEM, name="node1", engine=EngineKind.INCUS, url=self.incus.url,
                address=node_address(), subnet=str(self.incus.subnet),
                project=self.incus.project, pool=self.incus.pool, network=self.incus.network,
            )  # fmt: skip
            await images.add(context, SYSTEM, "base", "Debian")
            _, self.passwords["ada"] = await users.add(context, SYSTEM, "ada", Role.ADMIN)
            _, self.passwords["alice"] = await users.add(context, SYSTEM, "alice", Role.MEMBER)
            _, self.passwords["bob"] = await users.add(context, SYSTEM, "bob", Role.MEMBER)
        finally:
            await context.engines.close()
            await context.db.close()

    async def start(self) -> None:
        """Start a server process and wait until it is ready."""
        log = (self.folder / "server.log").open("ab")
        self.server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from hutch.cli import main; main()", "server",
            env=self.env, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient() as client:
            while time.monotonic() < deadline:
                assert self.server.returncode is None, (self.folder / "server.log").read_text()
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError((self.folder / "server.log").read_text())

    async def kill(self) -> None:
        """kill -9."""
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        await self.server.wait()

    async def stop(self) -> int:
        """Stop it as a service manager does; its exit code."""
        assert self.server is not None
        if self.server.returncode is None:
            self.server.send_signal(signal.SIGTERM)
        return await self.server.wait()

    async def new_agent_token(self) -> None:
        """A token for the agent of the node, in the file where it looks for it."""
        ada = await self.person("ada", key=False)
        made = await ada.ok("node", "token", "node1")
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(made.out)

    @property
    def token_file(self) -> Path:
        return self.folder / "data" / "agent.token"

    @property
    def gpus(self) -> Path:
        """Where the device nodes of this site's simulated accelerators are."""
        return Path(f"/dev/hutch-gpu-{self.port}")

    def steer(self, told: dict[str, dict[str, Any]]) -> None:
        """Let the simulated accelerators do something, by number."""
        file = self.folder / "data" / "simulated-gpus.json"
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(told))
        aside.replace(file)

    async def start_agent(self, gpus: int = 2) -> None:
        """Start the node's agent; it signs in by itself, now or when there is a server."""
        if not self.token_file.exists():
            await self.new_agent_token()
        log = (self.folder / "agent.log").open("ab")
        self.agent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from hutch.cli import main; main()", "agent",
            "--server", self.url, "--simulated-gpus", str(gpus), "--interval", "0.2",
            "--simulated-folder", str(self.gpus),
            env=self.env, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        log.close()

    async def kill_agent(self) -> None:
        """kill -9."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGKILL)
        await self.agent.wait()

    async def stop_agent(self) -> int:
        """Stop it as a service manager does; its exit code."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        return await self.agent.wait()

    async def person(self, name: str, *, key: bool = True) -> Person:
        """Sign somebody in, with a new SSH key registered."""
        home = self.folder / f"home-{name}"
        home.mkdir(exist_ok=True)
        person = Person(self, name, home, home / "id_ed25519")
        password = self.passwords[name].encode()
        await person.ok(
            "login", "--url", self.url, name, "--password-stdin", stdin=password + b"\n"
        )
        if key and not person.key.exists():
            await new_key(person.key)
            await person.ok("key", "add", f"{person.key}.pub")
            await self._hold(person)
        return person

    async def _hold(self, person: Person) -> None:
        """Give a key to an ssh-agent, which the first one starts."""
        if self.ssh_agent is None:
            self.ssh_agent = await asyncio.create_subprocess_exec(
                "ssh-agent", "-D", "-a", str(self.folder / "ssh-agent"),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert self.ssh_agent.stdout is not None
            await self.ssh_agent.stdout.readline()
        held = await run("ssh-add", "-q", str(person.key), env=person.env)
        assert held.code == 0, held

    async def engine_names(self) -> set[str]:
        """The containers that Incus has, seen past hutch."""
        return {each["name"] for each in await self.incus_list()}

    async def incus_list(self) -> list[dict[str, Any]]:
        listed = await self.incus_command("list", "--format=json")
        return json.loads(listed.out)

    async def incus_command(self, *argv: str, stdin: bytes = b"") -> Ran:
        """The `incus` command, as an administrator would use it by hand."""
        return await run(
            "incus", "--project", self.incus.project, *argv,
            env={"INCUS_DIR": str(self.incus.folder), "INCUS_CONF": str(self.folder / "incus")},
            stdin=stdin,
        )  # fmt: skip


@asynccontextmanager
async def open_site(
    incus: PrivateIncus, folder: Path, database_url: str, **settings: str
) -> AsyncGenerator[Site]:
    """A hutch that runs; at the end it is stopped and everything it made is deleted.

    `{port}` in a setting is where it listens.
    """
    with claimed() as ports:
        site = Site(incus, folder, free_port(), database_url, ports, settings)
        await site.prepare()
        await site.start()
        try:
            yield site
        finally:
            if site.server is not None and site.server.returncode is None:
                await site.kill()
            for each in (site.agent, site.ssh_agent):
                if each is not None and each.returncode is None:
                    each.terminate()
                    await each.wait()
            for name in await site.engine_names():
                await site.incus_command("delete", "--force", name)
            shutil.rmtree(site.gpus, ignore_errors=True)
