"""Runs the contract over every engine: the simulated one here and now, the real ones when the
machine can. A simulation that lies about the engine fails here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.engine.simulated import SimulatedEngine
from tests.engine.contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.contract import Site


@pytest.fixture(scope="module")
def simulated_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    state: Path = tmp_path_factory.mktemp("simulated") / "engine.db"
    return Site(SimulatedEngine(state), "base", "10.0.0.0/16", "192.0.2.1")


@pytest.fixture(
    scope="module",
    params=[
        "simulated",
        pytest.param("incus", marks=pytest.mark.incus),
        pytest.param("lxd", marks=pytest.mark.incus),
    ],
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    return request.getfixturevalue(f"{request.param}_site")
