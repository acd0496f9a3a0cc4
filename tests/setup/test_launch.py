"""The steps between a machine that is ready and a first instance."""

import io
import os
import re
from pathlib import Path

import pytest

from hutch.domain.nodes import EngineKind
from hutch.setup import launch as launching
from hutch.setup.launch import Launch
from hutch.setup.options import parse
from hutch.setup.person import Person
from hutch.setup.prepare import Names
from hutch.setup.site import Daemon, Site
from hutch.setup.steps import Reporter, Step, StepFailedError, run_step, run_steps


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    data = tmp_path / "data"
    data.mkdir()
    argv = ["--engine", "simulated", "--data", str(data)]
    site = Site(
        data=data,
        engine=EngineKind.SIMULATED,
        daemon=Daemon.NONE,
        socket=data / "unix.socket",
        incus_folder=data,
        names=Names(),
        user="",
        groups=(),
        units=False,
    )
    options = parse(argv, is_root=False, has_terminal=False, environment={"HOME": str(tmp_path)})
    return Launch(options, site, Person("kim", os.getuid(), os.getgid(), tmp_path))


def titled(launch: Launch, title: str) -> Step:
    return next(step for step in launching.steps(launch) if step.title == title)


def failing() -> Step:
    def do(_: object) -> None:
        raise StepFailedError("The network went away")

    return Step("Services", lambda: False, do)


def test_looking_for_the_administrator_makes_nothing(launch: Launch):
    assert not titled(launch, "Database and administrator").is_done()
    assert not titled(launch, "Database and administrator").is_done()
    assert list(launch.site.data.iterdir()) == []


def test_the_password_is_told_even_if_what_follows_fails(launch: Launch):
    out = io.StringIO()
    steps = [titled(launch, "Database and administrator"), failing()]
    with pytest.raises(StepFailedError):
        run_steps(steps, Reporter(out))
    assert launch.password
    assert re.search(rf"made kim, with the password {launch.password} ", out.getvalue())


def test_an_administrator_is_made_once(launch: Launch):
    step = titled(launch, "Database and administrator")
    assert run_step(step, Reporter(io.StringIO()))
    launch.password, launch.administrator = None, ""
    assert not run_step(step, Reporter(io.StringIO()))
    assert launch.administrator == "kim"
    assert launch.password is None
