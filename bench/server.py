"""A real `hutch server` process of the benchmark's own, on loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.machine import REPOSITORY

HUTCH = (sys.executable, "-c", "from hutch.cli import main; main()")
"""The command line, from this very checkout."""
_EAGERLY = "from hutch.reconcilers import warm_pool; warm_pool.BUSY_LOAD = 1000; "
_EAGER = (sys.executable, "-c", f"{_EAGERLY}{HUTCH[-1]}")
"""The same with a pool that is filled also while the machine is busy, which measuring makes it."""
_PAUSE = 0.005


class Server:
    """Starts, asks, kills. `settings` are environment variables without their `HUTCH_`."""

    def __init__(self, data: Path, *, eager_pool: bool = False, **settings: object) -> None:
        self.data = data
        self._program = _EAGER if eager_pool else HUTCH
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {f"HUTCH_{key.upper()}": str(value) for key, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's own settings of hutch, and these instead."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HUTCH_")}
        return {**kept, **self._settings, "PYTHONPATH": str(REPOSITORY / "src")}

    def start(self, patience: float = 60.0) -> float:
        """Seconds from the start of the process until it says that it is ready."""
        began = time.perf_counter()
        with (self.data / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._program, "server", "--data", str(self.data), "--port", str(self.port)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        while not self._is_ready():
            if self._process.poll() is not None or time.perf_counter() - began > patience:
                said = (self.data / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the server did not become ready:\n{said}")
            time.sleep(_PAUSE)
        return time.perf_counter() - began

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In order. Harmless when it does not run."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def memory(self) -> tuple[float, float]:
        """What the process holds now and held at most, in MB (10^6 bytes)."""
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        resident, peak = (int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return resident / 1e6, peak / 1e6

    def forget_peak(self) -> None:
        """Count from now on what it holds at most. Needs root."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def make_administrator(self, name: str) -> str:
        """An administrator in the database; a token of theirs."""
        self._account("administrator", name)
        return self._account("token", name, "bench")["token"]

    def _account(self, *words: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "hutch.setup.accounts", "--data", str(self.data), *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout)


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
