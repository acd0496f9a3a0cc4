"""A real gateway at a real site, and people who come through it with OpenSSH's own programs.

`Door` starts gateways; `Visitor` is somebody with the configuration that hutch writes for them.
"""

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hutch.domain.ssh_config import KNOWN_HOSTS
from tests.gateway.house import Running, start_gateway
from tests.system.site import Person, Ran, Site, run

PATIENCE = 60.0


@dataclass
class Door:
    site: Site
    port: int
    running: list[Running] = field(default_factory=list[Running])

    async def gateway(self, **settings: str) -> Running:
        """Start a gateway, perhaps beside another."""
        more = {f"HUTCH_{key.upper()}": value for key, value in settings.items()}
        env = {**self.site.env, "HUTCH_GATEWAY_PROCESSES": "1", **more}
        running = await start_gateway(self.site.folder, env, self.port)
        self.running.append(running)
        return running

    async def close(self) -> None:
        for each in self.running:
            await each.stop()

    async def visitor(self, person: Person) -> "Visitor":
        """Write the configuration that `hutch ssh-config` gives; only paths are another's."""
        told = (await person.ok("ssh-config", "--json")).json()
        known = person.home / "known_lab"
        known.write_text(told["known_hosts"])
        config = person.home / "ssh_config"
        own = ("BatchMode yes", "IdentitiesOnly yes", f"IdentityFile {person.key}")
        config.write_text("\n".join([*own, told["config"].replace(KNOWN_HOSTS, str(known))]))
        return Visitor(person, config)


@dataclass
class Visitor:
    person: Person
    config: Path

    async def run(self, program: str, *argv: str, stdin: bytes = b"") -> Ran:
        """Run ssh, scp or sftp with the configuration."""
        return await run(program, "-F", str(self.config), *argv, env=self.person.env, stdin=stdin)

    async def ok(self, program: str, *argv: str, stdin: bytes = b"") -> str:
        ran = await self.run(program, *argv, stdin=stdin)
        assert ran.code == 0, (program, argv, ran)
        return ran.out

    async def says(self, host: str, command: str, stdin: bytes = b"") -> str:
        return await self.ok("ssh", host, command, stdin=stdin)

    async def other(self, *argv: str, **env: str) -> Ran:
        """Run a program that calls ssh by itself."""
        return await run(*argv, env={**self.person.env, **env})

    @asynccontextmanager
    async def session(self, *argv: str) -> AsyncGenerator["Session"]:
        """An ssh that goes on until the end of the block."""
        process = await asyncio.create_subprocess_exec(
            "ssh", "-F", str(self.config), *argv,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, **self.person.env},
        )  # fmt: skip
        try:
            yield Session(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass
class Session:
    process: Process

    async def echoes(self, text: str) -> None:
        """Its other end is `cat`, and says again what it is told."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        assert await self.line() == text

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def ended(self, patience: float = PATIENCE) -> str:
        """What it says at its end, which comes by itself."""
        assert self.process.stderr is not None
        try:
            async with asyncio.timeout(patience):
                said = await self.process.stderr.read()
                await self.process.wait()
        except TimeoutError:
            raise AssertionError("the session hangs") from None
        return said.decode()
