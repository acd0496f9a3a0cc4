"""hutch's own processes as services: systemd's units, or the supervisor, and whether they are
current."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from hutch import supervisor
from hutch.settings import Settings, load_settings
from hutch.setup import daemons, processes
from hutch.setup.commands import run, succeeds
from hutch.setup.site import Site
from hutch.setup.steps import StepFailedError

_STAMP = "server.stamp"
_AGENT_STAMP = "agent.stamp"
_GATEWAY_STAMP = "gateway.stamp"
#: Set by ./quickstart: where hutch's sources are, and what is installed from them.
SOURCE_VARIABLE = "HUTCH_SOURCE"
STAMP_VARIABLE = "HUTCH_STAMP"
_GATEWAY_SECONDS = 30.0


def is_current(site: Site) -> bool:
    """Whether the server that runs is of the code and the unit that are installed."""
    return _unit_is_current(site, supervisor.UNIT) and _has_stamp(site, _STAMP, _installed_stamp())


def is_ours(site: Site) -> bool:
    """Whether hutch's own server is what runs, so that its port is no other program's."""
    if site.units:
        return _is_active(supervisor.UNIT)
    return supervisor.server_process(site) is not None


def install(site: Site) -> None:
    """Starts the server, anew where it is of older code. Instances go on running."""
    if site.units:
        _install_unit(site, supervisor.UNIT)
    else:
        settings = load_settings(data=site.data)
        supervisor.renew(site, daemons.agent(site, settings), daemons.server(site, settings))
    supervisor.up(site.data, lambda _: None, with_gateway=False)
    (site.run_folder / _STAMP).write_text(_installed_stamp())


def agent_is_current(site: Site) -> bool:
    """Whether the agent runs, of this code, and with the accelerators that were asked for."""
    if not (_unit_is_current(site, supervisor.AGENT_UNIT) and site.agent_token.exists()):
        return False
    runs = (
        _is_active(supervisor.AGENT_UNIT)
        if site.units
        else supervisor.agent_process(site) is not None
    )
    return runs and _has_stamp(site, _AGENT_STAMP, _agent_stamp(site))


def install_agent(site: Site) -> None:
    """Starts the node's agent, anew where it is of older code or other settings."""
    if site.units:
        _install_unit(site, supervisor.AGENT_UNIT)
    else:
        supervisor.renew(site, daemons.agent(site, load_settings(data=site.data)))
        supervisor.up(site.data, lambda _: None, with_gateway=False)
    (site.run_folder / _AGENT_STAMP).write_text(_agent_stamp(site))


def gateway_is_current(site: Site, settings: Settings) -> bool:
    """Whether the gateway runs, of this code and with these settings."""
    if not _unit_is_current(site, supervisor.GATEWAY_UNIT):
        return False
    is_there = _gateway_runs(site) and daemons.gateway_answers(settings)
    return is_there and _has_stamp(site, _GATEWAY_STAMP, _gateway_stamp(settings))


def gateway_is_ours(site: Site, port: int) -> bool:
    """Whether it is this hutch's gateway that has a port, or an older one that hands over."""
    found = daemons.gateway_processes(site)
    return any(processes.listens(each, port) for each in found)


def _gateway_runs(site: Site) -> bool:
    """Whether a gateway has its first process: what an older one leaves behind answers too."""
    if site.units:
        return _is_active(supervisor.GATEWAY_UNIT)
    return supervisor.gateway_process(site) is not None


def install_gateway(site: Site, settings: Settings) -> None:
    """Starts the gateway, in the place of one of older code or other settings.

    No session ends: the older one's run on in the processes that it leaves behind.
    """
    if site.units:
        _install_unit(site, supervisor.GATEWAY_UNIT)
    else:
        supervisor.renew(site, daemons.gateway(site, settings))
        supervisor.up(site.data, lambda _: None, with_gateway=False)
    until = time.monotonic() + _GATEWAY_SECONDS
    while not (_gateway_runs(site) and daemons.gateway_answers(settings)):
        if time.monotonic() > until:
            raise StepFailedError(f"It does not answer at port {settings.gateway_port}")
        time.sleep(0.1)
    (site.run_folder / _GATEWAY_STAMP).write_text(_gateway_stamp(settings))


def _gateway_stamp(settings: Settings) -> str:
    """Of the code and every setting, in a form from which no setting can be read."""
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return f"{_installed_stamp()} settings={digest}"


def _has_stamp(site: Site, name: str, wanted: str) -> bool:
    started = site.run_folder / name
    return started.exists() and started.read_text() == wanted


def _installed_stamp() -> str:
    return os.environ.get(STAMP_VARIABLE, "")


def _agent_stamp(site: Site) -> str:
    return f"{_installed_stamp()} simulated={site.simulated_gpus}"


def _is_active(unit: str) -> bool:
    return succeeds(["systemctl", "is-active", "--quiet", unit])


def _unit_is_current(site: Site, unit: str) -> bool:
    if not site.units:
        return True
    path = supervisor.UNITS / unit
    return path.exists() and path.read_text() == unit_text(_template(unit), site)


def _template(unit: str) -> str:
    path = Path(os.environ.get(SOURCE_VARIABLE, ".")) / "deploy" / unit
    try:
        return path.read_text()
    except OSError as error:
        raise StepFailedError(
            f"{path} cannot be read: {error.strerror}",
            "Run ./quickstart from the folder with hutch's sources.",
        ) from error


def unit_text(template: str, site: Site) -> str:
    """A unit of `deploy/`, which is written for the usual places, for this machine's."""
    groups = " ".join(site.groups) or "incus-admin"
    url = daemons.server_url(load_settings(data=site.data))
    return (
        template.replace("/var/lib/hutch", str(site.data))
        .replace("User=hutch", f"User={site.user}")
        .replace("Group=hutch", f"Group={site.user}")
        .replace("SupplementaryGroups=incus-admin", f"SupplementaryGroups={groups}")
        .replace("hutchbr0", site.names.network)
        .replace("/dev/hutch-gpu", f"/dev/{site.names.project}-gpu")
        .replace("http://127.0.0.1:7480", url)
        .replace("SIMULATED_GPUS=0", f"SIMULATED_GPUS={site.simulated_gpus}")
    )


def _install_unit(site: Site, unit: str) -> None:
    (supervisor.UNITS / unit).write_text(unit_text(_template(unit), site))
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", unit])
    run(["systemctl", "restart", unit])
