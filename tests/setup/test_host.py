"""What keeps a host from running containers is found and explained."""

import os
import socket
from pathlib import Path

import pytest

from hutch.setup import host
from hutch.setup.machine import choose_driver, closed_folder
from hutch.setup.steps import StepFailedError


def test_unified_control_groups_are_enough(tmp_path: Path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert host.missing_controllers(tmp_path) == []


def test_control_groups_of_the_first_kind_are_enough(tmp_path: Path):
    for name in ("cpu", "memory", "pids"):
        (tmp_path / name).mkdir()
    assert host.missing_controllers(tmp_path) == []


def test_missing_controllers_are_named(tmp_path: Path):
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    assert host.missing_controllers(tmp_path) == ["memory", "pids"]


def test_who_is_not_root_is_told_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (finding,) = host.check_host(tmp_path)
    assert finding.check == "root"
    assert "sudo" in finding.advice


def test_a_port_that_somebody_has_is_seen():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert host.port_in_use("127.0.0.1", port)
    assert not host.port_in_use("127.0.0.1", port)


def test_btrfs_is_preferred_and_folders_are_never_chosen_silently():
    assert choose_driver({"zfs", "btrfs", "dir"}, "auto") == "btrfs"
    assert choose_driver({"zfs", "dir"}, "auto") == "zfs"
    assert choose_driver({"zfs", "btrfs"}, "zfs") == "zfs"
    assert choose_driver({"dir"}, "dir") == "dir"
    with pytest.raises(StepFailedError) as failed:
        choose_driver({"dir"}, "auto")
    assert "--pool dir" in failed.value.advice


def test_a_folder_that_the_server_cannot_reach_is_named(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    assert closed_folder(tmp_path / "closed/data") is not None
    assert closed_folder(Path("/usr/lib/data")) is None
