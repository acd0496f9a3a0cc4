"""Bringing a database to the tables that this version of hutch expects.

Everything happens in one transaction that holds a lock: of two servers that start at once the
second waits, and finds the work done; what fails half-way leaves the database as it was.
"""

import hashlib
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from hutch.errors import ConfigurationError, DatabaseUnavailableError
from hutch.store.db import Session

SCRIPTS = Path(__file__).parent / "migrations"
LONGEST_WAIT = 60.0
"""Seconds for which a server waits while another one migrates the same database."""

_VERSION = text("SELECT version_num FROM alembic_version")
_LOCK = int.from_bytes(
    hashlib.blake2b(b"hutch migrations", digest_size=8).digest(), "big", signed=True
)


def revisions() -> list[str]:
    """Every revision that this version of hutch knows, oldest first."""
    files = (SCRIPTS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py")
    return sorted(file.name[1:5] for file in files)


def upgrade(url: str) -> None:
    """Bring a database to the newest revision; make its file or fill it when it is empty.

    Quick when there is nothing to do. Raises ConfigurationError when the database is newer than
    this version of hutch or is not hutch's, DatabaseUnavailableError when it does not answer.
    """
    head = revisions()[-1]
    with _opened(url) as engine:
        with engine.connect() as connection:
            found = _revision(connection)
        if found != head:
            _migrate(engine, head)


def downgrade(url: str, revision: str) -> None:
    """Bring a database back to a revision, `base` for no tables at all. What they held is lost."""
    if revision != "base" and revision not in revisions():
        raise ConfigurationError(
            f"There is no revision {revision!r} of the database.",
            hint=f"Give base or one of {', '.join(revisions())}.",
        )
    with _opened(url) as engine:
        _migrate(engine, revision)


def revision_of(url: str) -> str | None:
    """The revision that a database has; None when it has no tables of hutch yet."""
    with _opened(url) as engine, engine.connect() as connection:
        return _revision(connection)


async def at_head(session: Session) -> bool:
    """Whether the database has the tables that this version of hutch expects."""
    try:
        found = (await session.execute(_VERSION)).scalar_one_or_none()
    except (ProgrammingError, OperationalError) as error:
        if _is_missing(error):
            return False
        raise
    return found == revisions()[-1]


def _migrate(engine: Engine, goal: str) -> None:
    # Imported here: a server that finds its database up to date starts without it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LONGEST_WAIT:.0f}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _revision(connection)
        if found == goal or (found is None and goal == "base"):
            return
        config.attributes["connection"] = connection
        try:
            if goal == "base" or (found is not None and goal < found):
                command.downgrade(config, goal)
            else:
                command.upgrade(config, goal)
        except (ProgrammingError, OperationalError) as error:
            if "already exists" in str(error.orig):
                raise ConfigurationError(
                    "The database already holds tables that are not hutch's.",
                    hint="Give hutch a database of its own in database_url.",
                ) from error
            raise
        _check_references(connection)


def _revision(connection: Connection) -> str | None:
    """The database's revision. Raises ConfigurationError when this version does not know it."""
    try:
        # A savepoint: on PostgreSQL a statement that fails would end the transaction around it.
        with connection.begin_nested():
            found = connection.execute(_VERSION).scalar_one_or_none()
    except (ProgrammingError, OperationalError) as error:
        if _is_missing(error):
            return None
        raise
    if found is not None and found not in revisions():
        raise ConfigurationError(
            f"The database was made by a newer version of hutch (its revision is {found}, "
            f"this version knows up to {revisions()[-1]}).",
            hint="Install that version again, or restore the backup from before the upgrade.",
            revision=found,
        )
    return found


def _is_missing(error: DBAPIError) -> bool:
    return type(error.orig).__name__ == "UndefinedTable" or "no such table" in str(error.orig)


def _check_references(connection: Connection) -> None:
    """SQLite watches no foreign keys while tables are copied: they are checked at the end."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise ConfigurationError(
                f"The migration would leave {len(broken)} rows that refer to nothing.",
                hint="Nothing was changed. This is a bug of hutch: please report it.",
            )


@contextmanager
def _opened(url: str) -> Generator[Engine]:
    try:
        address = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "database_url is not an address of a database.",
            hint="Begin with sqlite:/// or postgresql://.",
        ) from None
    is_sqlite = address.get_backend_name() == "sqlite"
    engine = _sqlite(address) if is_sqlite else _postgresql(address)
    try:
        yield engine
    except DBAPIError as error:
        reason = (str(error.orig).splitlines() or [type(error.orig).__name__])[0][:200]
        if "not a database" in reason:
            raise ConfigurationError(
                f"{address.database} is not a database.",
                hint="Restore it from your backup, or name another file in database_url.",
            ) from error
        raise DatabaseUnavailableError(
            f"The database cannot be opened or brought up to date: {reason}.",
            hint="Check database_url, and that the database runs and lets hutch in.",
        ) from error
    finally:
        engine.dispose()


def _postgresql(address: URL) -> Engine:
    return create_engine(
        address.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"connect_timeout": 10},
    )


def _sqlite(address: URL) -> Engine:
    if not address.database or address.database == ":memory:":
        raise ConfigurationError(
            "database_url names no file.", hint="Give sqlite:///path/to/hutch.db."
        )
    _make_file(Path(address.database))
    engine = create_engine(
        address.set(drivername="sqlite"),
        poolclass=NullPool,
        connect_args={"timeout": LONGEST_WAIT},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: Any) -> None:
    """Switch to a write-ahead log, which SQLite refuses at once while another process does so."""
    import sqlite3

    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _make_file(file: Path) -> None:
    """An empty file that its owner alone can read: the database holds hashes and host keys."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be made: {error.strerror}.",
            hint="Check the folder's owner and rights, or set data to another folder.",
        ) from error
