"""The SSH gateway beside OpenSSH as the jump host: both lead to the same SSH server, in turns.

Everything is on loopback, and every program of the client is OpenSSH's: `ssh` through one of the
two to OpenSSH's server, which stands for an instance's. Then many sessions at once, each of which
says something every second and waits for its echo; their client is asyncssh, in this process.
"""

# asyncssh says nothing of the types that its channels carry.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import asyncssh
from sqlalchemy import select

from bench import databases, machine, openssh, population, ssh
from bench.figures import Comparison, Measure, Report, median, percentile
from bench.openssh import Sshd
from bench.server import HUTCH, Server, free_port
from hutch.api.app import open_context
from hutch.domain.people import SYSTEM
from hutch.services import keys
from hutch.services.context import Context
from hutch.services.hostkeys import gateway_host_key
from hutch.settings import Settings
from hutch.store import nodes
from hutch.store.tables import instances, ports

ADDED, MEGABYTES, SESSIONS, SECONDS = 40.0, 200, 500, 10
_CIPHERS = "aes128-gcm@openssh.com"
"""What `hutch ssh-config` asks for on the way to the gateway; both jump hosts get it."""
_EXCHANGE = "curve25519-sha256"
"""How the gateway exchanges keys. Among themselves OpenSSH's programs choose a dearer way."""
_LINE = b"x" * 63 + b"\n"
_AT_ONCE = 16
_ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Way:
    """Options of ssh that lead to the target, and the host to name at their end."""

    options: list[str]
    host: str


