"""Runs the contract over every engine: the simulated one here and now, the real ones when the
machine can. A simulation that lies about the engine fails here."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Vendor
from hutch.engine.simulated import SimulatedEngine
from tests.engine.contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.contract import Site


class SimulatedNodeFiles:
    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    def add(self) -> str:
        path = f"/dev/test/{next(self._numbers)}"
        node = DeviceNode(path, 1, 3)
        self._engine.add_accelerator(FoundAccelerator(path, Vendor.SIMULATED, "", nodes=(node,)))
        return path

    def remove(self, path: str) -> None:
        self._engine.lose_accelerator(path)


@pytest.fixture(scope="module")
def simulated_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    state: Path = tmp_path_factory.mktemp("simulated") / "engine.db"
    engine = SimulatedEngine(state)
    return Site(engine, "base", "10.0.0.0/16", "192.0.2.1", SimulatedNodeFiles(engine))


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
