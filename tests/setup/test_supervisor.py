"""The supervisor keeps services running, and one that is killed takes none of them along."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hutch import supervisor
from hutch.domain.nodes import EngineKind
from hutch.errors import ConfigurationError
from hutch.settings import Settings
from hutch.setup import processes
from hutch.setup.prepare import Names
from hutch.setup.processes import Identity
from hutch.setup.service import unit_text
from hutch.setup.site import Daemon, Site, load_site, save_site
from hutch.supervisor import Service

SOURCE = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(
        data=tmp_path,
        engine=EngineKind.SIMULATED,
        daemon=Daemon.NONE,
        socket=tmp_path / "unix.socket",
        incus_folder=tmp_path,
        names=Names(),
        user="",
        groups=(),
        units=False,
    )
    found.run_folder.mkdir()
    found.log_folder.mkdir()
    save_site(found)
    yield found
    for pid, _ in processes.processes():
        if f"{supervisor.MARK}={tmp_path}:sleeper" in processes.environment_of(pid):
            processes.kill(processes.identify(pid))


def sleeper(seconds: str = "60") -> Service:
    return Service(
        name="sleeper",
        argv=["sleep", seconds],
        is_ready=lambda: True,
        stop=lambda identity: processes.end(identity, 5),
    )


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        await asyncio.sleep(0.02)


@pytest.fixture
async def supervise(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Service], Awaitable[asyncio.Task[None]]]:
    """Starts supervising one service, in this process."""

    async def begin(service: Service) -> asyncio.Task[None]:
        def services(_site: Site, _settings: Settings) -> list[Service]:
            return [service]

        monkeypatch.setattr(supervisor, "services_of", services)
        task = asyncio.create_task(supervisor.supervise(site, Settings()))
        await eventually(lambda: supervisor.find(site, service))
        return task

    return begin


async def stop(task: asyncio.Task[None], number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)
    await asyncio.wait_for(task, 15)


def running(site: Site) -> Identity:
    identity = supervisor.find(site, sleeper())
    assert identity is not None
    return identity


async def test_what_is_killed_is_started_again(site: Site, supervise):
    task = await supervise(sleeper())
    first = running(site)
    processes.kill(first)
    await eventually(lambda: supervisor.find(site, sleeper()) not in (None, first))
    await stop(task)


async def test_a_service_that_hands_over_is_not_stopped_when_it_is_renewed(site: Site, supervise):
    handed: list[Identity | None] = []
    service = replace(sleeper(), hand_over=handed.append)
    task = await supervise(service)
    first = running(site)
    supervisor.renew(site, service)
    assert handed == [first]
    assert processes.alive(first)
    await stop(task)
    assert not processes.alive(first)


async def test_what_earlier_ones_left_behind_is_stopped_too(site: Site, monkeypatch):
    first = supervisor.start(site, sleeper())
    (site.run_folder / "sleeper.json").unlink()
    stopped: list[Identity | None] = []
    service = replace(sleeper("61"), remains=lambda: [first], stop=stopped.append)
    monkeypatch.setattr(supervisor, "services_of", lambda _site, _settings: [service])
    supervisor.stop_all(site, Settings(), print)
    assert stopped == [None]


async def test_stopping_ends_what_runs(site: Site, supervise):
    task = await supervise(sleeper())
    first = running(site)
    await stop(task)
    assert not processes.alive(first)


async def test_a_newer_version_takes_over_what_runs(site: Site, supervise):
    task = await supervise(sleeper())
    first = running(site)
    await stop(task, signal.SIGHUP)
    assert processes.alive(first)
    again = await supervise(sleeper())
    assert running(site) == first
    await stop(again)


async def test_what_a_killed_supervisor_left_is_adopted_without_its_note(site: Site, supervise):
    service = sleeper()
    first = supervisor.start(site, service)
    (site.run_folder / "sleeper.json").unlink()
    task = await supervise(service)
    assert running(site) == first
    await stop(task)
    assert not processes.alive(first)


async def test_an_adopted_process_that_ends_is_started_again(site: Site, supervise):
    first = supervisor.start(site, sleeper())
    task = await supervise(sleeper())
    processes.kill(first)
    await eventually(lambda: supervisor.find(site, sleeper()) not in (None, first))
    await stop(task)


async def test_a_foreign_process_with_the_noted_pid_is_left_alone(site: Site, supervise):
    foreign = subprocess.Popen(["sleep", "60"])
    identity = processes.identify(foreign.pid)
    assert identity is not None
    earlier = replace(identity, started=identity.started - 100)
    processes.save_identity(site.run_folder / "sleeper.json", earlier)
    task = await supervise(sleeper())
    assert running(site).pid != foreign.pid
    await stop(task)
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be several users")
@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(
            ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"],
            id="in a container",
        ),
        pytest.param(["unshare", "--user", "--map-root-user"], id="in a user namespace"),
        pytest.param(["setpriv", "--reuid=65534", "--clear-groups"], id="of another user"),
    ],
)
def test_who_only_carries_the_mark_is_not_taken_for_the_service(site: Site, elsewhere: list[str]):
    mark = {supervisor.MARK: f"{site.data}:sleeper"}
    fake = subprocess.Popen([*elsewhere, "sleep", "60"], env={**os.environ, **mark})
    try:
        until = time.monotonic() + 10
        while not seen_as_sleeper(site):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert supervisor.find(site, sleeper()) is None
    finally:
        fake.kill()
        fake.wait()


def seen_as_sleeper(site: Site) -> bool:
    """Whether a process shows the service's arguments and mark, and nothing more."""
    mark = f"{supervisor.MARK}={site.data}:sleeper"
    return any(
        words == ["sleep", "60"] and mark in processes.environment_of(pid)
        for pid, words in processes.processes()
    )


