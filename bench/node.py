"""The agent of a benchmark's node: simulated accelerators, real device nodes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench.lab import Hutch
from bench.server import HUTCH

PATIENCE = 60.0


@contextmanager
def agent(hutch: Hutch, count: int) -> Generator[Path]:
    """Runs it until the end; the folder of its device nodes, which are called 0, 1, and so on."""
    server = hutch.server
    devices = Path(f"/dev/hutch-gpu-{server.port}")
    token = server.data / "agent.token"
    token.touch(mode=0o600)
    token.write_text(hutch.administrator.new_agent_token("node1")["token"] + "\n")
    with (server.data / "agent.log").open("ab") as output:
        process = subprocess.Popen(
            [
                *HUTCH, "agent", "--server", server.url, "--token-file", str(token),
                "--simulated-gpus", str(count), "--simulated-folder", str(devices),
            ],
            env=server.environment() | {"HUTCH_DATA": str(server.data)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        _wait(hutch, count, server.data / "agent.log")
        yield devices
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(devices, ignore_errors=True)


def _wait(hutch: Hutch, count: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while len(hutch.client.list_accelerators()) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"the agent did not sign in:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
