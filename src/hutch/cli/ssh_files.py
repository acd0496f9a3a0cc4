"""A person's own ~/.ssh, taught to find hutch's machines: written safely, and nowhere else.

Three files are touched: `config.d/hutch.conf` and `hutch/known_hosts`, which are hutch's, and
`config`, which gets one line at its top once, after a copy of it was kept. A link that leads out
of ~/.ssh is not followed.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hutch.cli import remote
from hutch.client.client import Client
from hutch.client.config import write_private
from hutch.errors import ConfigurationError, HutchError

CONFIG = Path("config.d") / "hutch.conf"
KNOWN_HOSTS = Path("hutch") / "known_hosts"
INCLUDE = f"Include {CONFIG}"
BACKUP = "config.before-hutch"
_HEAD = f"# hutch's machines. Without this line ssh does not know them.\n{INCLUDE}\n\n"
_BEGINS_BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)


@dataclass
class Installed:
    """What was written."""

    config: Path
    includes: bool = False
    """Whether ~/.ssh/config had to be told."""
    backup: Path | None = None


def follow(client: Client) -> None:
    """Write hutch's own two files anew where they were installed: a machine has come or gone.

    That is a convenience: what keeps it from being done is no failure of the command.
    """
    home = Path.home()
    if remote.gateway() is not None or not (home / ".ssh" / CONFIG).is_file():
        return
    with suppress(HutchError, OSError):
        made = client.ssh_config(_alias(home / ".ssh" / CONFIG))
        refresh(home, made["config"], made["known_hosts"])


def _alias(file: Path) -> str | None:
    """What the gateway is called in an installed configuration: its first host."""
    found = re.search(r"^Host (\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


def install(home: Path, config: str, known_hosts: str) -> Installed:
    """Write everything. Raises ConfigurationError, before anything is written, where a link leads
    out of the folder."""
    folder = _folder(home)
    main = _inside(folder, folder / "config")
    text = _read(main)
    refresh(home, config, known_hosts)
    done = Installed(folder / CONFIG)
    if not _is_included(text):
        if main.exists():
            done.backup = folder / BACKUP
            write_private(done.backup, text)
        write_private(main, _HEAD + text)
        done.includes = True
    return done


def refresh(home: Path, config: str, known_hosts: str) -> None:
    """Write the two files of hutch's anew."""
    folder = _folder(home)
    for path in (folder / CONFIG.parent, folder / KNOWN_HOSTS.parent):
        _inside(folder, path)
    write_private(folder / KNOWN_HOSTS, known_hosts)
    write_private(folder / CONFIG, config)


def _folder(home: Path) -> Path:
    folder = home / ".ssh"
    real = folder.resolve()
    if not real.is_relative_to(home.resolve()):
        raise _leads_out(folder, real)
    real.mkdir(mode=0o700, exist_ok=True)
    return real


def _inside(folder: Path, path: Path) -> Path:
    """Where a path really is. Raises ConfigurationError when that is outside of the folder."""
    real = path.resolve()
    if not real.is_relative_to(folder):
        raise _leads_out(path, real)
    return real


def _leads_out(path: Path, real: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is a link to {real}, which hutch does not touch.",
        hint=f"Put what `hutch ssh-config` prints there yourself, and `{INCLUDE}` at its top.",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path} is not text in UTF-8.", hint=f"Put `{INCLUDE}` at its top yourself."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check its rights."
        ) from None


def _is_included(text: str) -> bool:
    """Whether the line is there, and holds for every host: before the first block."""
    for line in text.splitlines():
        if _BEGINS_BLOCK.match(line):
            return False
        if line.split() == INCLUDE.split():
            return True
    return False
