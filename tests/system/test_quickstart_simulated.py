"""./quickstart where there is no Incus: everything runs, with simulated machines."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
def test_the_gateway_answers_and_knows_the_administrators_key(setup: Setup):
    assert "first" in setup.lab("list")


@pytest.mark.usefixtures("out")
def test_a_renewed_gateway_leaves_its_connections_to_the_older_one(setup: Setup):
    before = setup.pid_of("gateway")
    socket_ = str(setup.folder / "master")
    hold = [*setup.through_gateway(), "-M", "-S", socket_, "-N", "-f", "lab"]
    assert setup.try_run(hold).returncode == 0
    # The settings of the gateway are others now: it hands over.
    out = setup.run("--set", "gateway_idle_minutes=1439")
    assert "  + SSH gateway" in out
    assert setup.pid_of("gateway") != before
    assert "first" in setup.lab("list")
    # Over the connection of before, and over no other.
    ask = [*setup.through_gateway(), "-S", socket_, "-o", "ProxyCommand=false", "lab", "list"]
    again = setup.try_run(ask)
    assert "first" in again.stdout, again.stderr
    assert setup.try_run([*ask[:-2], "-O", "exit", "lab"]).returncode == 0
    setup.run("--set", "gateway_idle_minutes=1440")


@pytest.mark.usefixtures("out")
def test_a_gateway_that_is_killed_comes_back(setup: Setup):
    os.kill(setup.pid_of("gateway"), signal.SIGKILL)
    setup.run()
    assert "first" in setup.lab("list")


def test_a_port_that_another_program_has_is_said(setup: Setup, out: str):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken = other.getsockname()[1]
        done = setup.try_run([*setup.argv, *setup.options, "--set", f"gateway_port={taken}"])
    assert done.returncode == 1
    assert f"Another program has port {taken}" in done.stdout
    assert "--set gateway_port" in done.stdout
    setup.run()


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
    for flag in ("--engine", "--no-instance", "--data", "--yes", "--pool", "--set", "--desktop"):
        assert flag in done.stdout


@pytest.mark.parametrize("mask", ["077", "000"])
def test_what_is_installed_is_everyones_to_read_and_nobodys_to_write(tmp_path: Path, mask: str):
    # With no packages to install and no sources it ends early, with the environment made.
    shutil.copy(SOURCE / "quickstart", tmp_path)
    for name in ("requirements.txt", "pyproject.toml", "src", "deploy"):
        (tmp_path / name).touch()
    command = f"umask {mask}; ./quickstart --yes --engine simulated --data {tmp_path}/data"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=120, check=False)
    modes = {
        path: path.stat().st_mode & 0o777
        for path in (tmp_path / "data").rglob("*")
        if not path.is_symlink() and "site-packages" not in path.parts
    }
    assert tmp_path / "data/venv/pyvenv.cfg" in modes
    assert set(modes.values()) <= {0o755, 0o644}
