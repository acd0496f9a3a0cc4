"""./quickstart on the real engine: from a bare folder to a login by ssh, and all that comes after.

In a folder and under names of its own; what it starts is stopped and removed again.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.setup import image, private, processes
from hutch.setup.machine import packages
from tests.ports import claimed
from tests.system.quickstarted import SOURCE, USER, Setup, printed_ssh, setup_of

pytestmark = [pytest.mark.incus, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    if os.geteuid() != 0 or not packages(with_incus=True).is_done():
        pytest.skip("needs root and the packages which ./test installs")
    # Where what a killed run left behind is cleared away, with a path short enough for a socket.
    prefix = f"hutchq{os.getpid() % 10_000:04}"
    incus = private.ROOT / prefix
    private.claim(incus, prefix)
    with claimed() as ports, setup_of(str(SOURCE / "quickstart")) as found:
        found.options += ["--prefix", prefix, "--incus-dir", str(incus), "--simulated-gpus", "2",
                          "--set", f"ssh_port_first={ports.first}",
                          "--set", f"ssh_port_last={ports.last}"]  # fmt: skip
        # The image that the other tests use: building it is tried by whoever comes first.
        ready = image.ensure_built(private.CACHE, lambda _: None)
        (found.data / "cache").mkdir(parents=True)
        shutil.copy(ready, found.data / "cache")
        yield found
        for name in ("supervisor", "server", "agent", "gateway"):
            processes.kill(processes.load_identity(found.data / f"run/{name}.json"))
        private.remove_folder(incus, prefix)
        shutil.rmtree(f"/dev/{prefix}-gpu", ignore_errors=True)


@pytest.fixture(scope="module")
def out(setup: Setup) -> str:
    """What the first run printed."""
    return setup.run()


def test_the_printed_command_logs_in_with_no_question(setup: Setup, out: str):
    told = setup.ssh(printed_ssh(out), "hostname; sudo id -u; systemctl is-system-running")
    assert told.splitlines() == ["first", "0", "running"]


def test_the_password_is_shown_once(setup: Setup, out: str):
    assert "Password:" in out
    assert "Password:" not in setup.run()


def test_hutch_is_on_the_path_and_signed_in(setup: Setup, out: str):
    (instance,) = json.loads(setup.hutch("list", "--json"))
    assert (instance["name"], instance["state"]) == ("first", "running")
    assert str(instance["ssh"]["port"]) in printed_ssh(out)


@pytest.mark.usefixtures("out")
def test_the_server_is_not_root_and_its_files_are_nobody_elses(setup: Setup):
    assert Path(f"/proc/{setup.pid_of('server')}").owner() == USER
    assert (setup.data / "hutch.db").stat().st_mode & 0o077 == 0
    assert (setup.data / "secret.key").stat().st_mode & 0o077 == 0
    assert (setup.home / ".config/hutch/config.json").stat().st_mode & 0o077 == 0


def test_an_accelerator_is_taken_into_the_instance_and_goes_back(setup: Setup, out: str):
    assert "2 × Simulated GPU" in out
    taken = json.loads(setup.hutch("gpu", "take", "1", "--on", "first", "--json"))
    assert taken["state"] == "active"
    (device,) = setup.ssh(printed_ssh(out), "ls /dev/hutch-gpu*").split()
    setup.ssh(printed_ssh(out), f"dd if={device} count=1")
    setup.hutch("gpu", "release", "--on", "first")
    assert setup.ssh(printed_ssh(out), "ls /dev | grep -c hutch-gpu || true").strip() == "0"


def test_the_printed_commands_lead_through_the_gateway(setup: Setup, out: str):
    assert "  hutch ssh-config --install && ssh first\n" in out
    jump = re.search(r"^  ssh -J (\S+) (\S+)$", out, re.MULTILINE)
    assert jump
    assert jump.group(1).endswith(f":{setup.gateway_port}")
    assert jump.group(2).endswith("@first")
    shown = setup.try_run(["ssh-keyscan", "-p", str(setup.gateway_port), "127.0.0.1"]).stdout
    (setup.folder / "scanned").write_text(shown)
    listed = setup.try_run(["ssh-keygen", "-lf", str(setup.folder / "scanned")]).stdout
    assert listed.split()[1] in out
    done = setup.try_run([*setup.through_gateway(), "first", "hostname"])
    assert (done.returncode, done.stdout) == (0, "first\n"), done.stderr
    assert Path(f"/proc/{setup.pid_of('gateway')}").owner() == USER


@pytest.mark.usefixtures("out")
def test_a_session_outlives_the_server_and_the_gateway_that_it_came_by(setup: Setup):
    before = setup.pid_of("gateway")
    with setup.session("first", "cat") as session:
        assert session.stdin
        assert session.stdout

        def echoes(line: str) -> bool:
            assert session.stdin
            assert session.stdout
            session.stdin.write(line)
            session.stdin.flush()
            return session.stdout.readline() == line

        assert echoes("before\n")
        os.kill(setup.pid_of("server"), signal.SIGKILL)
        assert echoes("without the server\n")
        out = setup.run("--set", "gateway_idle_minutes=1439")
        assert "  + SSH gateway" in out
        assert setup.pid_of("gateway") != before
        assert echoes("by the older gateway\n")
        done = setup.try_run([*setup.through_gateway(), "first", "hostname"])
        assert (done.returncode, done.stdout) == (0, "first\n"), done.stderr
        os.kill(setup.pid_of("gateway"), signal.SIGKILL)
        assert echoes("and without the newer one\n")
    setup.run("--set", "gateway_idle_minutes=1440")


@pytest.mark.usefixtures("out")
def test_the_agents_token_is_roots_alone(setup: Setup):
    token = setup.data / "agent.token"
    assert (token.owner(), token.stat().st_mode & 0o777) == ("root", 0o600)
    assert Path(f"/proc/{setup.pid_of('agent')}").owner() == "root"


@pytest.mark.usefixtures("out")
def test_a_second_run_changes_nothing_and_is_quick(setup: Setup):
    again = setup.run()
    assert not [line for line in again.splitlines() if line.startswith("  + ")]
    seconds = [float(found) for found in re.findall(r"\(([\d.]+) s\)", again)]
    assert sum(seconds) < 15


def test_what_is_missing_is_repaired(setup: Setup, out: str):
    (setup.folder / "bin/hutch").unlink()
    (setup.home / ".ssh/known_hosts").unlink()
    (setup.home / ".config/hutch/config.json").unlink()
    repaired = [line for line in setup.run().splitlines() if line.startswith("  + ")]
    assert len(repaired) == 3, repaired
    setup.ssh(printed_ssh(out), "true")


def test_down_stops_everything_and_up_brings_it_back(setup: Setup, out: str):
    setup.ssh(printed_ssh(out), "touch kept; sync")
    setup.hutch("down")
    left = [words for _, words in processes.processes() if str(setup.folder) in " ".join(words)]
    assert not [words for words in left if "pytest" not in " ".join(words)]
    setup.hutch("up")
    wait_for_port(printed_ssh(out))
    assert setup.ssh(printed_ssh(out), "ls kept") == "kept\n"
    done = setup.try_run([*setup.through_gateway(), "first", "ls", "kept"])
    assert done.stdout == "kept\n", done.stderr


def wait_for_port(printed: str) -> None:
    """Waits until the instance, which starts with the engine, answers again."""
    port, host = int(printed.split()[2]), printed.partition("@")[2]
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as probe:
            if probe.recv(3) == b"SSH":
                return
        time.sleep(0.1)
