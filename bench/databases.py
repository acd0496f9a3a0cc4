"""Fresh databases for measurements: SQLite in a folder, PostgreSQL from the distribution.

PostgreSQL runs with its own settings for durability, as in a lab: a benchmark without them would
measure something that nobody runs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests import postgresql

from hutch.store import migrate

KINDS = ("sqlite", "postgresql")


def available() -> list[str]:
    """The kinds of database that can run on this machine."""
    return [kind for kind in KINDS if kind == "sqlite" or postgresql.programs() is not None]


@contextmanager
def fresh(kind: str) -> Generator[tuple[Path, str]]:
    """An empty data folder and the URL of an empty, migrated database."""
    # Not below /tmp, which is often kept in memory: there, being durable costs nothing.
    folder = Path(tempfile.mkdtemp(prefix="hutch-bench-", dir="/var/tmp"))
    server: postgresql.Server | None = None
    try:
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'hutch.db'}"
        else:
            programs = postgresql.programs()
            if programs is None:
                raise RuntimeError(f"PostgreSQL is not installed: {postgresql.INSTALL}")
            server = postgresql.Server(programs, durable=True)
            server.start()
            url = server.url(server.create())
        migrate.upgrade(url)
        yield folder, url
    finally:
        if server is not None:
            server.remove()
        shutil.rmtree(folder, ignore_errors=True)
