"""./quickstart where an Incus is in use already: it takes its socket, and touches nothing of it."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hutch.setup import image, private
from hutch.setup.incus_api import IncusApi
from hutch.setup.machine import packages
from hutch.setup.private import PrivateIncus
from hutch.setup.site import Daemon, load_site
from tests.system.quickstarted import Setup, setup_of

pytestmark = [pytest.mark.incus, pytest.mark.timeout(600)]

THEIRS = ("/profiles/default", "/projects/default", "/projects/lab")


@pytest.fixture(scope="module")
def in_use() -> Iterator[PrivateIncus]:
    """An Incus that somebody set up for themselves, with a project, a pool and a network."""
    if os.geteuid() != 0 or not packages(with_incus=True).is_done():
        pytest.skip("needs root and the packages which ./test installs")
    incus = PrivateIncus(with_image=False)
    incus.start()
    with IncusApi(incus.socket) as api:
        api.call("POST", "/projects", {"name": "lab"})
    yield incus
    incus.remove()


def everything_of(incus: PrivateIncus) -> dict[str, Any]:
    """What the owner had: by name, as it is, without what merely counts its users."""
    with IncusApi(incus.socket) as api:
        mine = (*THEIRS, f"/networks/{incus.network}", f"/storage-pools/{incus.pool}",
                f"/projects/{incus.project}", f"/network-acls/{incus.names.acl}")  # fmt: skip
        found = {path: api.get(path) for path in mine}
        config = api.get("")["config"]
    return {"config": config} | {
        path: {key: value for key, value in seen.items() if key != "used_by"}
        for path, seen in found.items()
    }


@pytest.fixture(scope="module")
def setup(in_use: PrivateIncus) -> Iterator[Setup]:
    prefix = f"lab{in_use.id}"
    with setup_of(sys.executable, "-m", "hutch.setup") as found:
        found.options[-1] = "root"
        found.options += ["--no-instance", "--prefix", prefix, "--incus-dir", str(in_use.folder)]
        (found.data / "cache").mkdir(parents=True)
        shutil.copy(image.ensure_built(private.CACHE, lambda _: None), found.data / "cache")
        yield found
        found.hutch("down")
        with IncusApi(in_use.socket) as api:
            assert api.answers(), "hutch down stopped an Incus that is not hutch's"
    private.forget_network(prefix)


def test_it_works_in_a_project_of_its_own_and_changes_nothing_else(
    setup: Setup, in_use: PrivateIncus
):
    before = everything_of(in_use)
    setup.run()
    assert everything_of(in_use) == before
    site = load_site(setup.data)
    assert site.daemon is Daemon.FOREIGN
    with in_use.api() as api:
        assert set(api.names("/projects")) == {"default", "lab", in_use.project, site.names.project}
        assert set(api.names("/storage-pools")) == {in_use.pool, site.names.pool}
        with api.in_project(site.names.project) as inside:
            assert inside.names("/images/aliases") == ["base"]


def test_its_subnet_is_not_theirs(setup: Setup, in_use: PrivateIncus):
    setup.run()
    (node,) = json.loads(setup.hutch("node", "list", "--json"))
    assert node["engine"] == "incus"
    assert "  + " not in setup.run()


def test_a_daemon_that_went_away_is_said_and_not_replaced(setup: Setup, in_use: PrivateIncus):
    setup.run()
    in_use.stop_daemon()
    try:
        done = setup.try_run([*setup.argv, *setup.options])
    finally:
        in_use.start_daemon()
    assert done.returncode == 1
    assert f"Nothing answers at {in_use.socket}" in done.stdout
    assert not (Path(setup.data) / "run/incusd.json").exists()
