"""./quickstart where there is no Incus: everything runs, with simulated machines."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.system.quickstarted import SOURCE, USER, Setup, setup_of


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with setup_of(sys.executable, "-m", "hutch.setup", "--engine", "simulated") as found:
        # Nobody else may be able to enter the folder with the sources, which run from there here.
        found.options[-1] = "root" if os.geteuid() == 0 else USER
        yield found
        found.hutch("down")


@pytest.fixture(scope="module")
def out(setup: Setup) -> str:
    return setup.run()


def test_everything_runs_but_a_login(setup: Setup, out: str):
    assert "none can be logged in to" in out
    assert "ssh -p" not in out
    (instance,) = json.loads(setup.hutch("list", "--json"))
    assert (instance["name"], instance["state"]) == ("first", "running")


@pytest.mark.usefixtures("out")
def test_a_second_run_changes_nothing(setup: Setup):
    assert "  + " not in setup.run()


@pytest.mark.usefixtures("out")
def test_the_other_engine_is_refused_in_the_same_folder(setup: Setup):
    done = setup.try_run([sys.executable, "-m", "hutch.setup", *setup.options])
    assert done.returncode != 0
    assert "--engine simulated" in done.stdout


def test_who_is_not_root_is_offered_the_simulated_engine():
    argv = [str(SOURCE / "quickstart"), "--yes"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid", "65534", "--clear-groups", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    assert "sudo ./quickstart" in done.stderr
    assert "./quickstart --engine simulated" in done.stderr


def test_help_needs_nothing():
    done = subprocess.run(
        [str(SOURCE / "quickstart"), "--help"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    for flag in ("--engine", "--no-instance", "--data", "--yes", "--pool", "--set"):
        assert flag in done.stdout
