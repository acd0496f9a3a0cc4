"""NVIDIA's cards through NVIDIA's real bindings, on a library that the tests compile and steer."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import trees

A, B = "0000:3b:00.0", "0000:5e:00.0"
GIB = 1024**3
GPU = (
    "gpu {at} uuid={uuid} name=NVIDIA_H100_PCIe util=50 temp=41 power=123456"
    " total={total} used={used} reserved={reserved}"
)
FIELDS = ("utilisation", "memory_used", "temperature", "power")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stub."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: ./test does it, or apt-get install gcc libc6-dev")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", "-o",
         str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
    )  # fmt: skip
    return folder


class Node:
    """A node with cards of NVIDIA, and what its agent sees."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.root = folder / "root"
        self.steering = folder / "steering"
        self.steer()
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.nvml_looks", str(self.root)],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(library),
                "NVML_STUB": str(self.steering),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def steer(self, *lines: str) -> None:
        aside = self.steering.with_suffix(".new")
        aside.write_text("".join(f"{line}\n" for line in lines))
        aside.replace(self.steering)

    def look(self, at: float = 0) -> dict[str, Any]:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(f"look {at}\n")
        self.program.stdin.flush()
        return json.loads(self.program.stdout.readline())

    def calls(self, name: str) -> int:
        return Path(f"{self.steering}.log").read_text().split().count(name)

    def close(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.close()
        assert self.program.wait(20) == 0


@pytest.fixture
def node(tmp_path: Path, library: Path) -> Iterator[Node]:
    trees.nvidia(tmp_path / "root", A, minor=0, uuid="GPU-a", card=0)
    trees.nvidia(tmp_path / "root", B, minor=1, uuid="GPU-b", card=1)
    made = Node(tmp_path, library)
    yield made
    made.close()


def gpu(at: str, *more: str, uuid: str = "GPU-a", used: int = 3 * GIB) -> str:
    plain = GPU.format(at=at, uuid=uuid, total=80 * GIB, used=used, reserved=GIB)
    return " ".join((plain, *more))


def test_a_card_tells_what_it_is_and_what_it_does(node: Node):
    # NVML writes the domain with eight digits, sysfs with four.
    node.steer(gpu("00000000:3B:00.0"), gpu("00000000:5E:00.0", uuid="GPU-b", used=0))
    look = node.look()
    found, reading = look["found"][A], look["readings"][A]
    assert (found["model"], found["uuid"]) == ("NVIDIA H100 PCIe", "GPU-a")
    assert found["memory"] == 80 * GIB
    assert found["nodes"][0] == {"path": "/dev/nvidia0", "major": 195, "minor": 0}
    assert found["health"] == reading["health"] == "ok"
    assert [reading[name] for name in FIELDS] == [0.5, 3 * GIB, 41.0, 123.456]
    assert look["readings"][B]["memory_used"] == 0


def test_an_older_library_counts_what_the_driver_reserved(node: Node):
    node.steer(gpu(A, "no=memory_v2"), gpu(B))
    assert node.look()["readings"][A]["memory_used"] == 4 * GIB


def test_what_a_card_does_not_tell_is_left_open(node: Node):
    node.steer(
        gpu(A, "no=util", "no=used", "no=temp", "no=power", "no=ecc", "no=rows", "no=procs",
            "no=draws", "no=name", "no=uuid"),
        gpu(B),
    )  # fmt: skip
    look = node.look()
    reading = look["readings"][A]
    assert [reading[name] for name in FIELDS] == [None] * 4
    assert reading["health"] == "ok"
    assert look["found"][A]["uuid"] == "GPU-a"
    assert look["readings"][B]["utilisation"] == 0.5


def test_processes_are_named_with_what_memory_they_hold(node: Node):
    me, child = os.getpid(), node.program.pid
    node.steer(gpu(A, f"procs={me}:1048576,{child}:2097152", f"draws={me}:1048576"), gpu(B))
    processes = node.look()["readings"][A]["processes"]
    assert {each["pid"]: each["memory"] for each in processes} == {me: 1048576, child: 2097152}
    assert all(each["container"] is None for each in processes)
    assert next(each for each in processes if each["pid"] == child)["command"].startswith("python")


def test_a_process_that_has_ended_and_one_without_a_number_do_no_harm(node: Node):
    ended = subprocess.Popen(["true"])
    ended.wait()
    node.steer(gpu(A, f"procs={ended.pid}:1,{os.getpid()}"), gpu(B))
    [left] = node.look()["readings"][A]["processes"]
    assert (left["pid"], left["memory"]) == (os.getpid(), 0)


def test_a_card_that_falls_off_the_bus_in_the_middle_is_missing_and_the_others_go_on(node: Node):
    node.steer(gpu(A), gpu(B))
    assert node.look()["readings"][A]["health"] == "ok"
    node.steer(gpu(A, "error=15"), gpu(B))
    look = node.look(2)
    assert look["readings"][A]["health"] == look["found"][A]["health"] == "missing"
    assert look["readings"][A]["reason"] == "It has fallen off the bus."
    assert [look["readings"][A][name] for name in FIELDS] == [None] * 4
    assert look["readings"][B]["health"] == "ok"


def test_a_card_that_was_reset_is_seen_again_once_the_library_was_opened_anew(node: Node):
    node.steer(gpu(A, "error=15"), gpu(B))
    node.look(0)
    assert node.calls("init") == 1
    node.steer(gpu(A), gpu(B))
    node.look(40)
    assert (node.calls("init"), node.calls("shutdown")) == (2, 1)
    assert node.look(41)["readings"][A]["health"] == "ok"
    node.look(1000)
    assert node.calls("init") == 2


@pytest.mark.parametrize(
    ("state", "health", "reason"),
    [
        ("error=16", "failed", "must be reset"),
        ("error=999", "failed", "NVML: Unknown Error"),
        ("ecc=2", "failed", "2 errors"),
        ("pending=1", "failed", "must be reset"),
        ("failed=1", "failed", "no spare memory"),
        ("error=6", "missing", "does not find it"),
        ("error=28", "missing", "does not find it"),
    ],
)
def test_a_card_that_says_that_it_is_broken_is(node: Node, state: str, health: str, reason: str):
    node.steer(gpu(A, state), gpu(B))
    reading = node.look()["readings"][A]
    assert reading["health"] == health
    assert reason in reading["reason"]


def test_a_card_that_the_driver_does_not_know_is_missing(node: Node):
    node.steer(gpu(B))
    assert node.look()["readings"][A]["health"] == "missing"


def test_a_library_of_another_version_than_the_driver_makes_all_cards_unusable(node: Node):
    node.steer("init 18", gpu(A), gpu(B))
    look = node.look(0)
    assert {each["health"] for each in look["readings"].values()} == {"failed"}
    assert "restart the node" in look["readings"][A]["reason"]
    # It is not opened at every look.
    node.look(2)
    assert node.calls("init") == 1
    node.steer(gpu(A), gpu(B))
    assert node.look(40)["readings"][A]["health"] == "ok"


def test_without_the_library_a_card_is_what_the_kernel_says(tmp_path: Path):
    trees.nvidia(tmp_path / "root", A, minor=0)
    trees.nvidia(tmp_path / "root", B, minor=None, driver=None)
    node = Node(tmp_path, tmp_path / "no library")
    look = node.look()
    node.close()
    assert look["readings"][A]["health"] == "ok"
    assert look["readings"][A]["utilisation"] is None
    assert look["readings"][B]["health"] == "failed"
    assert "No driver" in look["readings"][B]["reason"]


def test_a_card_that_is_taken_out_is_gone_at_the_next_look_at_the_buses(node: Node):
    node.steer(gpu(A), gpu(B))
    assert set(node.look(0)["found"]) == {A, B}
    trees.remove(node.root, A)
    assert set(node.look(20)["found"]) == {B}
