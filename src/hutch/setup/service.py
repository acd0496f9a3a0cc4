"""The server as a service: systemd's unit, or hutch's own supervisor, and whether it is current."""

from __future__ import annotations

import os
from pathlib import Path

from hutch import supervisor
from hutch.setup.commands import run, succeeds
from hutch.setup.site import Site
from hutch.setup.steps import StepFailedError

_UNIT_PATH = Path("/etc/systemd/system") / supervisor.UNIT
_STAMP = "server.stamp"
#: Set by ./quickstart: where hutch's sources are, and what is installed from them.
SOURCE_VARIABLE = "HUTCH_SOURCE"
STAMP_VARIABLE = "HUTCH_STAMP"


def is_current(site: Site) -> bool:
    """Whether the service that runs is of the code and the unit that are installed."""
    if site.units and not _unit_is_current(site):
        return False
    started = site.run_folder / _STAMP
    return started.exists() and started.read_text() == _installed_stamp()


def is_ours(site: Site) -> bool:
    """Whether hutch's own server is what runs, so that its port is no other program's."""
    if site.units:
        return succeeds(["systemctl", "is-active", "--quiet", supervisor.UNIT])
    return supervisor.server_process(site) is not None


def install(site: Site) -> None:
    """Starts the server, anew where it is of older code. Instances go on running."""
    if site.units:
        _install_unit(site)
    else:
        supervisor.renew(site)
        supervisor.up(site.data, lambda _: None)
    (site.run_folder / _STAMP).write_text(_installed_stamp())


def _installed_stamp() -> str:
    return os.environ.get(STAMP_VARIABLE, "")


def _unit_is_current(site: Site) -> bool:
    return _UNIT_PATH.exists() and _UNIT_PATH.read_text() == unit_text(_template(), site)


def _template() -> str:
    path = Path(os.environ.get(SOURCE_VARIABLE, ".")) / "deploy" / supervisor.UNIT
    try:
        return path.read_text()
    except OSError as error:
        raise StepFailedError(
            f"{path} cannot be read: {error.strerror}",
            "Run ./quickstart from the folder with hutch's sources.",
        ) from error


def unit_text(template: str, site: Site) -> str:
    """The unit in `deploy/`, which is written for the usual places, for this machine's."""
    groups = " ".join(site.groups) or "incus-admin"
    return (
        template.replace("/var/lib/hutch", str(site.data))
        .replace("User=hutch", f"User={site.user}")
        .replace("Group=hutch", f"Group={site.user}")
        .replace("SupplementaryGroups=incus-admin", f"SupplementaryGroups={groups}")
        .replace("hutchbr0", site.names.network)
    )


def _install_unit(site: Site) -> None:
    _UNIT_PATH.write_text(unit_text(_template(), site))
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", supervisor.UNIT])
    run(["systemctl", "restart", supervisor.UNIT])
    supervisor.up(site.data, lambda _: None)
