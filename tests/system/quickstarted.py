"""One run of ./quickstart for the tests, in a folder and under names of its own."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hutch.domain.ssh_config import KNOWN_HOSTS
from tests.system.site import free_port

SOURCE = Path(__file__).parents[2]
#: An account that every system has. The server must not run as root here.
USER = "nobody"


@dataclass
class Setup:
    """One run of the setup, in a folder of its own."""

    folder: Path
    port: int
    gateway_port: int
    argv: list[str]
    options: list[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HUTCH_")}
        bin_folder = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**kept, "HOME": str(self.home), "XDG_CONFIG_HOME": "", "PATH": bin_folder}

    def run(self, *more: str) -> str:
        done = self.try_run([*self.argv, *self.options, *more])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def hutch(self, *argv: str) -> str:
        done = self.try_run(["hutch", *argv], HUTCH_DATA=str(self.data))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ssh(self, printed: str, command: str) -> str:
        """Logs in just as the setup printed it. Only where the key and the known hosts are has to
        be said: ssh looks for them at the home in the system's list, not in $HOME."""
        words = printed.split()
        assert words[:2] == ["ssh", "-p"]
        argv = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o",
                f"UserKnownHostsFile={self.home}/.ssh/known_hosts", "-i",
                f"{self.home}/.ssh/id_ed25519", *words[1:], command]  # fmt: skip
        done = self.try_run(argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def through_gateway(self) -> list[str]:
        """ssh with the configuration that hutch writes. Only where the key and the known hosts
        are is another place than a person's."""
        told = json.loads(self.hutch("ssh-config", "--json"))
        known = self.folder / "known_hosts"
        known.write_text(told["known_hosts"])
        config = self.folder / "ssh_config"
        own = ("BatchMode yes", "IdentitiesOnly yes", f"IdentityFile {self.home}/.ssh/id_ed25519")
        written = told["config"].replace(KNOWN_HOSTS, str(known))
        config.write_text("\n".join([*own, written]))
        return ["ssh", "-F", str(config)]

    def lab(self, *command: str) -> str:
        """Gives a command to the gateway, over ssh."""
        done = self.try_run([*self.through_gateway(), "lab", *command])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def session(self, host: str, command: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on; what it prints can be read, and what it reads be written."""
        argv = [*self.through_gateway(), host, command]
        process = subprocess.Popen(
            argv, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def try_run(self, argv: list[str], **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            argv,
            env={**self.environment, **extra},
            cwd=SOURCE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def pid_of(self, service: str) -> int:
        return json.loads((self.data / f"run/{service}.json").read_text())["pid"]


@contextmanager
def setup_of(*argv: str) -> Iterator[Setup]:
    """A setup run by `argv`, in a folder which, unlike pytest's, the server's user can enter."""
    with tempfile.TemporaryDirectory(prefix="hutch-quickstart-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        port, gateway_port = free_port(), free_port()
        options = ["--yes", "--data", str(folder / "data"), "--command-dir", str(folder / "bin"),
                   "--set", f"listen_port={port}", "--set",
                   f"gateway_port={gateway_port}", "--user", USER]  # fmt: skip
        yield Setup(folder, port, gateway_port, list(argv), options)


def printed_ssh(out: str) -> str:
    found = re.search(r"^  (ssh -p .*)$", out, re.MULTILINE)
    assert found, out
    return found.group(1)
