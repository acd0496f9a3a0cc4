"""OpenSSH's own server on loopback, with an account and a configuration of its own.

It runs with a copy of the list of accounts that it alone sees, so nothing of the machine is
changed. `HUTCH_BENCH_SSHD` names the program where it is not installed in a usual place.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from bench import ssh
from bench.server import free_port

USER = "bench"
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
MaxStartups 1000
MaxSessions 1000
UseDNS no
LogLevel ERROR
"""
_START = """\
mount --bind "$1/accounts" /etc/passwd && mkdir -p /run/sshd && exec "$2" -D -f "$1/config"
"""


class Sshd:
    """One server, that lets one key in."""

    def __init__(self, folder: Path, public_key: str) -> None:
        folder.mkdir()
        self.port = free_port()
        self.host_key = ssh.make_key(folder / "host")
        (folder / "authorized").write_text(public_key + "\n")
        (folder / "config").write_text(_CONFIG.format(port=self.port, folder=folder))
        (folder / "accounts").write_text(_accounts(folder))
        folder.chmod(0o755)
        argv = ["unshare", "--mount", "sh", "-c", _START, "sh", str(folder), program()]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        ssh.wait_for_banner("127.0.0.1", self.port)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def program() -> str:
    """The server's program. RuntimeError when there is none, or nobody who may start it."""
    if os.geteuid() != 0:
        raise RuntimeError("OpenSSH's server is started as root")
    found = os.environ.get("HUTCH_BENCH_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if not found:
        raise RuntimeError("OpenSSH's server is not installed: apt-get install openssh-server")
    return found


def _accounts(folder: Path) -> str:
    """The machine's, with the two that are needed here."""
    nobody = pwd.getpwnam("nobody")
    home = f"{nobody.pw_uid}:{nobody.pw_gid}::{folder}"
    kept = Path("/etc/passwd").read_text()
    return f"{USER}:*:{home}:/bin/sh\nsshd:*:{home}:/usr/sbin/nologin\n{kept}"
