"""The steps between a machine that is ready and a first instance."""

import io
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hutch.domain.nodes import EngineKind
from hutch.setup import host
from hutch.setup import launch as launching
from hutch.setup.launch import Launch
from hutch.setup.options import parse
from hutch.setup.person import Person
from hutch.setup.prepare import Names
from hutch.setup.site import Daemon, Site
from hutch.setup.steps import Reporter, Step, StepFailedError, run_step, run_steps


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
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


class Lab:
    """The nodes of a hutch, behind its API."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses

    def list_nodes(self) -> list[dict[str, str]]:
        return [{"name": name, "address": address} for name, address in self.addresses.items()]

    def set_node_address(self, name: str, address: str) -> None:
        self.addresses[name] = address


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("192.0.2.5", "198.51.100.9"), ("10.1.2.3", "10.1.2.3"), ("198.51.100.9", "198.51.100.9")],
    ids=["gone", "of another network card", "unchanged"],
)
def test_a_later_run_tells_hutch_this_machines_new_address(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str
):
    launch = replace(launch, site=replace(launch.site, engine=EngineKind.INCUS))
    lab = Lab(lab1=was, far="203.0.113.1")
    monkeypatch.setattr(Launch, "client", lambda _: lab)
    monkeypatch.setattr(socket, "gethostname", lambda: "lab1.example")
    monkeypatch.setattr(host, "host_address", lambda: "198.51.100.9")
    monkeypatch.setattr(host, "own_addresses", lambda: {"198.51.100.9", "10.1.2.3"})
    ran = run_step(titled(launch, "This machine as a node"), Reporter(io.StringIO()))
    assert ran == (was != becomes)
    assert lab.addresses == {"lab1": becomes, "far": "203.0.113.1"}


def test_this_machine_has_its_loopback_address():
    assert "127.0.0.1" in host.own_addresses()
