"""A hutch server for each module, and people who use the command line on it.

server      `tests.cli.server.Server`
alice       a new member:  `alice.hutch("list", "--json")` gives `code`, `out` and `err`
bob         another one
ada         a new administrator
box         alice once more, in her home, with an instance `box`
"""

from collections.abc import Iterator

import pytest

from hutch.domain.people import Role
from hutch.store import migrate
from tests.cli.server import Person, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(database)
    started = Server(database, folder, tmp_path_factory.mktemp("homes"))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def alice(server: Server) -> Person:
    return server.person()


@pytest.fixture
def bob(server: Server) -> Person:
    return server.person()


@pytest.fixture
def ada(server: Server) -> Person:
    return server.person(Role.ADMIN)


@pytest.fixture
def box(alice: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Alice, in her home, with a running instance `box`."""
    assert alice.hutch("create", "box").code == 0
    monkeypatch.chdir(alice.home)
    return alice
