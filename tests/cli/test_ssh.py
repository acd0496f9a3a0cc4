import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from hutch.cli.logins import printable_command, ssh_command
from hutch.domain.sshkeys import parse_public_key
from hutch.errors import HutchError
from tests.cli.server import Person, environment

AWKWARD = ["$(id)", "`id`", ";id", "a b", "'", '"', "*", "~", "-n", "--json", "", "ü\n"]


@pytest.fixture
def fake_ssh(tmp_path: Path) -> Path:
    """A folder for the PATH with an `ssh` that writes down its arguments and its known hosts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(
        f"#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done > {tmp_path}/argv\ncat\nexit 7\n"
    )
    program.chmod(0o755)
    return folder


@pytest.fixture
def box(alice: Person, fake_ssh: Path) -> Person:
    alice.hutch("create", "box")
    alice.variables["PATH"] = f"{fake_ssh}:{os.environ['PATH']}"
    return alice


def argv(tmp_path: Path) -> list[str]:
    return (tmp_path / "argv").read_text().split("\0")[:-1]


def test_ssh_is_given_the_port_the_person_and_the_one_host_key(box: Person, tmp_path: Path) -> None:
    instance = box.json("show", "box")
    ran = box.process("ssh", "box", input=b"typed")
    assert (ran.returncode, ran.stdout) == (7, b"typed")
    hosts = box.home / ".config" / "hutch" / "hosts" / instance["id"]
    assert argv(tmp_path) == [
        "-p", str(instance["ssh"]["port"]),
        "-o", f"UserKnownHostsFile={hosts}",
        "-o", f"HostKeyAlias=hutch-{instance['id']}",
        "-o", "StrictHostKeyChecking=yes",
        "--", f"{box.name}@192.0.2.1",
    ]  # fmt: skip
    assert hosts.read_text() == f"hutch-{instance['id']} {instance['ssh']['host_key']}\n"
    assert stat.S_IMODE(hosts.stat().st_mode) == 0o600


def test_openssh_finds_the_pinned_key_and_takes_no_other(box: Person) -> None:
    instance = box.json("create", "other")["instance"]
    with environment(box.signed_in):
        command = ssh_command(instance, [])
    file = command[4].removeprefix("UserKnownHostsFile=")
    found = subprocess.run(
        ["ssh-keygen", "-F", f"hutch-{instance['id']}", "-f", file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert instance["ssh"]["host_key"] in found.stdout
    effective = subprocess.run(
        [command[0], "-G", "-F", "none", *command[1:]], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"hostkeyalias hutch-{instance['id']}" in effective
    assert "stricthostkeychecking true" in effective
    assert f"userknownhostsfile {file}" in effective
    assert f"port {instance['ssh']['port']}" in effective


def test_one_argument_is_a_command_line_for_the_shell_inside(box: Person, tmp_path: Path) -> None:
    box.process("ssh", "box", "--", "cd /tmp && ls *")
    assert argv(tmp_path)[-1] == "cd /tmp && ls *"


def test_several_arguments_arrive_inside_as_they_were_typed(box: Person, tmp_path: Path) -> None:
    box.process("ssh", "box", "--", "echo", *AWKWARD)
    command = argv(tmp_path)[-1]
    assert argv(tmp_path)[-2] == f"{box.name}@192.0.2.1"
    # What the shell inside makes of it:
    printed = subprocess.run(
        ["sh", "-c", command.replace("echo", "printf '%s\\0'", 1)], capture_output=True, check=True
    )
    assert printed.stdout.decode().split("\0")[:-1] == AWKWARD


def test_the_printed_command_logs_in_alike(box: Person) -> None:
    instance = box.json("show", "box")
    with environment(box.signed_in):
        words = shlex.split(printable_command(instance))
        assert [word for word in ssh_command(instance, []) if word != "--"] == words


def test_folders_with_odd_names_reach_ssh_whole(box: Person, tmp_path: Path) -> None:
    box.variables["XDG_CONFIG_HOME"] = str(tmp_path / "my 100% config")
    instance = box.json("show", "box")
    with environment(box.signed_in):
        command = ssh_command(instance, [])
    shown = subprocess.run(
        ["ssh", "-G", "-F", "none", *command[1:]], capture_output=True, text=True, check=True
    ).stdout
    assert f"userknownhostsfile {tmp_path}/my 100% config/hutch/hosts/" in shown.replace("%%", "%")
    box.variables["XDG_CONFIG_HOME"] = str(tmp_path / "${HOME}")
    assert box.hutch("ssh", "box").code == 6


def test_a_stopped_instance_says_how_to_start_it(box: Person, tmp_path: Path) -> None:
    box.hutch("stop", "box")
    ran = box.hutch("ssh", "box")
    assert ran.code == 5
    assert "hutch start box" in ran.err
    assert not (tmp_path / "argv").exists()


def test_without_ssh_on_the_path_it_says_what_to_install(box: Person, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    box.variables["PATH"] = str(tmp_path / "empty")
    ran = box.hutch("ssh", "box")
    assert ran.code == 7
    assert "OpenSSH" in ran.err


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("host", "-oProxyCommand=id"),
        ("host", "a b"),
        ("host", "$(id)"),
        ("host", "h\n"),
        ("user", "-l"),
        ("user", "a;id"),
        ("port", 0),
        ("port", 70000),
        ("host_key", "ssh-ed25519 AAAA"),
        ("host_key", "* ssh-ed25519 AAAA\n@cert-authority *"),
    ],
)
def test_a_lying_server_cannot_slip_anything_into_ssh(
    box: Person, part: str, value: object
) -> None:
    instance = box.json("show", "box")
    instance["ssh"][part] = value
    with environment(box.signed_in), pytest.raises(HutchError, match="not valid"):
        ssh_command(instance, [])


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "x y"])
def test_an_odd_id_is_no_file_name(box: Person, name: str) -> None:
    instance = box.json("show", "box") | {"id": name}
    with environment(box.signed_in), pytest.raises(HutchError, match="not valid"):
        ssh_command(instance, [])


def test_a_changed_host_key_replaces_the_old_one(box: Person, tmp_path: Path) -> None:
    instance = box.json("show", "box")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = parse_public_key((tmp_path / "key.pub").read_text()).public
    with environment(box.signed_in):
        ssh_command(instance, [])
        ssh_command(
            json.loads(json.dumps(instance)) | {"ssh": {**instance["ssh"], "host_key": public}}, []
        )
    hosts = box.home / ".config" / "hutch" / "hosts" / instance["id"]
    assert hosts.read_text() == f"hutch-{instance['id']} {public}\n"
