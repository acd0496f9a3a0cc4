"""Which container a process is in is what the engine says, never what a container says."""

import os
import shutil
from pathlib import Path

import pytest

from hutch.agent import processes
from hutch.agent.processes import Container, Range
from tests.agent.trees import write

V1 = """\
9:name=systemd:{path}/init.scope
5:devices:{path}/init.scope
1:cpu:{path}
0::{path}/init.scope"""
USERS = (Range(0, 1065536, 65536),)
BOX = Container("hutch-aaaa0001", "hutch_hutch-aaaa0001", 100, USERS)


def process(
    proc: Path,
    pid: int,
    path: str,
    *,
    uid: int = 1065536,
    numbers: str = "",
    cgroup: str = "0::{path}",
    command: str = "python3\0train.py\0",
    start: int = 4711,
) -> None:
    """A process as /proc tells of it."""
    fields = " ".join(["S", *("0" for _ in range(18)), str(start), "0"])
    write(
        proc / str(pid),
        {
            "cgroup": cgroup.format(path=path),
            "status": f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{numbers or pid}",
            "uid_map": "         0    1065536      65536",
            "cmdline": command,
            "comm": "comm",
            "stat": f"{pid} (a) b) ( c) {fields}",
        },
    )


PAYLOAD = "/lxc.payload.hutch_hutch-aaaa0001"


@pytest.mark.parametrize("cgroup", ["0::{path}/system.slice/ssh.service", V1])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/lxc.payload.hutch_hutch-aaaa0001", "hutch-aaaa0001"),
        ("/lxc.payload.a_project_hutch-aaaa0001", "hutch-aaaa0001"),
        ("/lxc.payload.hutch-aaaa0001", "hutch-aaaa0001"),
        ("/system.slice/incus.service/lxc.payload.hutch_hutch-aaaa0001", "hutch-aaaa0001"),
        ("/../lxc.payload.hutch_hutch-aaaa0001", "hutch-aaaa0001"),
        # What is left of a crash keeps LXC from the name.
        ("/lxc.payload.hutch_hutch-aaaa0001-1", "hutch-aaaa0001"),
        # A container may make groups of any name, but only inside its own.
        ("/lxc.payload.h_hutch-bbbb0002/lxc.payload.h_hutch-aaaa0001", "hutch-bbbb0002"),
        ("/lxc.payload.h_hutch-bbbb0002/x/y/lxc.payload.h_hutch-aaaa0001", "hutch-bbbb0002"),
        ("/lxc.payload.h_hutch-bbbb0002/docker/0123", "hutch-bbbb0002"),
        ("/lxc.monitor.hutch_hutch-aaaa0001", None),
        ("/user.slice/user-1000.slice/xlxc.payload.h_hutch-aaaa0001", None),
        ("/system.slice", None),
        ("/", None),
    ],
)
def test_a_container_is_named_by_its_outermost_group(
    tmp_path: Path, path: str, name: str | None, cgroup: str
):
    process(tmp_path, 7, path, cgroup=cgroup)
    assert processes.container_of(7, tmp_path) == name


def test_groups_that_contradict_each_other_name_nobody(tmp_path: Path):
    told = f"5:devices:{PAYLOAD}\n0::/lxc.payload.hutch_hutch-bbbb0002"
    process(tmp_path, 7, "", cgroup=told)
    assert processes.container_of(7, tmp_path) is None


def test_a_process_that_has_ended_is_in_none(tmp_path: Path):
    assert processes.container_of(7, tmp_path) is None
    assert processes.started(7, tmp_path) is None
    assert not processes.belongs_to(7, BOX, tmp_path)
    assert processes.describe(7, BOX, proc=tmp_path).command == "?"


def test_a_container_is_found_by_its_first_process(tmp_path: Path):
    process(tmp_path, 90, PAYLOAD, numbers="90\t12")
    # Number 1 of a container inside the container.
    process(tmp_path, 95, PAYLOAD, numbers="95\t40\t1")
    process(tmp_path, 100, PAYLOAD, numbers="100\t1")
    process(tmp_path, 300, "/lxc.payload.hutch_hutch-bbbb0002", numbers="300\t1")
    inside = processes.members("hutch-aaaa0001", tmp_path)
    assert sorted(inside) == [90, 95, 100]
    assert processes.find_container("hutch-aaaa0001", inside, tmp_path) == BOX
    assert processes.find_container("hutch-aaaa0001", [90, 95], tmp_path) is None


