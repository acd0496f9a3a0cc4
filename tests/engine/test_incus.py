"""What the contract cannot say: a real Incus that is killed, restarted and rebooted, what is left
of calls that were broken off, and that forwards carry traffic."""

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
import structlog

from hutch.domain.ids import new_engine_name
from hutch.domain.people import SshKey
from hutch.engine.base import Change, ContainerSpec, Forward, Power
from hutch.engine.incus import IncusEngine
from hutch.errors import EngineConflictError, EngineError, EngineUnavailableError
from hutch.operations.provision import put_notice, put_person
from hutch.setup.private import PrivateIncus
from tests.engine.contract import Site, opens, seen, soon

pytestmark = pytest.mark.incus

GREETER = "import socket\ns = socket.create_server(('', 22))\nwhile 1: s.accept()[0].send(b'SSH-2')"


@pytest.fixture
def site(incus_site: Site) -> Site:
    return incus_site


@pytest.fixture
def engine(incus_engine: IncusEngine) -> IncusEngine:
    return incus_engine


@pytest_asyncio.fixture
async def forwarded(site: Site, engine: IncusEngine) -> AsyncIterator[tuple[str, Forward]]:
    """A running container with a forwarded port, behind which something greets."""
    forward = site.forward()
    spec = site.spec(forwards=(forward,))
    await engine.create(spec, start=True)
    yield spec.name, forward
    await engine.delete(spec.name)


async def greets(engine: IncusEngine, name: str, forward: Forward) -> bool:
    await engine.exec(name, ["sh", "-c", f'setsid python3 -c "{GREETER}" > /dev/null 2>&1 &'])
    where = (forward.listen_address, forward.listen_port)
    return await engine.wait_for_banner(name, *where, timeout=15)


async def until_answers(engine: IncusEngine) -> None:
    async def answers() -> bool:
        with contextlib.suppress(EngineUnavailableError):
            return bool(await engine.status())
        return False

    assert await soon(answers, within=60)


