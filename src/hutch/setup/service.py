"""hutch's own processes as services: systemd's units, or the supervisor, and whether they are
current."""

from __future__ import annotations

import os
from pathlib import Path

from hutch import supervisor
from hutch.settings import load_settings
from hutch.setup import daemons
from hutch.setup.commands import run, succeeds
from hutch.setup.site import Site
from hutch.setup.steps import StepFailedError

_UNITS = Path("/etc/systemd/system")
_STAMP = "server.stamp"
_AGENT_STAMP = "agent.stamp"
#: Set by ./quickstart: where hutch's sources are, and what is installed from them.
SOURCE_VARIABLE = "HUTCH_SOURCE"
STAMP_VARIABLE = "HUTCH_STAMP"


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
        supervisor.renew(site)
    supervisor.up(site.data, lambda _: None)
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
        supervisor.renew(site, with_server=False)
        supervisor.up(site.data, lambda _: None)
    (site.run_folder / _AGENT_STAMP).write_text(_agent_stamp(site))


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
    path = _UNITS / unit
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
    (_UNITS / unit).write_text(unit_text(_template(unit), site))
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", unit])
    run(["systemctl", "restart", unit])
