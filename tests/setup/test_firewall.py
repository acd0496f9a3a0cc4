"""Instances keep their network beside other firewalls, and get no more of the host than that.

Docker's is tried on real firewalls, in network namespaces of the tests' own; ufw and firewalld,
which know one network only, are stood for by programs that write down what they were told.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hutch.setup import firewall

needs_iptables = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iptables") is None,
    reason="needs root and iptables, which ./test installs",
)

OPEN = f"{sys.executable} -m hutch.setup.firewall br0"


def in_a_network_of_its_own(*commands: str) -> str:
    script = "set -e; " + "; ".join(commands)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_iptables
def test_docker_is_told_to_let_instances_through():
    told, rules = in_a_network_of_its_own(
        "iptables -N DOCKER-USER", "iptables -A FORWARD -j DOCKER-USER",
        "iptables -P FORWARD DROP", OPEN, "echo ---", "iptables -S DOCKER-USER",
    ).split("---")  # fmt: skip
    assert told == "Docker now lets br0 through\n"
    assert "-A DOCKER-USER -i br0" in rules
    assert "-A DOCKER-USER -o br0" in rules


@needs_iptables
def test_once_is_enough():
    out = in_a_network_of_its_own("iptables -P FORWARD DROP", OPEN, OPEN, "iptables -S FORWARD")
    assert out.count("-i br0") == out.count("-o br0") == 1
    assert out.count("now lets br0 through") == 1


@needs_iptables
def test_a_firewall_that_drops_nothing_is_left_alone():
    assert in_a_network_of_its_own(OPEN, "iptables -S FORWARD") == "-P FORWARD ACCEPT\n"


class Firewall:
    """A program that stands for a firewall's: it writes down its arguments."""

    def __init__(self, folder: Path, name: str, script: str) -> None:
        self._told = folder / "told"
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$*" >>{self._told}\n{script}\n')
        program.chmod(0o755)

    def told(self, *, but: str) -> list[str]:
        """What it was told, without the questions."""
        return [line for line in self._told.read_text().splitlines() if but not in line]


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in which programs are found: no other firewall is there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_ufw_opens_names_and_addresses_and_nothing_else_of_the_host(only_path: Path):
    ufw = Firewall(only_path, "ufw", 'test "$1" != status || echo "Status: active"')
    assert firewall.open_bridge("labbr0") == ["ufw"]
    assert ufw.told(but="status") == [
        "route allow in on labbr0",
        "route allow out on labbr0",
        "allow in on labbr0 to any port 53 proto tcp",
        "allow in on labbr0 to any port 53 proto udp",
        "allow in on labbr0 to any port 67 proto udp",
    ]


def test_ufw_is_told_once(only_path: Path):
    rule = "67/udp on labbr0           ALLOW IN    Anywhere"
    Firewall(only_path, "ufw", f'test "$1" != status || echo "Status: active\n{rule}"')
    assert firewall.problem("labbr0") is None
    assert firewall.problem("labbr") == "ufw"


def test_firewalld_gets_a_zone_that_opens_names_and_addresses_alone(only_path: Path):
    questions = 'case "$*" in *--info-*|*--query-*) exit 1;; esac'
    firewalld = Firewall(only_path, "firewall-cmd", questions)
    assert firewall.open_bridge("labbr0") == ["firewalld"]
    told = [line for line in firewalld.told(but="--info-") if "--query-" not in line]
    assert [line for line in told if line != "--state"] == [
        "--permanent --new-zone=labbr0",
        "--permanent --zone=labbr0 --set-target=default",
        "--permanent --zone=labbr0 --add-service=dns --add-service=dhcp",
        "--permanent --zone=labbr0 --change-interface=labbr0",
        "--permanent --new-policy=labbr0-o",
        "--permanent --policy=labbr0-o --add-ingress-zone=labbr0 --add-egress-zone=ANY",
        "--permanent --policy=labbr0-o --set-target=ACCEPT",
        "--permanent --new-policy=labbr0-i",
        "--permanent --policy=labbr0-i --add-ingress-zone=ANY --add-egress-zone=labbr0",
        "--permanent --policy=labbr0-i --set-target=ACCEPT",
        "--reload",
    ]


def test_a_zone_that_firewalld_has_already_is_not_made_again(only_path: Path):
    firewalld = Firewall(only_path, "firewall-cmd", 'case "$*" in *--query-*) exit 1;; esac')
    firewall.open_bridge("labbr0")
    assert not [line for line in firewalld.told(but="--info-") if "--new-" in line]
