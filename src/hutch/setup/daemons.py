"""What runs on a machine for hutch: each process with how it is started, known and stopped.

The supervisor keeps them running where there is no systemd; `deploy/` has a unit for each of
hutch's own where there is.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hutch.settings import Settings
from hutch.setup import incusd, processes
from hutch.setup.commands import CommandError, run
from hutch.setup.incus_api import IncusApi
from hutch.setup.processes import Identity
from hutch.setup.site import Daemon, Site

#: In the environment of every process the supervisor starts: the data folder and the service.
MARK = "HUTCH_SUPERVISED"
#: A connection is an open file, and so is each event stream. The units in `deploy/` say the same.
_MANY_FILES = 65536
_GREETING = b"SSH-2.0-hutch"
_WORKER = "hutch.gateway.worker"
_GATEWAY_SECONDS = 10
SHUTDOWN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running."""

    name: str
    argv: list[str]
    is_ready: Callable[[], bool]
    stop: Callable[[Identity | None], None]
    hand_over: Callable[[Identity | None], None] | None = None
    """How it ends when a newer one is started right after; None: as it stops."""
    remains: Callable[[], list[Identity]] = list[Identity]
    """Processes of earlier ones, which do something to its end."""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    groups: tuple[str, ...] = ()
    before_start: Callable[[], None] = lambda: None
    may_stop: Callable[[], bool] = lambda: True
    is_own: Callable[[list[str]], bool] | None = None
    """Whether these are its arguments, where an older version of hutch gave it others."""
    open_files: int = 0
    """How many files it may have open at least, where the machine allows it; 0: as it comes."""
    may_be_others: bool = False
    """Whether it is as good when a process that hutch did not start does this already."""


def services_of(site: Site, settings: Settings) -> list[Service]:
    """What runs for this hutch, in the order of starting."""
    found = [*engine_services(site), server(site, settings)]
    # Without a token nobody would let it in: the setup asks the server for one.
    if site.agent_token.exists():
        found.append(agent(site, settings))
    return [*found, gateway(site, settings)]


def engine_services(site: Site) -> list[Service]:
    return [_lxcfs(), _incusd(site)] if site.daemon is Daemon.SUPERVISED else []


def _lxcfs() -> Service:
    return Service(
        name="lxcfs",
        argv=incusd.lxcfs_argv(),
        is_ready=incusd.lxcfs_mounted,
        stop=processes.end,
        may_stop=_is_lxcfs_unused,
        before_start=incusd.clear_lxcfs,
        may_be_others=True,
    )


def _is_lxcfs_unused() -> bool:
    """Containers of any Incus on the machine look through it: without it their /proc is dead."""
    return not any(
        words[0].startswith("[lxc monitor]") for _, words in processes.processes() if words
    )


def _incusd(site: Site) -> Service:
    environment = {"INCUS_DIR": str(site.incus_folder)}

    def answers() -> bool:
        with IncusApi(site.socket) as api:
            return api.answers()

    def stop(identity: Identity | None) -> None:
        """Containers that run are shut down, and start again with the daemon."""
        with contextlib.suppress(CommandError):
            argv = ["incus", "admin", "shutdown", f"--timeout={SHUTDOWN_SECONDS}"]
            run(argv, env=environment, timeout=SHUTDOWN_SECONDS + 20)
        processes.end(identity, 20)

    return Service(
        name="incusd",
        argv=incusd.daemon_argv(),
        is_ready=answers,
        stop=stop,
        environment=environment,
        is_own=incusd.is_daemon,
        before_start=lambda: incusd.make_folders(site.incus_folder),
        may_be_others=True,
    )


def server(site: Site, settings: Settings) -> Service:
    def stop(identity: Identity | None) -> None:
        processes.end(identity, 30)

    return Service(
        name="server",
        argv=[str(Path(sys.executable).parent / "hutch"), "server"],
        is_ready=lambda: server_answers(settings),
        stop=stop,
        environment={"HUTCH_DATA": str(site.data)},
        user=site.user,
        groups=site.groups,
        open_files=_MANY_FILES,
    )


def gateway(site: Site, settings: Settings) -> Service:
    """The SSH gateway. A newer one takes over from it; sessions run on in what it leaves behind."""

    def stop(identity: Identity | None) -> None:
        all_ = (identity, *gateway_processes(site))
        for each in all_:
            processes.interrupt(each)
        for each in all_:
            processes.end(each, _GATEWAY_SECONDS)

    def hand_over(identity: Identity | None) -> None:
        if identity is not None:
            processes.hang_up(identity)
            processes.wait_ended(identity, _GATEWAY_SECONDS)

    return Service(
        name="gateway",
        argv=[str(Path(sys.executable).parent / "hutch"), "gateway"],
        is_ready=lambda: gateway_answers(settings),
        stop=stop,
        hand_over=hand_over,
        remains=lambda: gateway_processes(site),
        environment={"HUTCH_DATA": str(site.data)},
        user=site.user,
        open_files=_MANY_FILES,
    )


def gateway_processes(site: Site) -> list[Identity]:
    """Those of this hutch's gateways that hold connections, of older ones too."""
    # systemd's bear no mark.
    mark = f"HUTCH_DATA={site.data}" if site.units else f"{MARK}={site.data}:gateway"
    found = [
        processes.identify(pid)
        for pid, words in processes.processes()
        if words[-1:] == [_WORKER]
        and mark in processes.environment_of(pid)
        and processes.is_of_this_system(pid)
    ]
    return [each for each in found if each is not None]


def gateway_answers(settings: Settings) -> bool:
    """Whether a gateway answers at the settings' port."""
    host = settings.gateway_host or "127.0.0.1"
    try:
        with socket.create_connection((host, settings.gateway_port), timeout=2) as connection:
            return connection.recv(len(_GREETING), socket.MSG_WAITALL) == _GREETING
    except OSError:
        return False


def agent(site: Site, settings: Settings) -> Service:
    """The node's agent: root, because it looks into every container's processes."""

    def stop(identity: Identity | None) -> None:
        processes.end(identity, 10)

    return Service(
        name="agent",
        argv=[str(Path(sys.executable).parent / "hutch"), "agent"],
        is_ready=lambda: True,
        stop=stop,
        environment=agent_environment(site, settings),
    )


def agent_environment(site: Site, settings: Settings) -> dict[str, str]:
    return {
        "HUTCH_AGENT_SERVER": server_url(settings),
        "HUTCH_AGENT_TOKEN_FILE": str(site.agent_token),
        "HUTCH_AGENT_SIMULATED_GPUS": str(site.simulated_gpus),
        "HUTCH_AGENT_SIMULATED_STEERING": str(site.data / "simulated-gpus.json"),
        # Of this hutch alone: an agent clears away what it finds there and does not know.
        "HUTCH_AGENT_SIMULATED_FOLDER": f"/dev/{site.names.project}-gpu",
    }


def server_url(settings: Settings) -> str:
    """Where programs on this machine reach the server."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    host = everywhere.get(settings.listen_host, settings.listen_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.listen_port}"


def server_answers(settings: Settings) -> bool:
    """Whether a server answers at the settings' address and is ready for requests."""
    try:
        answer = httpx.get(f"{server_url(settings)}/readyz", timeout=2)
    except httpx.HTTPError:
        return False
    return answer.is_success
