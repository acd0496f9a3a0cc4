"""What `./quickstart` was asked for. Pure: reading arguments changes nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from hutch.domain.nodes import EngineKind
from hutch.setup.prepare import Names, PoolDriver

DEFAULT_INCUS_FOLDER = Path("/var/lib/incus")
MOST_SIMULATED_GPUS = 64


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a person can decide about the setup."""

    engine: EngineKind
    data: Path
    first_instance: bool
    ask: bool
    """Whether there is someone to answer a question."""
    pool: PoolDriver | Literal["auto"]
    names: Names
    incus_folder: Path
    """Where the Incus daemon that hutch starts itself keeps its files."""
    command_folder: Path
    user: str
    """The system user hutch runs as, where it is root who sets it up."""
    settings: Mapping[str, str]
    """Keys for hutch.toml."""
    images: tuple[str, ...] = ("base",)
    """The recipes of which images are made."""
    simulated_gpus: int | None = None
    """How many accelerators to make up; None: as many as an earlier run was told."""


def default_data(is_root: bool, environment: Mapping[str, str]) -> Path:
    if is_root:
        return Path("/var/lib/hutch")
    home = Path(environment.get("HOME", "/"))
    return Path(environment.get("XDG_DATA_HOME") or home / ".local/share") / "hutch"


def default_command_folder(is_root: bool, environment: Mapping[str, str]) -> Path:
    if is_root:
        return Path("/usr/local/bin")
    return Path(environment.get("HOME", "/")) / ".local/bin"


def parse(
    arguments: Sequence[str],
    *,
    is_root: bool,
    has_terminal: bool,
    environment: Mapping[str, str] | None = None,
) -> Options:
    """The options behind a command line. Ends the program, as argparse does, where it is wrong."""
    environment = os.environ if environment is None else environment
    parsed = _parser().parse_args(arguments)
    prefix = cast("str", parsed.prefix)
    command_folder = default_command_folder(is_root, environment)
    return Options(
        engine=EngineKind(parsed.engine),
        data=Path(parsed.data or default_data(is_root, environment)).absolute(),
        first_instance=not parsed.no_instance,
        ask=has_terminal and not parsed.yes,
        pool=parsed.pool,
        names=Names(prefix, f"{prefix}br0", prefix),
        incus_folder=Path(parsed.incus_dir or DEFAULT_INCUS_FOLDER),
        command_folder=Path(parsed.command_dir or command_folder).absolute(),
        user=parsed.user,
        settings=dict(parsed.set),
        images=("base", "desktop") if parsed.desktop else ("base",),
        simulated_gpus=parsed.simulated_gpus,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./quickstart", allow_abbrev=False)
    parser.add_argument("--engine", choices=[kind.value for kind in EngineKind], default="incus")
    parser.add_argument("--no-instance", action="store_true")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--pool", choices=["auto", "zfs", "btrfs", "dir"], default="auto")
    parser.add_argument("--set", metavar="KEY=VALUE", type=_pair, action="append", default=[])
    parser.add_argument("--prefix", type=_prefix, default="hutch")
    parser.add_argument("--incus-dir", metavar="DIR")
    parser.add_argument("--command-dir", metavar="DIR")
    parser.add_argument("--user", default="hutch")
    parser.add_argument("--desktop", action="store_true")
    parser.add_argument("--simulated-gpus", metavar="N", type=_count)
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_SIMULATED_GPUS):
        raise argparse.ArgumentTypeError(f"0 to {MOST_SIMULATED_GPUS} are allowed")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _prefix(text: str) -> str:
    # The bridge's name adds three characters, and an interface's name has 15 at most.
    if not (1 <= len(text) <= 12 and text.isascii() and text.isalnum() and text.islower()):
        raise argparse.ArgumentTypeError("1 to 12 small letters and digits are allowed")
    return text
