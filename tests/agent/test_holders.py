"""Who has a device open is found however it is open, with real processes and real devices."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hutch.agent import holders, revoke
from hutch.agent.processes import Container, Range, started
from hutch.domain.accelerators import OpenedDevice, Process, Verb

NULL = OpenedDevice(1, 3, "/dev/null")
GPU = OpenedDevice(1, 3, "/dev/hutch-gpu0")
ZERO = OpenedDevice(1, 5, "/dev/zero")
TERMINAL = OpenedDevice(5, 2, "/dev/whatever")
"""`/dev/ptmx` by its numbers: real devices are known by those alone."""


def carry_out(verb: Verb) -> list[Process]:
    return list(revoke.carry_out(verb, "box", [TERMINAL]).processes)


class Programs:
    """Programs that say when they are ready, and run until they are ended."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *lines: str) -> subprocess.Popen[str]:
        code = "\n".join(["import os, sys, threading, time, mmap", *lines, "print('ready')",
                          "sys.stdout.flush()", "time.sleep(600)"])  # fmt: skip
        program = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        self.running.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program


@pytest.fixture
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    for each in made.running:
        each.kill()
        each.wait()


def test_an_open_file_is_found(programs: Programs):
    holder = programs.start("f = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)")
    innocent = programs.start()
    assert holders.has_open(holder.pid, [TERMINAL])
    assert not holders.has_open(innocent.pid, [TERMINAL])


def test_a_mapping_is_found_when_its_file_was_closed(programs: Programs):
    holder = programs.start(
        "f = os.open('/dev/zero', os.O_RDWR)",
        "m = mmap.mmap(f, 4096, flags=mmap.MAP_PRIVATE)",
        "os.close(f)",
        # The bindings keep a copy of the descriptor, which is closed as well.
        "[os.close(int(n)) for n in os.listdir('/proc/self/fd') if int(n) > 2 and"
        " os.path.exists(f'/proc/self/fd/{n}') and"
        " os.readlink(f'/proc/self/fd/{n}') == '/dev/zero']",
    )
    links = [
        os.readlink(f"/proc/{holder.pid}/fd/{n}") for n in os.listdir(f"/proc/{holder.pid}/fd")
    ]
    assert "/dev/zero" not in links
    assert holders.has_open(holder.pid, [ZERO])


def test_a_file_of_one_thread_alone_is_found(programs: Programs):
    holder = programs.start(
        "import ctypes",
        "def work():",
        "    assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES",
        "    os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)",
        "    opened.set()",
        "    time.sleep(600)",
        "opened = threading.Event()",
        "threading.Thread(target=work, daemon=True).start()",
        "opened.wait()",
    )
    assert holders.has_open(holder.pid, [TERMINAL])


def test_devices_of_one_number_are_told_apart_by_name(programs: Programs):
    holder = programs.start("f = open('/dev/null', 'w')")
    assert holders.has_open(holder.pid, [NULL])
    assert not holders.has_open(holder.pid, [GPU])


def test_a_node_is_known_by_whatever_path_it_was_opened(programs: Programs, laid: Path):
    """Simulated accelerators all have the numbers of `/dev/null`: their node tells them apart."""
    holder = programs.start(f"f = os.open({str(laid)!r}, os.O_RDWR)")
    other = programs.start("f = open('/dev/null', 'w')")
    found = laid.stat()
    nodes = frozenset({(found.st_dev, found.st_ino)})
    assert not holders.has_open(holder.pid, [GPU])
    assert holders.has_open(holder.pid, [GPU], nodes)
    assert not holders.has_open(other.pid, [GPU], nodes)


def test_a_mapping_is_known_by_its_node(programs: Programs, tmp_path: Path):
    laid = lay(tmp_path / "laid", ZERO)
    holder = programs.start(
        f"f = os.open({str(laid)!r}, os.O_RDWR)",
        "m = mmap.mmap(f, 4096, flags=mmap.MAP_PRIVATE)",
        "os.closerange(3, 100)",
    )
    found = laid.stat()
    assert not holders.has_open(holder.pid, [OpenedDevice(1, 5, "/dev/hutch-gpu0")])
    assert holders.has_open(
        holder.pid,
        [OpenedDevice(1, 5, "/dev/hutch-gpu0")],
        frozenset({(found.st_dev, found.st_ino)}),
    )


def lay(path: Path, device: OpenedDevice) -> Path:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(device.major, device.minor))
        path.open().close()
    except PermissionError:
        pytest.skip("Device nodes can only be made by root, on a file system that allows them.")
    return path


@pytest.fixture
def laid(tmp_path: Path) -> Path:
    return lay(tmp_path / "laid", NULL)


def test_every_process_is_looked_at_for_what_people_see(programs: Programs):
    holder = programs.start("f = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)")
    innocent = programs.start()
    found = holders.by_device({TERMINAL: "a", ZERO: "b"})
    assert holder.pid in found["a"]
    assert innocent.pid not in found["a"]


def test_a_process_that_has_ended_has_nothing_open():
    assert not holders.has_open(2**22 + 1, [NULL])