def measure(rounds: int) -> Report:
    report = Report("The gateway beside OpenSSH as the jump host", machine.facts())
    openssh.program()
    with databases.fresh("sqlite") as (folder, url):
        # What stands for an instance's server is another user's, who must get there.
        folder.chmod(0o755)
        key = folder / "key"
        public = ssh.make_key(key)
        target, jump = Sshd(folder / "target", public), Sshd(folder / "jump", public)
        gateway = asyncio.run(_open(folder, url, public, target.port))
        try:
            ways = _ways(folder, key, target, jump, gateway)
            _logins(report, ways, rounds)
            _throughput(report, ways, max(1, rounds // 5))
            asyncio.run(_sessions(report, gateway, key))
        finally:
            gateway.stop()
            jump.stop()
            target.stop()
    report.facts["load at the end"] = f"{machine.load():.2f}"
    return report


# ---- what is measured -------------------------------------------------------------------------


class Gateway:
    """A `hutch gateway` of one process."""

    def __init__(self, folder: Path, url: str, echo_port: int, host_key: str) -> None:
        self.port = free_port()
        self.echo_port = echo_port
        self.host_key = host_key
        settings = Server(folder, database_url=url, gateway_processes=1,
                          gateway_connections_per_person=2 * SESSIONS)  # fmt: skip
        with (folder / "gateway.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*HUTCH, "gateway", "--data", str(folder), "--host", "127.0.0.1",
                 "--port", str(self.port)],
                env=settings.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        ssh.wait_for_banner("127.0.0.1", self.port)

    def stop(self) -> None:
        self._process.send_signal(2)
        self._process.wait()

    def used(self) -> tuple[float, float]:
        """Bytes and processor seconds of the process that does the work."""
        (pid,) = (
            int(each)
            for each in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            .read_text()
            .split()
        )
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return float(resident), spent


async def _open(folder: Path, url: str, public: str, target_port: int) -> Gateway:
    """A lab of one person, whose two instances are the target and one that echoes."""
    context = open_context(Settings(data=folder, database_url=url))
    try:
        settled = await population.settle(context, folder / "engine.db", 1, 2)
        (person,) = settled.members
        await keys.add(context, SYSTEM, public, user=person.name)
        echo_port = free_port()
        await _place(context, person.instances[0], "box", target_port)
        await _place(context, person.instances[1], _ECHO, echo_port)
        host_key, _ = gateway_host_key(context.vault)
        return Gateway(folder, url, echo_port, host_key)
    finally:
        await context.engines.close()
        await context.db.close()


async def _place(context: Context, was: str, name: str, port: int) -> None:
    async with context.db.write() as session:
        for node in await nodes.list_nodes(session):
            await nodes.update_node(session, node.id, address="127.0.0.1")
        found = await session.execute(select(instances.c.id).where(instances.c.name == was))
        (id_,) = found.scalars()
        await session.execute(instances.update().where(instances.c.id == id_).values(name=name))
        moved = ports.update().where(ports.c.instance_id == id_).values(host_port=port)
        await session.execute(moved)


def _ways(folder: Path, key: Path, target: Sshd, jump: Sshd, gateway: Gateway) -> dict[str, Way]:
    known = folder / "known"
    known.write_text(
        f"target {target.host_key}\njump {jump.host_key}\ngateway {gateway.host_key}\n"
    )
    common = ["-F", "none", "-i", str(key), "-o", f"UserKnownHostsFile={known}",
              "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
              "-o", "LogLevel=ERROR"]  # fmt: skip
    at_target = [*common, "-o", "HostKeyAlias=target"]

    def through(alias: str, port: int, to: str, *more: str) -> Way:
        words = ["ssh", *common, "-o", f"HostKeyAlias={alias}", "-o", f"Ciphers={_CIPHERS}", *more,
                 "-p", str(port), "-W", to, f"{openssh.USER}@127.0.0.1"]  # fmt: skip
        return Way([*at_target, "-o", f"ProxyCommand={' '.join(words)}"], "box")

    return {
        "direct": Way([*at_target, "-p", str(target.port)], "127.0.0.1"),
        "hutch": through("gateway", gateway.port, "box:22"),
        "openssh": through("jump", jump.port, f"127.0.0.1:{target.port}"),
        "alike": through(
            "jump", jump.port, f"127.0.0.1:{target.port}", "-o", f"KexAlgorithms={_EXCHANGE}"
        ),
    }


def _seconds(way: Way, command: str, input_: Path | None = None) -> float:
    argv = ["ssh", *way.options, f"{openssh.USER}@{way.host}", command]
    began = time.perf_counter()
    with (input_ or Path(os.devnull)).open("rb") as source:
        subprocess.run(argv, stdin=source, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _in_turns(
    ways: dict[str, Way], rounds: int, one: Callable[[Way], float]
) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        one(way)
    for _ in range(rounds):
        for name, way in ways.items():
            seen[name].append(one(way))
    return seen


def _logins(report: Report, ways: dict[str, Way], rounds: int) -> None:
    seen = _in_turns(ways, rounds, partial(_seconds, command="true"))
    report.comparisons += [
        Comparison("login and `true`", seen["hutch"], seen["openssh"]),
        Comparison("the same, with one exchange of keys", seen["hutch"], seen["alike"]),
    ]
    direct = median(seen["direct"])
    report.measures += [
        Measure("login and `true`, direct", direct * 1000, "ms"),
        Measure("added by the gateway", (median(seen["hutch"]) - direct) * 1000, "ms", ADDED),
        Measure("added by the OpenSSH jump", (median(seen["openssh"]) - direct) * 1000, "ms"),
        Measure(f"added by it with {_EXCHANGE}", (median(seen["alike"]) - direct) * 1000, "ms"),
    ]


def _throughput(report: Report, ways: dict[str, Way], rounds: int) -> None:
    ways = {name: way for name, way in ways.items() if name != "alike"}
    size = MEGABYTES * 1_000_000
    source = Path("/dev/shm") / f"hutch-bench-{os.getpid()}"
    try:
        with source.open("wb") as file:
            file.truncate(size)
        for what, command, input_ in (
            (f"{MEGABYTES} MB to the target", "cat >/dev/null", source),
            (f"{MEGABYTES} MB from it", f"head -c {size} /dev/zero", None),
        ):
            seen = _in_turns(ways, rounds, partial(_seconds, command=command, input_=input_))
            note = f"{MEGABYTES / median(seen['hutch']):.0f} MB/s; direct"
            note += f" {MEGABYTES / median(seen['direct']):.0f} MB/s"
            report.comparisons.append(
                Comparison(what, seen["hutch"], seen["openssh"], most=1.0, note=note)
            )
    finally:
        source.unlink(missing_ok=True)


# ---- many at once -----------------------------------------------------------------------------


async def _sessions(report: Report, gateway: Gateway, key: Path) -> None:
    echo = await asyncio.start_server(_echo, "127.0.0.1", gateway.echo_port)
    before, spent_before = gateway.used()
    gate = asyncio.Semaphore(_AT_ONCE)
    began = time.perf_counter()
    opened = await asyncio.gather(*(_connect(gateway, key, gate) for _ in range(SESSIONS)))
    took = time.perf_counter() - began
    after, spent_connected = gateway.used()
    delays = await asyncio.gather(
        *(_talk(reader, writer, at / SESSIONS) for at, (_, reader, writer) in enumerate(opened))
    )
    _, spent = gateway.used()
    for connection, _, _ in opened:
        connection.abort()
    echo.close()
    told = [each for delays_ in delays for each in delays_]
    lost = SESSIONS * SECONDS - len(told)
    logins = (spent_connected - spent_before) * 1000 / SESSIONS
    report.measures += [
        Measure(f"{SESSIONS} sessions logged in, in", took, "s"),
        Measure("processor time of the gateway for one of these", logins, "ms"),
        Measure(f"{SESSIONS} sessions, an echo each second: lost", lost, "of all", 0),
        Measure("echo, median", median(told) * 1000, "ms"),
        Measure("echo, 99 %", percentile(told, 0.99) * 1000, "ms"),
        Measure(
            "processor of the gateway meanwhile", (spent - spent_connected) * 100 / SECONDS, "%"
        ),
        Measure("memory for a session", (after - before) / SESSIONS / 1000, "kB"),
        Measure("memory of the gateway with all of them", after / 1e6, "MB"),
    ]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _connect(
    gateway: Gateway, key: Path, gate: asyncio.Semaphore
) -> tuple[asyncssh.SSHClientConnection, asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]:
    async with gate:
        connection = await asyncssh.connect(
            "127.0.0.1", gateway.port, username="bench", client_keys=[str(key)], config=None,
            known_hosts=asyncssh.import_known_hosts(f"* {gateway.host_key}\n"), agent_path=None,
            encryption_algs=[_CIPHERS],
        )  # fmt: skip
        opened = cast("Any", await connection.open_connection(_ECHO, 22, encoding=None))
        return connection, *opened


async def _talk(
    reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes], delay: float
) -> list[float]:
    """Seconds until each line came back; those that did not are missing."""
    delays: list[float] = []
    await asyncio.sleep(delay)
    for _ in range(SECONDS):
        began = time.perf_counter()
        writer.write(_LINE)
        try:
            async with asyncio.timeout(30):
                came = await reader.readexactly(len(_LINE))
        except (TimeoutError, OSError, asyncssh.Error, asyncio.IncompleteReadError):
            break
        took = time.perf_counter() - began
        if came == _LINE:
            delays.append(took)
        await asyncio.sleep(max(0.0, 1.0 - took))
    return delays
