"""Runs hutch on a machine without systemd: `hutch up` and `hutch down`.

    up(data, report)      starts the supervisor, waits until the server answers
    down(data, report)    stops the server, then the containers, then Incus, as far as hutch
                          started them

The supervisor is a process of its own (`python -m hutch.supervisor DIR`) which outlives the
terminal. It keeps lxcfs, the Incus daemon, the server, the agent and the SSH gateway running, and
starts what ends again, with a growing pause. Each of them is in a session of its own and writes to
a file, so that a supervisor killed at any moment takes none of them along: the next one finds them,
by the note it left or by a mark in their environment, and watches them further.

With systemd the units in `deploy/` do all this, and `up` and `down` only tell systemd.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import math
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from hutch.errors import ConfigurationError, HutchError
from hutch.settings import Settings, load_settings
from hutch.setup import firewall, processes
from hutch.setup.commands import CommandError, run
from hutch.setup.daemons import (
    MARK,
    SHUTDOWN_SECONDS,
    Service,
    agent,
    engine_services,
    gateway,
    gateway_answers,
    server,
    server_answers,
    server_url,
    services_of,
)
from hutch.setup.processes import Identity
from hutch.setup.site import Daemon, Site, load_site

Report = Callable[[str], None]

UNIT = "hutch-server.service"
AGENT_UNIT = "hutch-agent.service"
GATEWAY_UNIT = "hutch-gateway.service"
UNITS = Path("/etc/systemd/system")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
#: After this many seconds of running, an end counts as the first again.
_STEADY_SECONDS = 60.0
#: Seconds between two looks at what somebody else runs.
_LOOK_SECONDS = 5.0
_LOG_BYTES = 10 * 1024 * 1024
_READY_SECONDS = 60.0
_GATEWAY_SECONDS = 15.0


# ---- one process: found again, started, watched ---------------------------------------------


def find(site: Site, service: Service) -> Identity | None:
    """The service's running process: by the note about it, else by the mark it carries.

    The note is missing when the supervisor died between starting a process and writing it.
    """
    noted = processes.load_identity(_note(site, service))
    if noted is not None:
        return noted
    mark = f"{MARK}={site.data}:{service.name}"
    for pid, words in processes.processes():
        # Helpers inherit the mark, so the arguments must be the service's own. Anybody can give a
        # process both, also inside a container, so it must be where and whom we would start it.
        if (
            _is_own(service, words)
            and mark in processes.environment_of(pid)
            and processes.is_of_this_system(pid)
            and processes.user_of(pid) == _user_id(service)
        ):
            identity = processes.identify(pid)
            if identity is not None:
                processes.save_identity(_note(site, service), identity)
                return identity
    return None


def _is_own(service: Service, words: list[str]) -> bool:
    if service.is_own is not None:
        return service.is_own(words)
    # A script's arguments come after its interpreter.
    return words[-len(service.argv) :] == service.argv


def _note(site: Site, service: Service) -> Path:
    return site.run_folder / f"{service.name}.json"


def start(site: Site, service: Service) -> Identity:
    """Starts the service's process. Raises OSError or CommandError."""
    service.before_start()
    log = site.log_folder / f"{service.name}.log"
    mark = {MARK: f"{site.data}:{service.name}"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            service.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **service.environment, **mark, **_home(service)},
            cwd="/",
            start_new_session=True,
            umask=0o077 if service.user else -1,
            **_identity_options(service),
        )
    _allow_files(process.pid, service.open_files)
    identity = processes.identify(process.pid)
    if identity is None:
        raise CommandError(service.argv, f"ended at once; see {log}")
    processes.save_identity(_note(site, service), identity)
    return identity


def _allow_files(pid: int, wanted: int) -> None:
    """Raises what a process may have open, up to what it could choose itself. From outside:
    between fork and exec nothing of Python may run where there are threads."""
    with contextlib.suppress(ProcessLookupError):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))


def _identity_options(service: Service) -> dict[str, Any]:
    """Whom the process runs as. Only root can choose; anyone else runs what is their own."""
    if not service.user or os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(service.user)
    return {
        "user": account.pw_uid,
        "group": account.pw_gid,
        "extra_groups": list(service.groups),
    }


def _user_id(service: Service) -> int:
    user: int = _identity_options(service).get("user", os.geteuid())
    return user


def _home(service: Service) -> dict[str, str]:
    if not service.user or os.geteuid() != 0:
        return {}
    return {"HOME": pwd.getpwnam(service.user).pw_dir, "USER": service.user}


