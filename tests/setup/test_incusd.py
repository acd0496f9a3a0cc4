"""lxcfs as a machine without systemd has it: one for all, and mounts that the dead leave behind."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hutch.setup import incusd

pytestmark = pytest.mark.incus  # root, and the packages that come with Incus


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of the test's own instead of the machine's."""
    place = tmp_path / "lxcfs"
    place.mkdir()
    monkeypatch.setattr(incusd, "LXCFS_FOLDER", place)
    yield place
    while incusd._is_mount_point(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(folder: Path, mounts: int) -> subprocess.Popen[bytes]:
    """Another lxcfs on top of what is there."""
    log = folder.with_name("lxcfs.log").open("ab")
    process = subprocess.Popen(
        ["lxcfs", f"--pidfile={folder}-{mounts}.pid", str(folder)],
        stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    _until(lambda: _mounts(folder) == mounts)
    return process


def _mounts(folder: Path) -> int:
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(row.split()[4] == str(folder) for row in rows)


@pytest.mark.parametrize("count", [1, 2])
def test_dead_mounts_are_cleared_however_many_lie_on_each_other(folder: Path, count: int) -> None:
    started = [_mount(folder, number + 1) for number in range(count)]
    for process in started:
        process.kill()
        process.wait()
    _until(lambda: not incusd.lxcfs_mounted())
    assert _mounts(folder) == count

    incusd.clear_lxcfs()

    assert _mounts(folder) == 0
    assert list(folder.iterdir()) == []


def test_one_that_answers_is_left_alone(folder: Path) -> None:
    process = _mount(folder, 1)
    _until(incusd.lxcfs_mounted)
    incusd.clear_lxcfs()
    assert incusd.lxcfs_mounted()
    process.kill()
    process.wait()
