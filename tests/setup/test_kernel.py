"""Limits of the kernel are raised where they are lower, and never lowered."""

from pathlib import Path

import pytest

from hutch.setup import kernel


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, value in (("fs/inotify/max_user_instances", 128), ("kernel/pid_max", 9_999_999)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    return tmp_path


def test_only_what_is_too_low_is_raised_and_written_down(tree: Path):
    file = tree / "60-hutch.conf"
    assert kernel.keep_limits(file, tree) == ["fs.inotify.max_user_instances"]
    assert (tree / "fs/inotify/max_user_instances").read_text() == "1048576\n"
    assert (tree / "kernel/pid_max").read_text() == "9999999\n"
    assert "pid_max" not in file.read_text()
    assert kernel.too_low(tree) == {}


def test_what_was_written_before_stays_written(tree: Path):
    file = tree / "60-hutch.conf"
    kernel.keep_limits(file, tree)
    (tree / "kernel/pid_max").write_text("32768\n")
    kernel.keep_limits(file, tree)
    assert "max_user_instances = 1048576" in file.read_text()
    assert "kernel.pid_max = 4194304" in file.read_text()


def test_a_limit_the_kernel_does_not_have_is_no_problem(tmp_path: Path):
    assert kernel.too_low(tmp_path) == {}
