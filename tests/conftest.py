"""What every test may ask for by naming it as a parameter.

Databases, each test's own and already migrated:
    database_url    a URL; the test runs twice, `[sqlite]` and `[postgresql]`
    database        the same, opened: `hutch.store.db.Database`
    sqlite_url, postgresql_url
                    one of them alone
    empty_url       as `database_url`, but with no tables
    postgresql_server
                    the server itself (`tests.postgresql.Server`), shared by the whole run: stop it
                    only through `stoppable_server`, which is one of its own

A lab in that database, on the simulated engine:
    context         `hutch.services.context.Context`; settings are the defaults, data is in tmp_path
    clock           the context's clock (`tests.lab.Clock`): `clock.forward(minutes=5)`,
                    `clock.back(days=1)`, `clock.stop()`; it runs in real time until stopped
    lab             what is in it: `lab.node`, `lab.image` (called `base`), `lab.actors`
    alice, bob      members, as `Actor`s with an address and a request id
    ada             an administrator
    passwords       everyone's password by name, made anew in each run

`tests.lab` has what is not a fixture: `open_context(url, data)` is another server on the same
database, `with_settings(context, quota_instances=3)` is the same one under other settings.

To use only one database in a module:  `pytestmark = pytest.mark.parametrize("database_url",
["sqlite"], indirect=True)`. Without PostgreSQL's programs its tests are skipped and say so.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.agent import quotas
from hutch.domain.people import Actor
from hutch.services.context import Context
from hutch.store import migrate
from hutch.store.db import Database
from tests import lab as labs
from tests import postgresql
from tests.lab import Clock, Lab

pytest_plugins = [name for name in ("tests.engine.incus_fixtures",) if find_spec(name) is not None]
DATABASES = ["sqlite", "postgresql"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """LXD is a real engine as well: its tests run with those on Incus."""
    for item in items:
        if "[lxd" in item.name:
            item.add_marker(pytest.mark.incus)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Temporary files in memory: thousands of databases that wait for no disk."""
    memory = Path("/dev/shm")
    if config.option.basetemp is None and os.access(memory, os.W_OK):
        config.option.basetemp = str(memory / f"hutch-tests-{os.getpid()}")
    # Whoever runs the tests may be signed in at a hutch of this machine: no test may use that.
    os.environ["XDG_CONFIG_HOME"] = str(Path(os.devnull) / "nobody-is-signed-in")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    basetemp = str(config.option.basetemp or "")
    if basetemp.startswith(f"/dev/shm/hutch-tests-{os.getpid()}"):
        shutil.rmtree(basetemp, ignore_errors=True)


def _start_postgresql() -> postgresql.Server:
    programs = postgresql.programs()
    if programs is None:
        pytest.skip(f"PostgreSQL's programs are not installed: {postgresql.INSTALL}")
    server = postgresql.Server(programs)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    server = _start_postgresql()
    yield server
    server.remove()


@pytest.fixture
def stoppable_server() -> Iterator[postgresql.Server]:
    server = _start_postgresql()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: postgresql.Server) -> str:
    name = postgresql_server.create()
    migrate.upgrade(postgresql_server.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "hutch.db"
    migrate.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "hutch.db")
    return f"sqlite:///{tmp_path / 'hutch.db'}"


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.Server, postgresql_template: str) -> Iterator[str]:
    name = postgresql_server.create(template=postgresql_template)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'folder' / 'hutch.db'}"
        return
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def _filled(
    database_url: str, tmp_path: Path, clock: Clock
) -> AsyncIterator[tuple[Context, Lab]]:
    (tmp_path / "data").mkdir()
    opened = labs.open_context(database_url, tmp_path / "data", now=clock)
    filled = await labs.fill(opened.db, tmp_path / "engine.db", opened.settings.default_quota)
    yield opened, filled
    await labs.close_context(opened)


@pytest.fixture
def context(_filled: tuple[Context, Lab]) -> Context:
    return _filled[0]


@pytest.fixture
def lab(_filled: tuple[Context, Lab]) -> Lab:
    return _filled[1]


@pytest.fixture
def alice(lab: Lab) -> Actor:
    return lab.actors["alice"]


@pytest.fixture
def bob(lab: Lab) -> Actor:
    return lab.actors["bob"]


@pytest.fixture
def ada(lab: Lab) -> Actor:
    return lab.actors["ada"]


@pytest_asyncio.fixture
async def passwords() -> dict[str, str]:
    return await labs.passwords()


@pytest.fixture(autouse=True)
def _counted_disks(request: pytest.FixtureRequest) -> None:
    """As the agent of a node does all the time: on btrfs nothing else keeps limits enforced."""
    if request.node.get_closest_marker("incus") is not None and os.geteuid() == 0:
        quotas.look()