class TestForward:
    async def test_leads_there_from_the_node_itself(
        self, engine: IncusEngine, forwarded: tuple[str, Forward]
    ):
        assert await greets(engine, *forwarded)

    async def test_and_limits_outlive_a_restart_and_a_reboot_of_the_node(
        self, engine: IncusEngine, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded
        assert await greets(engine, *forwarded)
        before = await seen(engine, name)
        boot = (await engine.status()).boot_id

        await incus.restart()
        await until_answers(engine)
        assert await greets(engine, *forwarded), "after a restart of the daemon"
        assert await seen(engine, name) == before
        after_restart = (await engine.status()).boot_id
        assert after_restart != boot

        await incus.reboot()
        await until_answers(engine)
        assert await soon(lambda: _runs(engine, name), within=30), "what ran does not run again"
        assert await seen(engine, name) == before
        assert await greets(engine, *forwarded), "after a reboot"
        assert (await engine.status()).boot_id not in {boot, after_restart}

    async def test_of_a_stopped_one_stays_stopped_after_a_reboot(
        self, engine: IncusEngine, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded
        await engine.snapshot(name, "while-running")
        await engine.stop(name, timeout=0)
        # A snapshot of a running one must not make it one that ran.
        await engine.restore(name, "while-running")
        await incus.reboot()
        await until_answers(engine)
        await engine.start(name)
        assert await _runs(engine, name)
        await engine.stop(name, timeout=0)


async def _runs(engine: IncusEngine, name: str) -> bool:
    return (await seen(engine, name)).power is Power.RUNNING


class TestEvents:
    async def test_after_a_restart_say_that_some_may_be_missing(
        self, site: Site, engine: IncusEngine, incus: PrivateIncus
    ):
        told: asyncio.Queue[Change] = asyncio.Queue()

        async def listen() -> None:
            async for change in engine.changes():
                told.put_nowait(change)

        async def next_is(wanted: Change | str) -> None:
            async with asyncio.timeout(30):
                while (change := await told.get()) != wanted and change.name != wanted:
                    pass

        name = new_engine_name()
        listening = asyncio.create_task(listen())
        try:
            await engine.containers()
            await incus.kill()
            try:
                assert await soon(lambda: _is_away(engine)), "the listing outlives the engine"
            finally:
                await incus.restart()
            await next_is(Change(None, "reconnected"))
            await engine.create(site.spec(name))
            await next_is(name)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await engine.delete(name)

    async def test_keep_the_listing_true_when_someone_else_changes_things(
        self, engine: IncusEngine, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded

        async def listed() -> dict[str, Any]:
            return {each.name: each for each in await engine.containers()}

        assert (await listed())[name].limits
        await _incus(incus, "config", "set", name, "limits.memory=25%")

        async def shows_it() -> bool:
            return (await listed())[name].limits is None

        assert await soon(shows_it)
        await _incus(incus, "stop", "--force", name)

        async def shows_stopped() -> bool:
            return (await listed())[name].power is Power.STOPPED

        assert await soon(shows_stopped)


async def _is_away(engine: IncusEngine) -> bool:
    try:
        await engine.containers()
    except EngineUnavailableError:
        return True
    return False


async def _incus(incus: PrivateIncus, *arguments: str) -> str:
    def run() -> str:
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", **incus.environment()}
        done = subprocess.run(
            ["incus", *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    return await asyncio.to_thread(run)


class TestBrokenOff:
    """hutch dies, or Incus does, between asking and learning the answer."""

    @pytest.mark.parametrize("after", [0.01, 0.05, 0.15, 0.3])
    async def test_creation_is_taken_up_again(self, site: Site, engine: IncusEngine, after: float):
        spec = site.spec()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after):
                await engine.create(spec, start=True)
        await engine.create(spec, start=True)
        found = await seen(engine, spec.name)
        assert (found.power, found.limits) == (Power.RUNNING, spec.limits)
        assert (await engine.exec(spec.name, ["true"])).code == 0
        await engine.delete(spec.name)

    @pytest.mark.parametrize("after", [0.02, 0.05, 0.06, 0.1, 0.2, 0.4])
    async def test_creation_while_incus_is_killed_leaves_one_that_works(
        self, site: Site, engine: IncusEngine, incus: PrivateIncus, after: float
    ):
        spec = site.spec()
        creating = asyncio.create_task(engine.create(spec, start=True))
        await asyncio.sleep(after)
        await incus.kill()
        await asyncio.gather(creating, return_exceptions=True)
        await incus.restart()
        await until_answers(engine)
        await _create_at_last(engine, spec)
        assert await _works(engine, spec)
        await engine.delete(spec.name)
        assert await engine.get(spec.name) is None

    async def test_program_does_not_go_on_inside(
        self, engine: IncusEngine, forwarded: tuple[str, Forward]
    ):
        name, _ = forwarded
        running = asyncio.create_task(engine.exec(name, ["sleep", "765.4"]))

        async def is_there() -> bool:
            return (await engine.exec(name, ["pgrep", "-f", "sleep 765.4"])).code == 0

        async def is_gone() -> bool:
            return not await is_there()

        assert await soon(is_there)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await soon(is_gone)

    async def test_program_is_unavailable_when_incus_dies(
        self, engine: IncusEngine, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded
        running = asyncio.create_task(engine.exec(name, ["sleep", "20"]))
        await asyncio.sleep(0.5)
        await incus.kill()
        with pytest.raises(EngineUnavailableError):
            await running
        await incus.restart()
        await until_answers(engine)


async def _create_at_last(engine: IncusEngine, spec: ContainerSpec) -> None:
    """As an operation does: again, as long as the engine is busy with starting up."""
    end = time.monotonic() + 100
    while True:
        try:
            return await engine.create(spec, start=True)
        except (EngineConflictError, EngineUnavailableError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def _works(engine: IncusEngine, spec: ContainerSpec) -> bool:
    found = await seen(engine, spec.name)
    ran = await engine.exec(spec.name, ["cat", "/etc/passwd"])
    return (found.power, found.limits, ran.code) == (Power.RUNNING, spec.limits, 0)


class TestDevices:
    async def test_are_one_request_to_attach_and_three_to_detach(
        self, engine: IncusEngine, site: Site, forwarded: tuple[str, Forward], requests: list[str]
    ):
        name, _ = forwarded
        devices = [site.device(), site.device()]
        await engine.attach(name, devices)
        assert requests == ["PATCH"]
        requests.clear()
        await engine.detach(name, [device.name for device in devices])
        assert requests == ["GET", "PUT", "GET"], "the last waits until it is done"

    async def test_go_although_another_changes_the_container_meanwhile(
        self,
        engine: IncusEngine,
        site: Site,
        forwarded: tuple[str, Forward],
        monkeypatch: pytest.MonkeyPatch,
    ):
        name, _ = forwarded
        device, read = site.device(), engine._client.get_with_etag
        numbers = iter(range(3))

        async def read_before_another_writes(path: str) -> tuple[dict[str, Any], str]:
            answer = await read(path)
            for number in numbers:
                await engine.set_labels(name, {"another": str(number)})
                break
            return answer

        await engine.attach(name, [device])
        monkeypatch.setattr(engine._client, "get_with_etag", read_before_another_writes)
        await engine.detach(name, [device.name])
        found = await seen(engine, name)
        assert (found.devices, found.labels["another"]) == ((), "2")

    async def test_that_somebody_put_in_by_hand_are_left_alone(
        self, engine: IncusEngine, site: Site, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded
        theirs, ours = site.device("theirs"), site.device("ours")
        environment = {**os.environ, **incus.environment()}
        add = ["incus", "config", "device", "add", name]
        for called in ("theirs", "hutch-theirs", "theirs_"):
            argv = [*add, called, "unix-char", f"source={theirs.source}", f"path=/dev/{called}"]
            await asyncio.to_thread(subprocess.run, argv, env=environment, check=True)
        await engine.attach(name, [ours])
        assert (await seen(engine, name)).devices == (ours,)
        await engine.detach(name, ["theirs", "hutch-theirs", "ours"])
        for called in ("theirs", "hutch-theirs", "theirs_"):
            assert (await engine.exec(name, ["test", "-c", f"/dev/{called}"])).code == 0

    async def test_stay_over_a_restart_and_a_reboot_of_the_node(
        self, engine: IncusEngine, site: Site, forwarded: tuple[str, Forward], incus: PrivateIncus
    ):
        name, _ = forwarded
        device = site.device()
        await engine.attach(name, [device])
        await incus.restart()
        await until_answers(engine)
        assert (await seen(engine, name)).devices == (device,)
        assert await opens(engine, name, device)
        await incus.reboot()
        await until_answers(engine)
        assert await soon(lambda: _runs(engine, name), within=30)
        assert await opens(engine, name, device)
        await engine.detach(name, [device.name])
        assert not await opens(engine, name, device)


@pytest.fixture
def requests(engine: IncusEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the requests that the engine sends."""
    sent: list[str] = []
    request = engine._client._request

    async def noted(method: str, path: str, **options: Any) -> Any:
        sent.append(method)
        return await request(method, path, **options)

    monkeypatch.setattr(engine._client, "_request", noted)
    return sent


class TestBanner:
    async def test_is_noticed_soon_after_it_is_there(self, engine: IncusEngine):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        waiting = asyncio.create_task(engine.wait_for_banner("x", "127.0.0.1", port, timeout=10))
        await asyncio.sleep(0.5)
        assert not waiting.done()

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-test\r\n")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", port)
        async with asyncio.timeout(0.3):
            assert await waiting
        server.close()

    async def test_of_something_else_does_not_count(self, engine: IncusEngine):
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert not await engine.wait_for_banner("x", "127.0.0.1", port, timeout=0.3)
        server.close()


class TestSecrets:
    async def test_of_a_program_are_never_logged(
        self, engine: IncusEngine, forwarded: tuple[str, Forward]
    ):
        name, _ = forwarded
        with structlog.testing.capture_logs() as logs:
            for argv in (["true"], ["no-such-program"]):
                await engine.exec(
                    name, [*argv, "hunter1"], stdin=b"hunter2", environment={"KEY": "hunter3"}
                )
            with pytest.raises(EngineError):
                await engine.exec(
                    name,
                    ["sh", "-c", "echo hunter4; sleep 9"],
                    environment={"KEY": "hunter5"},
                    timeout=0.3,
                )
        assert logs, "nothing was logged at all"
        assert "hunter" not in repr(logs)


async def test_a_file_that_never_ends_is_given_up(
    engine: IncusEngine, forwarded: tuple[str, Forward], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hutch.engine.incus.files._WITHIN", 1.0)
    name, _ = forwarded
    await engine.exec(name, ["mkfifo", "/root/pipe"])
    with pytest.raises(EngineError):
        await engine.read_file(name, "/root/pipe")
    assert await engine.read_file(name, "/etc/passwd")


async def test_a_large_file_is_read_no_further_than_asked(
    engine: IncusEngine, forwarded: tuple[str, Forward]
):
    name, _ = forwarded
    await engine.exec(name, ["truncate", "-s", "500M", "/root/large"])
    assert await engine.read_file(name, "/root/large", most=1000) == bytes(1000)


SITTING = """
import os, pty, sys, termios, tty
inside, terminal = pty.openpty()
tty.setraw(terminal)
if sys.argv[1] == "choked":
    os.set_blocking(terminal, False)
    try:
        while os.write(terminal, b"x" * 4096): pass
    except BlockingIOError: pass
print(os.ttyname(terminal), flush=True)
sys.stdin.read(1)
if sys.argv[1] != "choked":
    os.set_blocking(inside, False)
    try: sys.stdout.write(os.read(inside, 4096).decode())
    except BlockingIOError: pass
"""
"""Somebody at a terminal: says which, and at the end what was written on it."""


class TestNotice:
    async def test_reaches_the_persons_terminals_once_and_nobody_elses(
        self, site: Site, engine: IncusEngine, incus: PrivateIncus
    ):
        spec = site.spec()
        await engine.create(spec, start=True)
        try:
            person = ["--create-home", "--user-group", "ada"]
            assert (await engine.exec(spec.name, ["useradd", *person])).code == 0
            async with (
                sitting(incus, spec.name, "ada") as first,
                sitting(incus, spec.name, "ada") as second,
                sitting(incus, spec.name, "root") as roots,
                sitting(incus, spec.name, "ada", "choked"),
            ):
                for _ in range(2):
                    await put_notice(
                        engine, spec.name, user="ada", notice_id="n1",
                        text=b"\aYour time is up.\r\n", login=b"",
                    )  # fmt: skip
                assert await first.read() == "\aYour time is up.\r\n"
                assert await second.read() == "\aYour time is up.\r\n"
                assert await roots.read() == ""
        finally:
            await engine.delete(spec.name)

    async def test_is_shown_by_the_next_login(self, engine: IncusEngine, site: Site):
        spec = site.spec()
        key = asyncssh.generate_private_key("ssh-ed25519")
        public = SshKey(
            "k1", "u1", "laptop", "ssh-ed25519",
            key.export_public_key().decode().strip(), "", datetime.now(UTC),
        )  # fmt: skip
        host = asyncssh.generate_private_key("ssh-ed25519")
        await engine.create(spec, start=True)
        try:
            await put_person(
                engine, spec.name, user="ada", host_name="turing",
                host_secret=host.export_private_key(),
                host_key=host.export_public_key().decode().strip(), keys=[public],
            )  # fmt: skip
            await put_notice(
                engine, spec.name, user="ada", notice_id="n1", text=b"",
                login=b"Your time is up.\n",
            )  # fmt: skip
            assert await soon(lambda: _listens(spec.address), within=30)
            async with asyncssh.connect(
                spec.address, username="ada", client_keys=[key], known_hosts=None, config=None
            ) as connection:
                session = await connection.create_process(term_type="xterm")
                async with asyncio.timeout(20):
                    await session.stdout.readuntil("Your time is up.")
                plain = await connection.run("true", check=True)
                assert plain.stdout == "", "a program that is run by ssh must not find it there"
        finally:
            await engine.delete(spec.name)


async def _listens(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, 22)
    except OSError:
        return False
    writer.close()
    return True


class Sitting:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self) -> str:
        """What has been written on the terminal; then its user leaves."""
        out, _ = await self._process.communicate(b"q")
        return out.decode()


@contextlib.asynccontextmanager
async def sitting(
    incus: PrivateIncus, container: str, user: str, how: str = "reads"
) -> AsyncIterator[Sitting]:
    """Somebody who has a terminal of their own inside."""
    process = await asyncio.create_subprocess_exec(
        "incus", "exec", container, "--", "runuser", "-u", user, "--",
        "python3", "-c", SITTING, how,
        env={**os.environ, **incus.environment()},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    terminal = (await process.stdout.readline()).decode()
    assert terminal.startswith("/dev/pts/"), terminal
    yield Sitting(process)
    if process.returncode is None:
        await process.communicate(b"q")
