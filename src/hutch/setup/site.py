"""What the setup found and decided on this machine, written down for `hutch up` and later runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hutch.domain.nodes import EngineKind
from hutch.errors import ConfigurationError
from hutch.setup import files
from hutch.setup.prepare import Names

_FILE = "site.json"


class Daemon(StrEnum):
    """Who runs the Incus daemon."""

    NONE = "none"
    """Nobody: the engine is simulated."""
    FOREIGN = "foreign"
    """Somebody else: it was in use before hutch came. hutch starts and stops nothing of it."""
    UNITS = "units"
    """systemd, by the units of the distribution's package."""
    SUPERVISED = "supervised"
    """hutch's own supervisor, where there is no systemd."""


@dataclass(frozen=True, slots=True)
class Site:
    """One hutch on one machine."""

    data: Path
    engine: EngineKind
    daemon: Daemon
    socket: Path
    """Of the engine; unused where it is simulated."""
    incus_folder: Path
    names: Names
    user: str
    """The system user the server runs as; empty: whoever starts it."""
    groups: tuple[str, ...]
    """Groups the server needs beside, to reach the engine's socket."""
    units: bool
    """Whether systemd runs hutch."""
    simulated_gpus: int = 0
    """How many accelerators the node's agent makes up, for machines that have none."""

    @property
    def run_folder(self) -> Path:
        """Where it is noted which processes were started. Root's own, as far as there is root."""
        return self.data / "run"

    @property
    def log_folder(self) -> Path:
        return self.data / "log"

    @property
    def agent_token(self) -> Path:
        """The token with which the node's agent signs in. Root's alone, as far as there is root."""
        return self.data / "agent.token"

    @property
    def engine_url(self) -> str:
        """The engine as a node's `url`."""
        if self.engine is EngineKind.SIMULATED:
            return f"file://{self.data / 'simulated'}"
        return f"unix://{self.socket}"


def save_site(site: Site) -> None:
    fields = asdict(site)
    text = json.dumps(fields, default=str, indent=1) + "\n"
    files.replace_text(site.data / _FILE, text, mode=0o644)


def load_site(data: Path) -> Site:
    """Raises ConfigurationError where nothing was set up, or the file is damaged."""
    try:
        fields: dict[str, Any] = json.loads((data / _FILE).read_text())
        return Site(
            data=data,
            engine=EngineKind(fields["engine"]),
            daemon=Daemon(fields["daemon"]),
            socket=Path(fields["socket"]),
            incus_folder=Path(fields["incus_folder"]),
            names=Names(**fields["names"]),
            user=fields["user"],
            groups=tuple(fields["groups"]),
            units=fields["units"],
            # Written by versions that knew of no accelerators: none.
            simulated_gpus=int(fields.get("simulated_gpus", 0)),
        )
    except FileNotFoundError:
        message = f"There is no hutch in {data} yet."
        raise ConfigurationError(message, hint="Run ./quickstart first.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{data / _FILE} cannot be read: {error}."
        raise ConfigurationError(message, hint="Run ./quickstart again: it repairs it.") from None
