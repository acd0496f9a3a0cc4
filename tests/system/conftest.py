"""A hutch that runs for a whole module of tests, with alice and ada signed in."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hutch.setup.private import PrivateIncus
from tests.system.site import Person, Site, open_site


@pytest_asyncio.fixture(scope="module")
async def site(
    incus: PrivateIncus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with open_site(incus, folder, f"sqlite:///{folder / 'hutch.db'}") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def alice(site: Site) -> Person:
    return await site.person("alice")


@pytest_asyncio.fixture(scope="module")
async def ada(site: Site) -> Person:
    return await site.person("ada")
