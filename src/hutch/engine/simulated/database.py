"""The file that the simulated engine lives in, and the log of what changed in it.

A change and the line in `changes` that announces it are one transaction, so the largest id in
`changes` is a version of everything that can be listed.
"""

import sqlite3
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hutch.engine.base import Change

CHANGES_KEPT = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (alias TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS containers (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    address TEXT NOT NULL,
    power TEXT NOT NULL DEFAULT 'stopped',
    started_at REAL,
    limits TEXT,
    labels TEXT NOT NULL,
    written INTEGER NOT NULL DEFAULT 0,
    nvidia_driver INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS containers_by_address ON containers (address);
CREATE TABLE IF NOT EXISTS forwards (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    name TEXT NOT NULL,
    listen_address TEXT NOT NULL,
    listen_port INTEGER NOT NULL,
    target_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    PRIMARY KEY (container, name)
);
CREATE INDEX IF NOT EXISTS forwards_by_port ON forwards (listen_port);
CREATE TABLE IF NOT EXISTS accelerators (address TEXT PRIMARY KEY, found TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS devices (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    pci TEXT,
    source TEXT,
    path TEXT,
    PRIMARY KEY (container, name)
);
CREATE TABLE IF NOT EXISTS files (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    path TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (container, path)
);
CREATE TABLE IF NOT EXISTS nodes (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    target BLOB,
    PRIMARY KEY (container, path)
);
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    name TEXT NOT NULL,
    UNIQUE (container, name)
);
CREATE TABLE IF NOT EXISTS snapshot_files (
    snapshot INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    path TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (snapshot, path)
);
CREATE TABLE IF NOT EXISTS snapshot_nodes (
    snapshot INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    target BLOB,
    PRIMARY KEY (snapshot, path)
);
CREATE TABLE IF NOT EXISTS changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT,
    action TEXT NOT NULL
);
"""


class Database:
    """One connection to the file. Raises sqlite3.Error when it is gone or broken."""

    def __init__(self, path: Path, images: Iterable[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, isolation_level=None, timeout=10.0, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change made through this connection."""
        if self.one("PRAGMA journal_mode") != "wal":
            self.execute("PRAGMA journal_mode = WAL")
        # Power loss may cost the last changes; the death of a process never does.
        self.execute("PRAGMA synchronous = OFF")
        self.execute("PRAGMA foreign_keys = ON")
        if not self.one("SELECT 1 FROM sqlite_master WHERE name = 'changes'"):
            self._make(images)
        elif not self.one("SELECT 1 FROM sqlite_master WHERE name = 'devices'"):
            # A state from before there were accelerators.
            self._make(())
            self.execute(
                "ALTER TABLE containers ADD COLUMN nvidia_driver INTEGER NOT NULL DEFAULT 0"
            )
        elif not self.one("SELECT 1 FROM sqlite_master WHERE name = 'nodes'"):
            # A state from before files had anything but content.
            self._make(())

    def _make(self, images: Iterable[str]) -> None:
        with self.writing():
            for statement in _SCHEMA.split(";"):
                self.execute(statement)
            self.execute("INSERT OR IGNORE INTO meta VALUES ('boot_id', ?)", new_boot_id())
            for alias in images:
                self.execute("INSERT OR IGNORE INTO images VALUES (?)", alias)

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def row(self, statement: str, *values: Any) -> sqlite3.Row | None:
        return self.execute(statement, *values).fetchone()

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row; None when there is none."""
        row = self.row(statement, *values)
        return None if row is None else row[0]

    @contextmanager
    def writing(self) -> Generator[None]:
        """One transaction, begun as a writer so that two processes queue instead of failing."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")
        self.on_change()

    def announce(self, name: str | None, action: str) -> None:
        """Log a change of a container, or with None of all of them."""
        number = self.execute(
            "INSERT INTO changes (name, action) VALUES (?, ?)", name, action
        ).lastrowid
        if number is not None and number % 1000 == 0:
            self.execute("DELETE FROM changes WHERE id <= ?", number - CHANGES_KEPT)

    def last_change(self) -> int:
        return self.one("SELECT coalesce(max(id), 0) FROM changes")

    def changes_since(self, number: int) -> tuple[int, list[Change]]:
        """The number of the last change, and the changes after `number`.

        One Change without a name stands for all when some are no longer known.
        """
        rows = self.execute(
            "SELECT id, name, action FROM changes WHERE id > ? ORDER BY id", number
        ).fetchall()
        if not rows:
            return number, []
        if rows[0]["id"] > number + 1:
            return rows[-1]["id"], [Change(None, "missed")]
        return rows[-1]["id"], [Change(row["name"], row["action"]) for row in rows]


def new_boot_id() -> str:
    return str(uuid.uuid4())
