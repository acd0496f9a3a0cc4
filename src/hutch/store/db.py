"""The database: opening it, and the two kinds of transaction that hutch knows.

`read()` sees committed rows and takes no lock. `write()` is one atomic change: on SQLite it begins
IMMEDIATE, so that what it reads cannot change under it (SQLAlchemy's default begins deferred, and
two writers that both read "one left" would both take it); on PostgreSQL it is READ COMMITTED and
whoever counts something first takes the `lock` for it.
"""

import hashlib
import logging
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import structlog
from sqlalchemy import (
    Connection,
    CursorResult,
    Dialect,
    Engine,
    Executable,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hutch.errors import DatabaseUnavailableError, InvalidInputError

# It writes every statement with its values to the log at level debug, password hashes among them.
log = structlog.get_logger(__name__)
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

Session: TypeAlias = AsyncConnection
"""An open transaction, as the store's functions take it."""

BUSY_SECONDS = 5.0
"""How long a writer waits for another one before it gives up."""

READ_BUSY_SECONDS = 0.25
"""The same for a reader of SQLite, which nothing holds up but the recovery of a log."""

LOCK_SECONDS = 15
"""The same on PostgreSQL, where all writers of all servers that want one lock stand in one line."""

_HASTY = "hutch_hasty"
"""The mark of a connection that does not wait for the disk."""

IDLE_SECONDS = 60
"""After this long without a word PostgreSQL ends a transaction: a server that hangs in the middle
of one must not hold up the others."""


class Database:
    """An open database. Close it with `close()`."""

    def __init__(self, url: str) -> None:
        """`url` is sqlite:///path or postgresql://…; nothing is contacted yet."""
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self._writer = _sqlite(url)
            self._direct = _sqlite_reader(url)
        else:
            self._writer = _postgresql(url)
            self._direct = None
            self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
        self._hasty = self._writer.execution_options(**{_HASTY: True})

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Session]:
        """Committed rows, each statement on its own."""
        with _explained():
            if self._direct is not None:
                with self._direct.connect() as connection:
                    yield cast("Session", _DirectSession(connection))
            else:
                async with self._reader.connect() as session:
                    yield session

    @asynccontextmanager
    async def write(self, *, durable: bool = True) -> AsyncGenerator[Session]:
        """One atomic change: committed at the end of the block, undone by any exception.

        With `durable` it is on the disk then. Without, the next durable one takes it there: a power
        cut until then may take it back, and every one after it. That is for what is asked again, or
        said again, as if it had never been; a crash of hutch takes nothing.
        """
        with _explained():
            writer = self._writer if durable else self._hasty
            async with writer.begin() as session:
                if not durable and not self.is_sqlite:
                    await session.execute(text("SET LOCAL synchronous_commit TO OFF"))
                yield session

    async def close(self) -> None:
        await self._writer.dispose()
        if self._direct is not None:
            self._direct.dispose()
        else:
            await self._reader.dispose()


class _DirectSession:
    """A SQLite connection that is read in the event loop's own thread.

    With a write-ahead log a reader waits for nobody, and what hutch reads is found in a fraction
    of the time that it takes to hand a statement to another thread and its rows back.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(statement)


async def lock(session: Session, name: str) -> None:
    """Make concurrent writers of `name` take turns until this transaction ends.

    On SQLite every write transaction already has its turn.
    """
    if session.dialect.name == "postgresql":
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big", signed=True)
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def violated(error: IntegrityError) -> str:
    """What a refused row collided with: `table.column` on SQLite, the constraint on PostgreSQL.

    Both contain the table's and the first column's name, which is what callers look for.
    """
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return str(diagnosis.constraint_name)
    return str(error.orig)


def columns(row: Any, **parsed: Any) -> dict[str, Any]:
    """A row as a plain dict, to build a dataclass from, with `parsed` in place of its columns."""
    mapping: Mapping[str, Any] = row._mapping
    return {**mapping, **parsed}


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(
        make_url(url).set(drivername="sqlite+aiosqlite"),
        # One writer of this process at a time: they would only wait for each other in the database.
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS * 6,
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        hasty = bool(connection.get_execution_options().get(_HASTY))
        if connection.info.get(_HASTY, False) is not hasty:
            connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if hasty else 'FULL'}")
            connection.info[_HASTY] = hasty
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _sqlite_reader(url: str) -> Engine:
    engine = create_engine(
        make_url(url).set(drivername="sqlite"),
        # One more connection is cheap; waiting for one here would stop the whole server.
        pool_size=4,
        max_overflow=-1,
        # For the same reason: a reader has to wait only while a log is recovered after a crash.
        connect_args={"timeout": READ_BUSY_SECONDS},
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions of its own: hutch says how they begin.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        # A granted port or lease must survive a power cut, not only a crash of hutch.
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _postgresql(url: str) -> AsyncEngine:
    address = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_async_engine(
        address,
        pool_size=8,
        max_overflow=4,
        pool_timeout=BUSY_SECONDS * 2,
        pool_pre_ping=True,
        connect_args={"connect_timeout": int(BUSY_SECONDS)},
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        cursor.close()
        connection.commit()

    return engine


class _explained:  # noqa: N801 - reads as a statement
    """Turns a database that is gone, locked or full into DatabaseUnavailableError.

    And a value that it cannot take (a NUL in a text, a number of more than 64 bits) into
    InvalidInputError: nobody has anything by that name or of that size.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, IntegrityError) or error is None:
            return
        if isinstance(error, (DataError, OverflowError, UnicodeEncodeError)):
            raise InvalidInputError(
                "A value is too long, too large or not text.", hint="Give a shorter, plain one."
            ) from error
        unavailable = isinstance(error, (SQLAlchemyError, sqlite3.Error, OSError)) and (
            not isinstance(error, DBAPIError) or _is_operational(error)
        )
        if unavailable:
            # The reason may name the database's host and account, which is nobody's to know.
            log.warning("database unavailable", reason=_reason(error))
            raise DatabaseUnavailableError(
                "The database does not answer.",
                hint="Nothing was changed. Try again in a moment; "
                "if it goes on, your administrator should look at the database.",
            ) from error


def _is_operational(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        # SQLite's word for a statement that is wrong, or for a database without hutch's tables.
        return "no such table" in str(error.orig)
    name = type(error.orig).__name__
    return error.connection_invalidated or name in {
        "OperationalError",
        "InterfaceError",
        "AdminShutdown",
        "CannotConnectNow",
        "ConnectionTimeout",
        "DiskFull",
        "LockNotAvailable",
        "DeadlockDetected",
        "SerializationFailure",
        "TooManyConnections",
        "UndefinedTable",
    }


def _reason(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    # One line, and never the statement with its parameters: they may hold a secret.
    return str(origin).splitlines()[0][:200] if str(origin) else type(origin).__name__
