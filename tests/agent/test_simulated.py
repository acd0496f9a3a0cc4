"""Simulated accelerators: real device nodes, nobody else's files, and what steering says."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hutch.agent.simulated import Simulated, simulate
from hutch.agent.watch import Watch
from hutch.domain.accelerators import Health, Vendor
from hutch.errors import ConfigurationError, InvalidSizeError

GIB = 1024**3
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes are made by root alone")


def some(folder: Path, count: int = 2, **changes: Any) -> Simulated:
    return simulate(
        count,
        **{
            "model": "Simulated GPU",
            "memory": "24GiB",
            "steering": folder / "steering.json",
            "folder": folder / "gpus",
            **changes,
        },
    )


def steer(folder: Path, told: Any) -> None:
    (folder / "steering.json").write_text(told if isinstance(told, str) else json.dumps(told))


def is_null_device(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """On a file system where device nodes may be."""
    return tmp_path


@root_only
def test_there_is_a_device_for_each_that_anyone_may_open(folder: Path):
    before = os.umask(0o077)
    some(folder).make_devices()
    os.umask(before)
    found = sorted((folder / "gpus").iterdir())
    assert [each.name for each in found] == ["0", "1"]
    assert all(is_null_device(each) for each in found)
    assert all(stat.S_IMODE(each.lstat().st_mode) == 0o666 for each in found)
    assert stat.S_IMODE((folder / "gpus").stat().st_mode) == 0o755


@root_only
def test_they_are_made_again_after_a_boot_and_go_when_there_are_to_be_fewer(folder: Path):
    some(folder, 4).make_devices()
    (folder / "gpus" / "1").unlink()
    some(folder, 4).make_devices()
    assert len(list((folder / "gpus").iterdir())) == 4
    some(folder, 1).make_devices()
    assert [each.name for each in (folder / "gpus").iterdir()] == ["0"]
    some(folder, 0).make_devices()
    assert list((folder / "gpus").iterdir()) == []


@root_only
def test_files_of_others_stay(folder: Path):
    some(folder, 3).make_devices()
    gpus = folder / "gpus"
    (gpus / "7").write_text("mine")
    (gpus / "notes").write_text("mine")
    (gpus / "8").symlink_to(gpus / "0")
    os.mknod(gpus / "9", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    some(folder, 1).make_devices()
    assert {each.name for each in gpus.iterdir()} == {"0", "7", "8", "9", "notes"}


@root_only
@pytest.mark.parametrize("kind", ["file", "link", "device"])
def test_something_else_of_that_name_is_refused_and_left_alone(folder: Path, kind: str):
    gpus = folder / "gpus"
    gpus.mkdir()
    if kind == "file":
        (gpus / "0").write_text("mine")
    elif kind == "link":
        (gpus / "0").symlink_to("/dev/null")
    else:
        os.mknod(gpus / "0", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    with pytest.raises(ConfigurationError, match="is no simulated accelerator"):
        some(folder).make_devices()
    assert (gpus / "0").is_symlink() == (kind == "link")


@root_only
def test_a_folder_that_is_a_link_elsewhere_is_not_followed_into(folder: Path):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "gpus").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError):
        some(folder).make_devices()
    assert list(elsewhere.iterdir()) == []


def test_without_root_none_are_made_and_all_else_is_as_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    some(folder).make_devices()
    assert not (folder / "gpus").exists()
    assert len(some(folder).find()) == 2


def test_unless_steered_they_are_idle(folder: Path):
    found, readings = Watch(some(folder), root=folder).look()
    assert [each.address for each in found] == ["simulated:0", "simulated:1"]
    first = found[0]
    assert (first.vendor, first.model, first.memory) == (
        Vendor.SIMULATED, "Simulated GPU", 24 * GIB,
    )  # fmt: skip
    assert first.nodes[0].path == str(folder / "gpus" / "0")
    assert [(each.utilisation, each.memory_used) for each in readings] == [(0.0, 0)] * 2


def test_they_do_what_the_file_says_from_the_next_look_on(folder: Path):
    watch = Watch(some(folder, 3), root=folder)
    watch.look()
    steer(folder, {"0": {"busy": 0.9, "memory": "4GiB", "temperature": 71, "power": 200},
                   "*": {"busy": 0.1}})  # fmt: skip
    _, readings = watch.look()
    assert [each.utilisation for each in readings] == [0.9, 0.1, 0.1]
    assert (readings[0].memory_used, readings[0].temperature) == (4 * GIB, 71)
    assert readings[0].power == 200


def test_one_that_fails_says_so_and_one_that_is_missing_is_not_found(folder: Path):
    watch = Watch(some(folder, 3), root=folder)
    steer(folder, {"0": {"health": "failed", "reason": "ECC"}, "1": {"health": "missing"}})
    found, readings = watch.look()
    assert [(each.address, each.health, each.reason) for each in found] == [
        ("simulated:0", Health.FAILED, "ECC"),
        ("simulated:2", Health.OK, ""),
    ]
    assert [(each.address, each.utilisation) for each in readings] == [
        ("simulated:0", None),
        ("simulated:2", 0.0),
    ]
    steer(folder, {})
    assert len(watch.look()[0]) == 3


@pytest.mark.parametrize(
    "told",
    [
        "", "{", "[]", "null", '{"0": 5}', {"0": {"busy": "much"}}, {"0": {"busy": 7}},
        '{"0": {"busy": NaN}}', {"0": {"memory": -5}}, {"0": {"memory": "lots"}},
        {"0": {"health": "odd"}}, {"0": {"busy": None}}, {"0": {"memory": [1]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_says_nonsense_fails_nothing(folder: Path, told: Any):
    steer(folder, told)
    found, readings = Watch(some(folder), root=folder).look()
    assert all(each.health is Health.OK for each in found)
    assert all(each.utilisation == 0.0 for each in readings)


def test_memory_that_is_more_than_there_is_counts_as_all_of_it(folder: Path):
    steer(folder, {"*": {"memory": "900GiB"}})
    assert Watch(some(folder), root=folder).look()[1][0].memory_used == 24 * GIB


@pytest.mark.parametrize("count", [-1, 65, 1000])
def test_there_is_a_sensible_number_of_them(folder: Path, count: int):
    with pytest.raises(ConfigurationError):
        some(folder, count)


@pytest.mark.parametrize("model", ["", "  ", "x" * 129, "a\nb"])
def test_a_model_has_a_name(folder: Path, model: str):
    with pytest.raises(ConfigurationError):
        some(folder, model=model)


@pytest.mark.parametrize("memory", ["", "lots", "-1GiB", "0"])
def test_memory_is_a_size(folder: Path, memory: str):
    with pytest.raises(InvalidSizeError):
        some(folder, memory=memory)
