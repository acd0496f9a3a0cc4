"""A house for the whole folder, and a gateway in it.

house       `tests.gateway.house.House`, on SQLite (`test_jump` and `test_register` have one on each
            database); `house.gateway(...)` starts another gateway
gateway     a gateway that runs all the time, with settings as they come
alice, bob  members with a key each, new in every test
box         a running machine of alice's
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from hutch.domain.instances import Instance
from hutch.store import migrate
from tests import postgresql
from tests.gateway.house import House, Resident, Running, open_house


@asynccontextmanager
async def open_on(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A house on the database that the fixture's parameter names."""
    folder = tmp_path_factory.mktemp("house")
    url = f"sqlite:///{folder / 'hutch.db'}"
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        url = server.url(server.create())
    migrate.upgrade(url)
    async with open_house(folder, url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="package")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    url = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(url)
    async with open_house(folder, url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="package")
async def gateway(house: House) -> Running:
    return await house.gateway()


@pytest_asyncio.fixture
async def alice(house: House) -> Resident:
    return await house.person()


@pytest_asyncio.fixture
async def bob(house: House) -> Resident:
    return await house.person()


@pytest_asyncio.fixture
async def box(house: House, alice: Resident) -> Instance:
    return await house.machine(alice)