# -- what is signalled -------------------------------------------------------------------------


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes of this test that count as those of a container; its first is number 1."""
    inside: list[int] = []
    box = Container("box", "p_box", 1, (Range(0, os.getuid(), 1),))
    monkeypatch.setattr("hutch.agent.processes.members", lambda name, proc: list(inside))
    monkeypatch.setattr("hutch.agent.processes.find_container", lambda *_: box)
    monkeypatch.setattr(
        "hutch.agent.processes.container_of",
        lambda pid, proc: "box" if pid in inside else None,
    )
    return inside


OPEN = "f = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)"


def is_alive(program: subprocess.Popen[str]) -> bool:
    return program.poll() is None


def test_only_those_who_have_it_open_are_ended(programs: Programs, pretend: list[int]):
    holder, innocent, outside = programs.start(OPEN), programs.start(), programs.start(OPEN)
    pretend += [holder.pid, innocent.pid]
    [named] = carry_out(Verb.END)
    assert (named.pid, named.container) == (holder.pid, "box")
    assert holder.wait(5) == -signal.SIGKILL
    assert is_alive(innocent)
    assert is_alive(outside)
    assert carry_out(Verb.SHUT) == []


def test_who_is_named_is_not_signalled(programs: Programs, pretend: list[int]):
    holder = programs.start(OPEN)
    pretend.append(holder.pid)
    [named] = carry_out(Verb.SHUT)
    assert named.pid == holder.pid
    assert is_alive(holder)


def test_who_is_asked_may_end_in_order(programs: Programs, pretend: list[int]):
    holder = programs.start(
        "import signal", OPEN, "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))"
    )
    pretend.append(holder.pid)
    assert len(carry_out(Verb.ASK)) == 1
    assert holder.wait(5) == 7


def test_who_does_not_listen_is_ended(programs: Programs, pretend: list[int]):
    holder = programs.start("import signal", OPEN, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    pretend.append(holder.pid)
    carry_out(Verb.ASK)
    assert is_alive(holder)
    carry_out(Verb.END)
    assert holder.wait(5) == -signal.SIGKILL


def test_the_first_process_of_a_container_is_named_and_never_ended(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    first = programs.start(OPEN)
    pretend.append(first.pid)
    box = Container("box", "p_box", first.pid, (Range(0, os.getuid(), 1),))
    monkeypatch.setattr("hutch.agent.processes.find_container", lambda *_: box)
    [named] = carry_out(Verb.END)
    assert named.pid == first.pid
    assert is_alive(first)


def test_a_process_of_a_user_that_is_not_the_containers_is_never_ended(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    stranger = programs.start(OPEN)
    pretend.append(stranger.pid)
    box = Container("box", "p_box", 1, (Range(0, os.getuid() + 1, 65536),))
    monkeypatch.setattr("hutch.agent.processes.find_container", lambda *_: box)
    assert len(carry_out(Verb.END)) == 1
    assert is_alive(stranger)


def test_without_a_container_nobody_is_ended(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    holder = programs.start(OPEN)
    pretend.append(holder.pid)
    monkeypatch.setattr("hutch.agent.processes.find_container", lambda *_: None)
    carry_out(Verb.END)
    assert is_alive(holder)


def test_a_number_that_another_process_has_by_now_is_of_no_harm(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    """The process that was found has ended, and its number is somebody else's, who has it open."""
    found, other = programs.start(OPEN), programs.start(OPEN)
    pretend.append(found.pid)
    open_handle = os.pidfd_open

    def after_the_number_was_given_away(pid: int, flags: int = 0) -> int:
        found.kill()
        found.wait()
        pretend.clear()
        return open_handle(other.pid, flags)

    monkeypatch.setattr(os, "pidfd_open", after_the_number_was_given_away)
    carry_out(Verb.END)
    assert is_alive(other)


def test_one_that_let_go_in_the_last_moment_is_not_ended(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    holder = programs.start(OPEN)
    pretend.append(holder.pid)
    looks: list[int] = []
    has_open = holders.has_open

    def once(pid: int, *sought: Any) -> bool:
        looks.append(pid)
        return len(looks) == 1 and has_open(pid, *sought)

    monkeypatch.setattr("hutch.agent.holders.has_open", once)
    carry_out(Verb.END)
    assert is_alive(holder)


def test_what_begets_others_while_it_is_ended_is_ended_with_them(
    programs: Programs, pretend: list[int], monkeypatch: pytest.MonkeyPatch
):
    parent, child = programs.start(OPEN), programs.start(OPEN)
    pretend.append(parent.pid)
    send = signal.pidfd_send_signal

    def beget(handle: int, number: int) -> None:
        if child.pid not in pretend:
            pretend.append(child.pid)
        send(handle, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", beget)
    named = carry_out(Verb.END)
    assert {each.pid for each in named} == {parent.pid, child.pid}
    assert child.wait(5) == -signal.SIGKILL


def test_a_process_of_this_test_has_a_start():
    assert started(os.getpid()) == started(os.getpid())
