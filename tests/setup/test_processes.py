"""A process is known by its pid and its start together, and never mistaken for another."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hutch.setup import processes
from hutch.setup.processes import Identity, identify


@pytest.fixture
def sleeper() -> Iterator[Identity]:
    process = subprocess.Popen(["sleep", "60"])
    identity = identify(process.pid)
    assert identity is not None
    yield identity
    process.kill()
    process.wait()


def test_a_running_process_is_itself(sleeper: Identity):
    assert processes.alive(sleeper)
    assert identify(sleeper.pid) == sleeper


def test_a_pid_that_was_given_again_is_somebody_else(sleeper: Identity, tmp_path: Path):
    earlier = replace(sleeper, started=sleeper.started - 1)
    processes.save_identity(tmp_path / "pid", earlier)
    assert processes.load_identity(tmp_path / "pid") is None
    processes.end(earlier)
    processes.kill(earlier)
    assert processes.alive(sleeper)


def test_a_note_from_before_a_reboot_names_nobody(sleeper: Identity, tmp_path: Path):
    processes.save_identity(tmp_path / "pid", replace(sleeper, boot="another"))
    assert processes.load_identity(tmp_path / "pid") is None


def test_a_note_of_a_running_process_finds_it(sleeper: Identity, tmp_path: Path):
    processes.save_identity(tmp_path / "pid", sleeper)
    assert processes.load_identity(tmp_path / "pid") == sleeper


@pytest.mark.parametrize("text", ["", "{", "123", "[]", '{"pid": "x"}', '{"pid": 1}', "null"])
def test_a_damaged_note_names_nobody(text: str, tmp_path: Path):
    (tmp_path / "pid").write_text(text)
    assert processes.load_identity(tmp_path / "pid") is None


def test_who_does_not_end_when_asked_is_made_to(tmp_path: Path):
    script = (
        "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    identity = identify(process.pid)
    processes.end(identity, timeout=0.2)
    assert not processes.alive(identity)


def test_a_process_that_ended_is_gone_even_while_nobody_collected_it():
    process = subprocess.Popen(["sleep", "0.2"])
    identity = identify(process.pid)
    assert identity is not None
    assert processes.wait_ended(identity, 10)
    assert not processes.alive(identity)


def test_a_detached_process_writes_to_its_log_and_has_a_session_of_its_own(tmp_path: Path):
    log = tmp_path / "log" / "out.log"
    process = processes.spawn_detached(
        [sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], log
    )
    process.wait(10)
    assert log.read_text() == "True\n"