async def _ended(identity: Identity) -> None:
    """Waits until a process ends, whether it is a child or was adopted."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        if processes.alive(identity):
            await done.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
        processes.reap(identity.pid)


async def _keep(site: Site, service: Service, started: asyncio.Event) -> None:
    """Keeps one service running for as long as this task lives."""
    pause = _FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            identity = find(site, service)
            if identity is None and await _others_serve(service, started):
                continue
            if identity is None:
                identity = await asyncio.to_thread(start, site, service)
                _log(f"{service.name}: started, pid {identity.pid}")
            else:
                _log(f"{service.name}: runs already, pid {identity.pid}")
            started.set()
            await _ended(identity)
            _log(f"{service.name}: ended")
        except (OSError, CommandError) as error:
            _log(f"{service.name}: could not be started: {error}")
        if time.monotonic() - began > _STEADY_SECONDS:
            pause = _FIRST_PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _others_serve(service: Service, started: asyncio.Event) -> bool:
    """Waits as long as a process that hutch did not start does the service's work: the machine
    has one lxcfs for all, and whoever started it may stop it. False when there is none."""
    if not service.may_be_others or not await asyncio.to_thread(service.is_ready):
        return False
    _log(f"{service.name}: somebody else's serves")
    started.set()
    await _while(service.is_ready, pause=_LOOK_SECONDS)
    return True


async def _wait_ready(service: Service) -> None:
    """Gives a service time to come up before the next one, which needs it, is started."""
    await _while(lambda: not service.is_ready(), pause=0.1, most=_READY_SECONDS)


async def _while(holds: Callable[[], bool], *, pause: float, most: float = math.inf) -> None:
    """Waits while something holds. It is about other processes: nothing wakes us."""
    until = time.monotonic() + most
    while time.monotonic() < until and await asyncio.to_thread(holds):  # noqa: ASYNC110
        await asyncio.sleep(pause)


async def _watch_logs(folder: Path) -> None:
    while True:
        await asyncio.to_thread(cap_logs, folder)
        await asyncio.sleep(15)


def cap_logs(folder: Path, most: int = _LOG_BYTES) -> None:
    """Keeps each log at `most` bytes and one older piece. The file stays the same one, because
    the process that writes to it holds it open."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > most:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


async def supervise(site: Site, settings: Settings) -> None:
    """Keeps everything running until SIGTERM or SIGINT comes, then stops it all.

    At SIGHUP it goes and leaves everything running, for a newer version to take over.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _leave, leaving, stop)
    await asyncio.to_thread(_open_firewalls, site)
    services = services_of(site, settings)
    tasks = [asyncio.create_task(_watch_logs(site.log_folder))]
    starting = asyncio.create_task(_start_all(site, services, tasks))
    await stop.wait()
    _log("stopping")
    tasks.append(starting)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not leaving.is_set():
        await asyncio.to_thread(stop_all, site, settings, _log)


def _open_firewalls(site: Site) -> None:
    """Docker's chains, and with them what lets instances through, are gone after a reboot."""
    if site.daemon is not Daemon.NONE and os.geteuid() == 0:
        try:
            for who in firewall.open_bridge(site.names.network):
                _log(f"{who} now lets {site.names.network} through")
        except CommandError as error:
            _log(str(error))


def _leave(leaving: asyncio.Event, stop: asyncio.Event) -> None:
    leaving.set()
    stop.set()


async def _start_all(site: Site, services: list[Service], tasks: list[asyncio.Task[None]]) -> None:
    for service in services:
        started = asyncio.Event()
        tasks.append(asyncio.create_task(_keep(site, service, started)))
        await started.wait()
        await _wait_ready(service)


def stop_all(site: Site, settings: Settings, report: Report) -> None:
    """Stops what runs of this hutch, the last started first."""
    for service in reversed(services_of(site, settings)):
        identity = find(site, service)
        if (identity is not None or service.remains()) and service.may_stop():
            report(f"Stopping {service.name}")
            service.stop(identity)
            if not processes.alive(identity):
                _note(site, service).unlink(missing_ok=True)


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", flush=True)


def start_engine(site: Site) -> None:
    """Starts lxcfs and the Incus daemon now, before there is a server to run; the supervisor
    finds them later. Raises CommandError when one does not come up."""
    _prepare_folders(site)
    for service in engine_services(site):
        if find(site, service) is None and not service.is_ready():
            start(site, service)
        until = time.monotonic() + _READY_SECONDS
        while not service.is_ready():
            identity = find(site, service)
            if identity is None or time.monotonic() > until:
                where = site.log_folder / f"{service.name}.log"
                raise CommandError(service.argv, f"does not come up; see {where}")
            time.sleep(0.05)


# ---- the supervisor itself ------------------------------------------------------------------


