"""The server as a process: it starts, answers, and stops quickly and in order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from hutch.api import PREFIX
from hutch.api.serve import serve
from hutch.errors import ConfigurationError
from hutch.settings import Settings
from tests.api.conftest import told
from tests.api.live import fill

_PROGRAM = """
from hutch.api.serve import serve
from hutch.settings import load_settings
serve(load_settings())
"""


class Process:
    """A server with a data folder of its own."""

    def __init__(self, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = os.environ | {"HUTCH_DATA": str(data), "HUTCH_LISTEN_PORT": str(self.port)}
        self.log = (data.parent / "server.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], env=environment, stderr=self.log
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.logged()
            time.sleep(0.02)
        raise TimeoutError(self.logged())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def logged(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "data")
    yield process
    process.end()


async def _token(data: Path) -> str:
    return await fill(f"sqlite:///{data / 'hutch.db'}", data)


async def test_a_server_starts_on_an_empty_folder_and_stops_in_order(
    server: Process, tmp_path: Path
):
    server.wait_until_ready()
    answer = server.client.get(f"{PREFIX}/me")
    told(answer, 401, "not_authenticated")
    assert "server" not in answer.headers
    for file in (tmp_path / "data").iterdir():
        assert file.stat().st_mode & 0o077 == 0, f"others can read {file}"
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.logged().splitlines()]
    assert all({"message", "level", "time"} <= set(line) for line in lines)
    assert not [line for line in lines if line["level"] in {"error", "critical"}]


async def test_a_stopping_server_does_not_wait_for_who_waits(server: Process, tmp_path: Path):
    server.wait_until_ready()
    token = await _token(tmp_path / "data")
    server.client.headers["Authorization"] = f"Bearer {token}"
    # Its node is silent: the operation does not end.
    (tmp_path / "data" / "engine.db.faults.json").write_text('{"hang": ["*"]}')
    begun = server.client.post(f"{PREFIX}/instances", json={"name": "web"})
    path = f"{PREFIX}/operations/{begun.json()['operation']['id']}?wait=60"
    with ThreadPoolExecutor() as pool:
        version = server.client.get(path.removesuffix("?wait=60")).json()["version"]
        waiting = pool.submit(server.client.get, f"{path}&seen={version}")
        time.sleep(0.3)
        began = time.monotonic()
        server.stop()
        answer = waiting.result(10)
    assert time.monotonic() - began < 10
    assert answer.json()["state"] in {"pending", "running"}


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_hundred_megabytes_are_refused_and_the_server_stays_small(
    server: Process, announced: bool
):
    server.wait_until_ready()
    block = b" " * 2**20
    body = (block for _ in range(100))
    headers = {"Content-Type": "application/json"}
    if announced:
        headers["Content-Length"] = str(100 * 2**20)
    try:
        answer = server.client.post(f"{PREFIX}/login", content=body, headers=headers)
    except httpx.WriteError:
        # It hung up in the middle, which is as good.
        pass
    else:
        told(answer, 413, "too_large")
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 250 * 1024
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200


def test_an_address_that_is_taken_is_told(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}"):
            serve(Settings(data=tmp_path, listen_port=port))
