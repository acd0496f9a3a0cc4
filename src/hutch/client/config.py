"""Where a person is signed in: one small file of their own, and the environment above it."""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hutch.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:7480"
"""Where `hutch server` listens unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Login:
    """A server and what proves who one is there."""

    url: str
    token: str | None


def config_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The person's own folder for hutch: `$XDG_CONFIG_HOME/hutch`, else `~/.config/hutch`."""
    environment = os.environ if environment is None else environment
    # The XDG base directory specification: a relative path is to be ignored.
    base = environment.get("XDG_CONFIG_HOME", "")
    if not Path(base).is_absolute():
        home = environment.get("HOME") or str(Path.home())
        return Path(home) / ".config" / "hutch"
    return Path(base) / "hutch"


def config_path(environment: Mapping[str, str] | None = None) -> Path:
    """The file with the sign-in."""
    return config_folder(environment) / "config.json"


def load_login(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Login:
    """The sign-in: HUTCH_URL and HUTCH_TOKEN where they are set, else what the file says.

    A token is never sent to a server that it was not given for: HUTCH_URL alone, naming another
    server than the file, leaves the file's token out. Raises ConfigurationError for a file that
    cannot be read or understood.
    """
    environment = os.environ if environment is None else environment
    saved = _read(path or config_path(environment))
    url = environment.get("HUTCH_URL") or saved.url or DEFAULT_URL
    token = environment.get("HUTCH_TOKEN")
    if not token and url.rstrip("/") == saved.url.rstrip("/"):
        token = saved.token
    return Login(url, token or None)


def save_login(path: Path, url: str, token: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write the sign-in to `path`, readable by its owner alone, all of it or nothing.

    `owner` is the user and group id of the person it is for, where root writes it for somebody
    else. Raises ConfigurationError when the place cannot be written.
    """
    body = json.dumps({"url": url, "token": token}, indent=2) + "\n"
    write_private(path, body, owner=owner)


def forget_login(path: Path, url: str) -> None:
    """Keep the server, drop the token."""
    write_private(path, json.dumps({"url": url}, indent=2) + "\n")


def readable_by_others(path: Path) -> bool:
    """Whether someone beside the owner may read the file, and with it the token."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def write_private(path: Path, body: str, *, owner: tuple[int, int] | None = None) -> None:
    """Replace a file by one of mode 0600: whoever reads meets the old text or the new one."""
    # Most commands only read: they do without what it brings along.
    import tempfile

    try:
        _make_folders(path.parent, owner)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from None
    made = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(body)
            file.flush()
            os.fchmod(handle, 0o600)
            if owner is not None:
                os.fchown(handle, *owner)
            os.fsync(handle)
        made.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            made.unlink()
        raise _unwritable(path, error) from None


def _make_folders(folder: Path, owner: tuple[int, int] | None) -> None:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        if owner is not None:
            os.chown(place, *owner, follow_symlinks=False)


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror or error}.",
        hint="Check the rights of the folder, or set XDG_CONFIG_HOME to another one.",
    )


@dataclass(frozen=True, slots=True)
class _Saved:
    url: str
    token: str | None


def _read(path: Path) -> _Saved:
    try:
        loaded: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Saved("", None)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check its rights."
        ) from None
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(loaded, dict):
        raise _damaged(path)
    content = cast("dict[str, Any]", loaded)
    url, token = content.get("url", ""), content.get("token")
    if not isinstance(url, str) or not (token is None or isinstance(token, str)):
        raise _damaged(path)
    return _Saved(url, token)


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is damaged.", hint="Delete it, then sign in again with `hutch login`."
    )