@contextlib.contextmanager
def _only_one(site: Site) -> Generator[bool]:
    """Whether this process may be the supervisor. The lock goes with the process, however it
    ends, and is not inherited by the services."""
    with (site.run_folder / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _supervisor(site: Site) -> Identity | None:
    return processes.load_identity(site.run_folder / "supervisor.json")


def _prepare_folders(site: Site) -> None:
    site.run_folder.mkdir(mode=0o755, exist_ok=True)
    site.log_folder.mkdir(mode=0o750, exist_ok=True)


def run_supervisor(data: Path) -> int:
    """The supervisor's process: returns when it was told to stop, or another one is there."""
    site = load_site(data)
    settings = load_settings(data=data)
    _prepare_folders(site)
    with _only_one(site) as alone:
        if not alone:
            _log("another supervisor runs already")
            return 0
        own = processes.identify(os.getpid())
        if own is not None:
            processes.save_identity(site.run_folder / "supervisor.json", own)
        asyncio.run(supervise(site, settings))
    return 0


def up(data: Path | None = None, report: Report = print, *, with_gateway: bool = True) -> None:
    """Starts hutch on this machine if it does not run, and waits until its server answers, and
    the gateway too unless the caller looks after that.

    Raises:
        ConfigurationError: it was never set up here, this user may not start it, or it does not
            come up; the message names the log.
    """
    settings = load_settings(data=data)
    site = load_site(settings.data)
    if site.units:
        _systemctl("start", site)
    else:
        _check_rights(site)
        _prepare_folders(site)
        if _supervisor(site) is None:
            argv = [sys.executable, "-m", "hutch.supervisor", str(site.data)]
            processes.spawn_detached(argv, site.log_folder / "supervisor.log")
    if not _comes_up(lambda: server_answers(settings), _READY_SECONDS):
        where = f"journalctl -u {UNIT}" if site.units else f"{site.log_folder}/server.log"
        message = f"hutch does not answer after {_READY_SECONDS:.0f} seconds."
        raise ConfigurationError(message, hint=f"What it said is in {where}.")
    report(f"hutch runs at {server_url(settings)}")
    if with_gateway and _has_gateway(site):
        _report_gateway(site, settings, report)


def _report_gateway(site: Site, settings: Settings, report: Report) -> None:
    """Without it instances are still reached, at ports of their own: no reason to fail."""
    if _comes_up(lambda: gateway_answers(settings), _GATEWAY_SECONDS):
        report(f"The SSH gateway answers at port {settings.gateway_port}")
    else:
        where = f"journalctl -u {GATEWAY_UNIT}" if site.units else f"{site.log_folder}/gateway.log"
        report(
            f"The SSH gateway does not answer at port {settings.gateway_port}."
            f" What it said is in {where}."
        )


def _has_gateway(site: Site) -> bool:
    return not site.units or (UNITS / GATEWAY_UNIT).exists()


def _comes_up(answers: Callable[[], bool], most: float) -> bool:
    until = time.monotonic() + most
    while not answers():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def renew(site: Site, *services: Service) -> None:
    """Ends the supervisor and these services, so that `up` starts them of the code and the
    settings that are there now. Everything else goes on running."""
    supervisor = _supervisor(site)
    if supervisor is not None:
        os.kill(supervisor.pid, signal.SIGHUP)
        processes.wait_ended(supervisor, 10)
        processes.kill(supervisor)
    for service in services:
        (service.hand_over or service.stop)(find(site, service))


def server_process(site: Site) -> Identity | None:
    """The server that runs for this site, if any."""
    return find(site, server(site, load_settings(data=site.data)))


def gateway_process(site: Site) -> Identity | None:
    """The gateway's first process for this site, if any."""
    return find(site, gateway(site, load_settings(data=site.data)))


def agent_process(site: Site) -> Identity | None:
    return find(site, agent(site, load_settings(data=site.data)))


def down(data: Path | None = None, report: Report = print) -> None:
    """Stops what `up` started: the server, and where hutch runs Incus itself, the instances.

    Raises:
        ConfigurationError: it was never set up here, or this user may not stop it.
    """
    settings = load_settings(data=data)
    site = load_site(settings.data)
    if site.units:
        _systemctl("stop", site)
        report(
            "hutch is stopped. Instances go on running under Incus, and so do open SSH sessions."
        )
        return
    _check_rights(site)
    supervisor = _supervisor(site)
    if supervisor is not None:
        report("Stopping hutch ...")
        processes.end(supervisor, SHUTDOWN_SECONDS + 60)
    # What a killed supervisor left behind, or one that was ended too early.
    stop_all(site, settings, report)
    report("hutch is stopped.")


def _check_rights(site: Site) -> None:
    if site.user and os.geteuid() != 0:
        message = "Starting and stopping hutch on this machine needs root."
        raise ConfigurationError(message, hint="Put sudo before the command.")


def _systemctl(verb: str, site: Site) -> None:
    units = [UNIT, *([AGENT_UNIT] if site.agent_token.exists() else [])]
    # One from before there was a gateway has no unit for it until the next ./quickstart.
    units += [GATEWAY_UNIT] if _has_gateway(site) else []
    try:
        run(["systemctl", verb, *units])
    except CommandError as error:
        raise ConfigurationError(str(error), hint=f"Look at: journalctl -u {units[-1]}") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hutch.supervisor")
    parser.add_argument("data", type=Path)
    try:
        return run_supervisor(parser.parse_args().data)
    except HutchError as error:
        _log(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
