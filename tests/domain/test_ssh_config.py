"""The configuration for ssh, read by ssh itself."""

import subprocess
from pathlib import Path

import pytest

from hutch.domain.ssh_config import Entry, Lab, config, known_hosts, split_place

LAB = Lab("lab", "lab.example.org", 2222, "ssh-ed25519 AAAAgateway", "0123456789ab")
BOX = Entry("a1", "box", "alice", "ssh-ed25519 AAAAbox")
THEIRS = Entry("b2", "box.bob", "bob", "ssh-ed25519 AAAAtheirs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "config"
    written.write_text(config(LAB, "alice", [BOX, THEIRS, Entry("c3", "lab", "alice", "x")]))
    return written


def effective(file: Path, host: str) -> dict[str, str]:
    """What ssh makes of it."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(file), host], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("host", ["box", "box.lab"])
def test_a_machine_is_reached_through_the_gateway_with_its_key_pinned(
    file: Path, host: str
) -> None:
    found = effective(file, host)
    assert (found["hostname"], found["user"]) == ("box", "alice")
    assert found["proxyjump"] == "box@lab"
    assert found["hostkeyalias"] == "hutch-a1"
    assert found["stricthostkeychecking"] == "true"
    assert found["userknownhostsfile"].endswith(".ssh/hutch/known_hosts")


def test_somebody_elses_machine_has_their_name(file: Path) -> None:
    found = effective(file, "box.bob")
    assert (found["hostname"], found["user"], found["proxyjump"]) == (
        "box.bob", "bob", "box.bob@lab",
    )  # fmt: skip


def test_the_gateway_is_reached_directly(file: Path) -> None:
    found = effective(file, "lab")
    assert (found["hostname"], found["port"]) == ("lab.example.org", "2222")
    assert found["hostkeyalias"] == "hutch-gateway-0123456789ab"
    assert "proxyjump" not in found
    assert found["ciphers"].startswith("aes128-gcm@openssh.com")


def test_a_machine_that_is_called_as_the_gateway_has_its_longer_name(file: Path) -> None:
    assert effective(file, "lab.lab")["proxyjump"] == "lab@lab"


def test_other_hosts_are_left_alone(file: Path) -> None:
    found = effective(file, "example.org")
    assert "proxyjump" not in found
    assert found["stricthostkeychecking"] != "true"


def test_ssh_finds_each_key_under_its_alias(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(known_hosts(LAB, [BOX, THEIRS]))
    for alias, key in (("hutch-gateway-0123456789ab", "gateway"), ("hutch-a1", "box")):
        found = subprocess.run(
            ["ssh-keygen", "-F", alias, "-f", str(file)], capture_output=True, text=True, check=True
        )
        assert f"ssh-ed25519 AAAA{key}" in found.stdout


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("lab.example.org", ("lab.example.org", 2222)),
        ("lab:22", ("lab", 22)),
        ("192.0.2.1", ("192.0.2.1", 2222)),
        ("[2001:db8::1]:22", ("2001:db8::1", 22)),
        ("[2001:db8::1]", ("2001:db8::1", 2222)),
    ],
)
def test_a_place_is_a_host_with_or_without_a_port(text: str, place: tuple[str, int]) -> None:
    assert split_place(text, 2222) == place


@pytest.mark.parametrize("text", ["", "a b", "a@b", "lab:0", "lab:70000", "a:b", "2001:db8::1"])
def test_something_else_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_place(text, 2222)
