"""Files written in one piece, also where somebody else may write to the folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_text(path: Path, text: str, *, mode: int, group: int | None = None) -> None:
    """Puts a file in the place of `path`, of these rights and, where given, of root and `group`.

    The data folder is open to the server's user, who must gain nothing when root writes there:
    the text goes to a file that did not exist, under a name that nobody can know beforehand, and
    a link at either name is not followed.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(part, flags, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            if group is not None:
                os.fchown(handle, 0, group)
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(handle)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        raise
