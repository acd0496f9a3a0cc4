"""What a command line of ./quickstart means."""

from pathlib import Path

import pytest

from hutch.domain.nodes import EngineKind
from hutch.setup import host
from hutch.setup.__main__ import main, without_engine
from hutch.setup.host import Finding
from hutch.setup.options import Options, parse

HOME = {"HOME": "/home/kim"}


def parsed(*arguments: str, is_root: bool = True, has_terminal: bool = True) -> Options:
    return parse(arguments, is_root=is_root, has_terminal=has_terminal, environment=HOME)


def test_nothing_said_means_real_containers_and_a_first_instance():
    options = parsed()
    assert options.engine is EngineKind.INCUS
    assert options.first_instance
    assert options.data == Path("/var/lib/hutch")
    assert options.pool == "auto"
    assert (options.names.project, options.names.network) == ("hutch", "hutchbr0")


def test_who_is_not_root_keeps_everything_at_home():
    options = parsed("--engine", "simulated", is_root=False)
    assert options.data == Path("/home/kim/.local/share/hutch")
    assert options.command_folder == Path("/home/kim/.local/bin")


def test_the_data_folder_of_the_desktop_is_honoured():
    environment = {**HOME, "XDG_DATA_HOME": "/data/kim"}
    options = parse([], is_root=False, has_terminal=False, environment=environment)
    assert options.data == Path("/data/kim/hutch")


def test_all_the_flags():
    options = parsed("--no-instance", "--data", "/srv/hutch", "--yes", "--pool", "dir",
                     "--set", "listen_port=7481", "--set", "log_level=debug")  # fmt: skip
    assert not options.first_instance
    assert options.data == Path("/srv/hutch")
    assert not options.ask
    assert options.pool == "dir"
    assert options.settings == {"listen_port": "7481", "log_level": "debug"}


def test_the_image_with_a_desktop_is_made_when_it_is_asked_for():
    assert parsed().images == ("base",)
    assert parsed("--desktop").images == ("base", "desktop")


def test_without_a_terminal_nothing_is_asked():
    assert not parsed(has_terminal=False).ask


@pytest.mark.parametrize(
    "arguments",
    [["--engine", "docker"], ["--pool", "lvm"], ["--set", "novalue"], ["--prefix", "UPPER"],
     ["--prefix", "averyverylongname"], ["--unknown"], ["surplus"]],
)  # fmt: skip
def test_a_wrong_flag_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_offer_of_the_simulated_engine_keeps_the_other_flags():
    assert without_engine(["--engine", "incus", "--yes", "--engine=incus", "--data", "/d"]) == [
        "--yes", "--data", "/d",
    ]  # fmt: skip


def test_a_machine_that_cannot_run_incus_is_offered_what_runs_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("user namespaces", "The kernel refuses", "Set a sysctl")
    monkeypatch.setattr(host, "check_host", lambda _data: [finding])
    assert main(["--yes", "--data", "/nowhere/data"]) == 3
    said = capsys.readouterr().out
    assert "x user namespaces: The kernel refuses" in said
    assert "Set a sysctl" in said
    assert "./quickstart --engine simulated --yes --data /nowhere/data" in said


def test_plain_folders_are_enough_for_who_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    findings = [Finding("file system", "no btrfs", ""), Finding("disk space", "full", "")]
    monkeypatch.setattr(host, "check_host", lambda _data: findings)
    assert main(["--yes", "--pool", "dir"]) == 3
    said = capsys.readouterr().out
    assert "disk space" in said
    assert "file system" not in said