def groups_of(root: Path, *groups: str) -> None:
    for each in groups:
        (root / each.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (root / each.lstrip("/") / "cgroup.procs").touch()


@pytest.mark.parametrize(
    ("cgroup", "root"), [("0::{path}", ""), ("7:pids:{path}\n1:cpu:{path}\n0::/", "pids")]
)
def test_a_container_that_was_found_is_asked_for_its_processes(
    tmp_path: Path, cgroup: str, root: str
):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    process(proc, 100, f"{PAYLOAD}/init.scope", cgroup=cgroup)
    groups_of(groups / root, PAYLOAD, f"{PAYLOAD}/init.scope", f"{PAYLOAD}/a/b")

    def members() -> list[int]:
        return sorted(processes.members("hutch-aaaa0001", proc, groups))

    assert members() == [100]
    # From now on what the kernel tells of the group counts, wherever in it a process is.
    for group, told in (("", ""), ("init.scope", "100\n"), ("a/b", "7\n8\n")):
        (groups / root / PAYLOAD.lstrip("/") / group / "cgroup.procs").write_text(told)
    assert members() == [7, 8, 100]
    # One that was left empty, or is gone, may have got another name meanwhile.
    shutil.rmtree(groups)
    assert members() == [100]


def test_more_groups_than_anybody_needs_hide_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    process(proc, 100, PAYLOAD)
    groups_of(groups, PAYLOAD, *(f"{PAYLOAD}/{number}" for number in range(5)))
    assert processes.members("hutch-aaaa0001", proc, groups) == [100]
    monkeypatch.setattr(processes, "_MOST_GROUPS", 5)
    process(proc, 7, f"{PAYLOAD}/4")
    (groups / PAYLOAD.lstrip("/") / "0" / "cgroup.procs").write_text("100\n")
    assert sorted(processes.members("hutch-aaaa0001", proc, groups)) == [7, 100]


@pytest.mark.parametrize(
    ("path", "uid", "belongs"),
    [
        (PAYLOAD, 1065536, True),
        (PAYLOAD, 1066536, True),
        (PAYLOAD, 1065536 + 65535, True),
        (PAYLOAD, 1065536 + 65536, False),
        (PAYLOAD, 1065535, False),
        # The engine's own, on its way into the container.
        (PAYLOAD, 0, False),
        ("/lxc.payload.hutch_hutch-bbbb0002", 1065536, False),
        ("/system.slice", 1065536, False),
    ],
)
def test_a_process_belongs_to_a_container_by_its_group_and_by_its_users(
    tmp_path: Path, path: str, uid: int, belongs: bool
):
    process(tmp_path, 7, path, uid=uid)
    assert processes.belongs_to(7, BOX, tmp_path) == belongs


def test_one_user_id_outside_is_enough_not_to_belong(tmp_path: Path):
    process(tmp_path, 7, PAYLOAD)
    write(tmp_path / "7", {"status": "Uid:\t1065536\t0\t1065536\t1065536"})
    assert not processes.belongs_to(7, BOX, tmp_path)


# -- what people are told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("python3\0train.py\0--token\0secret\0", "python3 train.py"),
        ("/usr/bin/python3.11\0/home/ai/run/train.py\0", "python3.11 train.py"),
        ("python3\0-c\0print('secret')\0", "python3"),
        ("/opt/app/server\0--password=secret\0", "server"),
        ("", "comm"),
        ("ev\x1b]il\0", "ev?]il"),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_command_is_named_without_its_arguments(tmp_path: Path, command: str, told: str):
    process(tmp_path, 7, PAYLOAD, command=command)
    (tmp_path / "7" / "cmdline").write_text(command)
    assert processes.describe(7, BOX, proc=tmp_path).command == told


def test_the_start_is_read_past_a_name_of_any_kind(tmp_path: Path):
    process(tmp_path, 7, PAYLOAD, start=987654)
    assert processes.started(7, tmp_path) == "987654"
    assert processes.started(os.getpid()) not in {None, "0"}


def named(proc: Path, uid: int = 1066536) -> str:
    process(proc, 7, PAYLOAD, uid=uid)
    return processes.describe(7, BOX, proc=proc).user


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The file system of the container, seen through its first process."""
    folder = tmp_path / "100" / "root"
    folder.mkdir(parents=True)
    return folder


def test_a_user_is_named_as_the_container_names_them(tmp_path: Path, root: Path):
    write(root, {"etc/passwd": "root:x:0:0::/root:/bin/sh\nai:x:1000:1000::/home/ai:/bin/sh"})
    assert named(tmp_path) == "ai"
    assert named(tmp_path, 1065536) == "root"
    # Without an entry by the number inside; without belonging by the node's.
    assert named(tmp_path, 1065536 + 33) == "33"
    assert named(tmp_path, 0) == "0"


@pytest.mark.parametrize("what", ["a link", "a linked folder", "a pipe", "a folder", "nothing"])
def test_no_link_out_of_the_container_is_followed(tmp_path: Path, root: Path, what: str):
    secret = tmp_path / "secret"
    write(secret, {"passwd": "leak:x:1000:1000::/:/bin/sh"})
    etc = root / "etc"
    if what == "a linked folder":
        etc.symlink_to(secret)
    elif what != "nothing":
        etc.mkdir()
    if what == "a link":
        (etc / "passwd").symlink_to(secret / "passwd")
    elif what == "a pipe":
        os.mkfifo(etc / "passwd")
    elif what == "a folder":
        (etc / "passwd").mkdir()
    assert named(tmp_path) == "1000"


def test_a_list_of_users_without_end_or_sense_is_read_in_part(tmp_path: Path, root: Path):
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_bytes(b"\xff\xfe:::\n" * 400_000 + b"late:x:1000:0:::\n")
    assert named(tmp_path) == "1000"
    (root / "etc" / "passwd").write_bytes(b"e\x1bvil" + b"x" * 100 + b":x:1000:0:::\n")
    assert named(tmp_path) == ("e?vil" + "x" * 100)[:32]
