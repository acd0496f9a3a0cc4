"""A private Incus leaves nothing behind, and takes nothing of anybody else's along."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

FORGET = "from hutch.setup.private import forget_network; forget_network('hutch-ab12')"


def test_cables_of_killed_containers_go_with_their_bridge():
    script = f"""set -e
        for bridge in hutch-ab12 other; do ip link add $bridge type bridge; done
        ip link add veth1 type veth peer name peer1
        ip link set veth1 master hutch-ab12
        ip link add veth2 type veth peer name peer2
        ip link set veth2 master other
        ip link add veth3 type veth peer name peer3
        {sys.executable} -c "{FORGET}"
        ip -j link"""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    left = {link["ifname"] for link in json.loads(done.stdout)} - {"lo"}
    left = {name for name in left if name.startswith(("veth", "peer", "hutch", "other"))}
    assert left == {"other", "veth2", "peer2", "veth3", "peer3"}
