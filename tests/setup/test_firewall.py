"""Instances keep their network beside Docker, whose firewall drops what it does not know.

Tried on real firewalls, in network namespaces of the tests' own.
"""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
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


def test_docker_is_told_to_let_instances_through():
    told, rules = in_a_network_of_its_own(
        "iptables -N DOCKER-USER", "iptables -A FORWARD -j DOCKER-USER",
        "iptables -P FORWARD DROP", OPEN, "echo ---", "iptables -S DOCKER-USER",
    ).split("---")  # fmt: skip
    assert told == "Docker now lets br0 through\n"
    assert "-A DOCKER-USER -i br0" in rules
    assert "-A DOCKER-USER -o br0" in rules


def test_once_is_enough():
    out = in_a_network_of_its_own("iptables -P FORWARD DROP", OPEN, OPEN, "iptables -S FORWARD")
    assert out.count("-i br0") == out.count("-o br0") == 1
    assert out.count("now lets br0 through") == 1


def test_a_firewall_that_drops_nothing_is_left_alone():
    assert in_a_network_of_its_own(OPEN, "iptables -S FORWARD") == "-P FORWARD ACCEPT\n"