def test_the_server_may_hold_many_connections(site: Site):
    server, _ = supervisor.services_of(site, Settings())
    unit = (SOURCE / "deploy" / supervisor.UNIT).read_text()
    assert f"LimitNOFILE={server.open_files}\n" in unit
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        identity = supervisor.start(site, replace(sleeper(), open_files=server.open_files))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    soft, hard = resource.prlimit(identity.pid, resource.RLIMIT_NOFILE)
    assert soft == (65536 if hard == resource.RLIM_INFINITY else min(65536, hard))


async def test_what_somebody_else_runs_is_neither_doubled_nor_stopped(site: Site, monkeypatch):
    monkeypatch.setattr(supervisor, "_LOOK_SECONDS", 0.05)
    serves = [True]
    service = replace(sleeper(), is_ready=lambda: serves[0], may_be_others=True)
    monkeypatch.setattr(supervisor, "services_of", lambda _site, _settings: [service])
    task = asyncio.create_task(supervisor.supervise(site, Settings()))
    await asyncio.sleep(0.3)
    assert supervisor.find(site, service) is None
    serves[0] = False
    await eventually(lambda: supervisor.find(site, service))
    serves[0] = True
    await stop(task)


async def test_what_ends_at_once_is_tried_with_growing_pauses(site: Site, monkeypatch):
    starts: list[float] = []
    service = replace(sleeper("0"), before_start=lambda: starts.append(time.monotonic()))
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "services_of", lambda _site, _settings: [service])
    task = asyncio.create_task(supervisor.supervise(site, Settings()))
    await eventually(lambda: len(starts) == 4)
    await stop(task)
    assert starts[3] - starts[2] > starts[1] - starts[0] + 0.05


def test_a_second_supervisor_goes_away(site: Site, tmp_path: Path):
    argv = [sys.executable, "-m", "hutch.supervisor", str(tmp_path)]
    with supervisor._only_one(site) as alone:
        assert alone
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "another supervisor runs already" in said


def test_a_log_keeps_its_size_and_its_writer(tmp_path: Path):
    log = tmp_path / "server.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 200)
        writer.flush()
        supervisor.cap_logs(tmp_path, most=100)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "server.log.1").read_bytes() == b"x" * 200


def test_a_machine_that_was_never_set_up_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigurationError) as failed:
        supervisor.up(tmp_path, print)
    assert "quickstart" in failed.value.hint


def test_a_site_is_read_as_it_was_written(site: Site):
    assert load_site(site.data) == site


def test_a_damaged_site_says_how_to_repair_it(site: Site):
    (site.data / "site.json").write_text('{"engine": "incus"}')
    with pytest.raises(ConfigurationError) as failed:
        load_site(site.data)
    assert "repairs" in failed.value.hint


def test_the_unit_is_made_for_the_places_and_names_of_this_machine(site: Site):
    template = (SOURCE / "deploy" / supervisor.UNIT).read_text()
    other = replace(
        site, data=Path("/srv/h"), user="lab", groups=("lxd",), names=Names("lab", "labbr0", "lab")
    )
    text = unit_text(template, other)
    assert "ExecStart=/srv/h/venv/bin/hutch server" in text
    assert "User=lab\nGroup=lab\nSupplementaryGroups=lxd\n" in text
    assert "hutch.setup.firewall labbr0" in text
    assert "/var/lib/hutch" not in text


def test_the_gateways_unit_leaves_its_sessions_alone(site: Site):
    template = (SOURCE / "deploy" / supervisor.GATEWAY_UNIT).read_text()
    text = unit_text(template, replace(site, data=Path("/srv/h"), user="lab"))
    assert "ExecStart=/srv/h/venv/bin/hutch gateway\n" in text
    assert "User=lab\nGroup=lab\n" in text
    assert "/var/lib/hutch" not in text
    lines = text.splitlines()
    assert {"KillMode=process", "KillSignal=SIGHUP", "Restart=always"} <= set(lines)
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    (gateway,) = supervisor.services_of(site, Settings())[1:]
    assert f"LimitNOFILE={gateway.open_files}" in lines
