"""A PostgreSQL server of the tests' own, from the distribution's programs.

It listens on a socket in a private folder and nowhere else, trades durability for speed, and ends
with the process that started it, even when that one is killed.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

INSTALL = "apt-get install postgresql"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "log_min_messages": "fatal",
}
_HASTE = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}
_PR_SET_PDEATHSIG = 1


def programs() -> Path | None:
    """The folder of initdb and postgres, the newest version's; None when it is not installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (elsewhere := shutil.which("initdb")):
        found = [Path(elsewhere).parent]
    return max(found, key=lambda path: _version(path.parent.name), default=None)


def _version(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return 0.0


class Server:
    """A server with databases; `start` and `stop` may be called again and again.

    `durable` leaves it as PostgreSQL comes, for measurements.
    """

    def __init__(self, folder_of_programs: Path, *, durable: bool = False) -> None:
        self._programs = folder_of_programs
        self._settings = _SETTINGS if durable else _SETTINGS | _HASTE
        self.folder = Path(tempfile.mkdtemp(prefix="hutch-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "--pgdata", str(self.folder / "data"), "--username=hutch", "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip

    def start(self) -> None:
        options = [
            part for key, value in self._settings.items() for part in ("-c", f"{key}={value}")
        ]
        self._process = subprocess.Popen(
            [
                self._programs / "postgres",
                *("-D", self.folder / "data", "-k", self.folder),
                *options,
            ],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
            preexec_fn=_end_with_parent,
            # Ctrl-C is for pytest, which then ends the server in order.
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def stop(self, *, at_once: bool = False) -> None:
        """End the server and every connection to it; `at_once` as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql://hutch@/{database}?host={self.folder}"

    def create(self, *, template: str | None = None) -> str:
        """A new database, a copy of `template`; answers its name."""
        self._count += 1
        name = f"hutch_{self._count}"
        copied = f" TEMPLATE {template}" if template else ""
        self.execute(f"CREATE DATABASE {name}{copied}")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
