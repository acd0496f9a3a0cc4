"""Migrations: up, down, side by side, half-way, and on databases that are not ours."""

import multiprocessing
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from hutch.domain.ports import Reach
from hutch.errors import ConfigurationError, DatabaseUnavailableError
from hutch.services.vault import new_password
from hutch.store import migrate, ports, users
from hutch.store.db import Database
from hutch.store.tables import metadata
from tests.store import rows


def _engine(url: str):
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def _tables(url: str) -> set[str]:
    engine = _engine(url)
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def _execute(url: str, statement: str) -> None:
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _all(url: str, query: str) -> list[tuple[object, ...]]:
    engine = _engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return found


def _differences(url: str) -> list[object]:
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    finally:
        engine.dispose()


def test_an_empty_database_gets_every_table_of_the_models(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    assert _tables(empty_url) == set(metadata.tables)
    assert _differences(empty_url) == []
    assert migrate.revision_of(empty_url) == migrate.revisions()[-1]


def test_a_difference_between_models_and_migrations_would_be_seen(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    _execute(empty_url, "DROP INDEX uq_operations_live_target")
    assert [type(item).__name__ for item in _differences(empty_url)] == ["tuple"]


def test_every_migration_can_be_undone_and_done_again(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    for previous in [*reversed(migrate.revisions()[:-1]), "base"]:
        migrate.downgrade(empty_url, previous)
    assert _tables(empty_url) == set()
    assert migrate.revision_of(empty_url) is None
    migrate.upgrade(empty_url)
    assert _differences(empty_url) == []


def test_going_back_from_nothing_is_nothing(empty_url: str) -> None:
    migrate.downgrade(empty_url, "base")
    assert _tables(empty_url) == set()


def test_an_unknown_revision_is_refused(empty_url: str) -> None:
    with pytest.raises(ConfigurationError, match="no revision '7777'"):
        migrate.downgrade(empty_url, "7777")


def test_a_database_that_is_up_to_date_is_left_alone_without_loading_alembic(
    database_url: str,
) -> None:
    program = (
        "import sys; from hutch.store.migrate import upgrade; upgrade(sys.argv[1]);"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, database_url]).returncode == 0


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The scripts of a hutch with one more migration; the file in which to write it."""
    scripts = tmp_path / "scripts"
    shutil.copytree(migrate.SCRIPTS, scripts)
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    last = migrate.revisions()[-1]
    file = scripts / "versions" / f"v{int(last) + 1:04}_next.py"
    file.write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '{int(last) + 1:04}'\ndown_revision = '{last}'\n"
    )
    return file


async def test_rows_survive_a_change_of_their_table_and_its_undoing(
    database_url: str, next_version: Path
) -> None:
    database = Database(database_url)
    async with database.write() as session:
        owner = await rows.add_user(session)
        node = await rows.add_node(session)
        image = await rows.add_image(session)
        await rows.add_instance(session, owner, node, image)
    await database.close()
    with next_version.open("a") as file:
        file.write(
            "def upgrade():\n"
            "    with op.batch_alter_table('users') as batch:\n"
            "        batch.add_column(sa.Column('motto', sa.Text(), server_default='none'))\n"
            "        batch.alter_column('role', type_=sa.Text())\n"  # SQLite copies the table
            "def downgrade():\n"
            "    with op.batch_alter_table('users') as batch:\n"
            "        batch.drop_column('motto')\n"
            "        batch.alter_column('role', type_=sa.String(16))\n"
        )
    before = migrate.revisions()[-2]
    migrate.upgrade(database_url)
    _execute(database_url, "SELECT motto FROM users")
    migrate.downgrade(database_url, before)
    assert _differences(database_url) == []
    database = Database(database_url)
    async with database.read() as session:
        assert await users.find_user(session, owner.name, rows.QUOTA) == owner
        assert (await users.held(session, owner.id)).instances == 1
    await database.close()


async def test_ports_are_kept_when_those_for_the_browser_alone_come_and_go(
    database_url: str,
) -> None:
    database = Database(database_url)
    async with database.write() as session:
        owner, guest = await rows.add_user(session), await rows.add_user(session, "guest")
        node, image = await rows.add_node(session), await rows.add_image(session)
        instance_id = await rows.add_instance(session, owner, node, image)
        for host_port, reach in ((30000, Reach.NETWORK), (30001, Reach.NODE), (None, Reach.WEB)):
            port = rows.port(instance_id, host_port, reach)
            await ports.add_port(session, port)
            await ports.set_people(session, port.id, [guest.id])
        before = await ports.list_ports(session, instance_id)
    await database.close()
    migrate.downgrade(database_url, "0005")
    assert _all(database_url, "SELECT host_port, is_local FROM ports ORDER BY host_port") == [
        (22000, False), (30000, False), (30001, True),
    ]  # fmt: skip
    migrate.upgrade(database_url)
    database = Database(database_url)
    async with database.read() as session:
        after = await ports.list_ports(session, instance_id)
    await database.close()
    assert after == [port for port in before if port.reach is not Reach.WEB]
    assert after[1].people == ("guest",)


def test_a_migration_that_fails_half_way_changes_nothing(
    database_url: str, next_version: Path
) -> None:
    with next_version.open("a") as file:
        file.write(
            "def upgrade():\n"
            "    op.create_table('half', sa.Column('id', sa.Integer()))\n"
            "    op.execute('INSERT INTO half VALUES (1)')\n"
            "    op.execute('SELECT nonsense')\n"
        )
    with pytest.raises(DatabaseUnavailableError):
        migrate.upgrade(database_url)
    assert _tables(database_url) == set(metadata.tables)
    assert migrate.revision_of(database_url) == migrate.revisions()[-2]


def test_a_database_from_the_future_is_refused_and_left_alone(database_url: str) -> None:
    _execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for attempt in (migrate.upgrade, migrate.revision_of):
        with pytest.raises(ConfigurationError, match="newer version of hutch") as caught:
            attempt(database_url)
        assert "9999" in caught.value.message
        assert caught.value.hint
    assert _tables(database_url) == set(metadata.tables)


def test_a_database_with_tables_of_somebody_else_is_refused_and_left_alone(
    empty_url: str,
) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).parent.mkdir()
    _execute(empty_url, "CREATE TABLE users (id INTEGER)")
    with pytest.raises(ConfigurationError, match="not hutch's"):
        migrate.upgrade(empty_url)
    assert _tables(empty_url) == {"users"}


def _upgrade_at(url: str, barrier: "multiprocessing.synchronize.Barrier", failed) -> None:
    barrier.wait()
    try:
        migrate.upgrade(url)
    except BaseException as error:
        failed.put(repr(error))
        raise


def test_servers_that_start_at_once_migrate_once(empty_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, failed = spawn.Barrier(3), spawn.Queue()
    servers = [spawn.Process(target=_upgrade_at, args=(empty_url, barrier, failed)) for _ in "123"]
    for server in servers:
        server.start()
    for server in servers:
        server.join(60)
    assert [server.exitcode for server in servers] == [0] * 3, failed.get(timeout=1)
    assert _differences(empty_url) == []


async def test_readiness_knows_whether_the_tables_are_the_expected_ones(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).parent.mkdir()
    database = Database(empty_url)
    async with database.read() as session:
        assert not await migrate.at_head(session)
        migrate.upgrade(empty_url)
        assert await migrate.at_head(session)
        _execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
        assert not await migrate.at_head(session)
    await database.close()


def test_the_file_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "down" / "hutch.db"
    migrate.upgrade(f"sqlite:///{file}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        migrate.upgrade(f"sqlite:///{tmp_path}/file/hutch.db")
    with pytest.raises((ConfigurationError, DatabaseUnavailableError)):
        migrate.upgrade(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "hutch.db"
    file.write_text("not a database " * 100)
    with pytest.raises(ConfigurationError, match="is not a database"):
        migrate.upgrade(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        migrate.upgrade(url)


def test_a_server_that_is_not_there_is_reported_without_the_password(tmp_path: Path) -> None:
    password = new_password()
    with pytest.raises(DatabaseUnavailableError) as caught:
        migrate.upgrade(f"postgresql://hutch:{password}@/none?host={tmp_path}")
    assert password not in str(caught.value.as_dict())


def test_a_database_that_somebody_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LONGEST_WAIT", 0.2)
    url = f"sqlite:///{tmp_path / 'hutch.db'}"
    migrate.upgrade(url)
    other = sqlite3.connect(tmp_path / "hutch.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        migrate.upgrade(url)
    other.rollback()
    migrate.upgrade(url)
    other.close()
