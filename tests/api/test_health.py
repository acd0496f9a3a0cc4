"""What those who watch the server are told, and how it starts and stops."""

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from hutch.api import background
from hutch.api.app import create_app, open_context
from hutch.api.background import Background
from hutch.errors import ConfigurationError
from hutch.services.context import Context
from hutch.settings import Settings
from hutch.store import migrate
from tests import lab as labs
from tests.api.conftest import told


class Patient:
    """Works until it is told to stop, and remembers the order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.started = asyncio.Event()

    async def run(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append("cancelled")

    async def drain(self, timeout: float) -> None:
        self.seen.append("drained")


class Fragile:
    """Breaks when it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.broken = asyncio.Event()
        self.restarted = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        if self.runs > 1:
            self.restarted.set()
        await self.broken.wait()
        self.broken.clear()
        raise ZeroDivisionError


async def test_a_server_that_lives_says_so_without_login(client: httpx.AsyncClient):
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_server_that_can_work_is_ready(client: httpx.AsyncClient):
    answer = await client.get("/readyz")
    checks = {"database": "ok", "migrations": "ok", "workers": "ok"}
    assert answer.json() == {"status": "ready", "checks": checks}


async def test_a_database_of_another_version_is_not_ready(sqlite_url: str, tmp_path: Path):
    migrate.downgrade(sqlite_url, "base")
    context = labs.open_context(sqlite_url, tmp_path)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(context)), base_url="http://hutch"
    ) as client:
        error = told(await client.get("/readyz"), 503, "unavailable")
    assert error["detail"]["checks"]["migrations"] != "ok"
    await labs.close_context(context)


async def test_a_worker_that_breaks_is_told_and_started_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    may_start = asyncio.Event()

    async def pause(_: float) -> None:
        await may_start.wait()

    monkeypatch.setattr(background.asyncio, "sleep", pause)
    worker = Fragile()
    app = create_app(context, [worker])
    workers: Background = app.state.background
    workers.start()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hutch") as client:
        worker.broken.set()
        while not workers.broken:
            await asyncio.wait_for(asyncio.gather(_turn()), 5)
        error = told(await client.get("/readyz"), 503, "unavailable")
        assert "fragile" in error["detail"]["checks"]["workers"]
        may_start.set()
        await asyncio.wait_for(worker.restarted.wait(), 5)
        assert (await client.get("/readyz")).status_code == 200
    await workers.stop(1)


async def _turn() -> None:
    """Let every other task go on once."""
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    loop.call_soon(turned.set_result, None)
    await turned


async def test_workers_are_drained_before_they_are_ended():
    worker = Patient()
    workers = Background([worker])
    workers.start()
    await worker.started.wait()
    await workers.stop(1)
    assert worker.seen == ["drained", "cancelled"]


async def test_the_lifespan_starts_the_workers_and_closes_everything(
    sqlite_url: str, tmp_path: Path
):
    context = labs.open_context(sqlite_url, tmp_path)
    worker = Patient()
    app: FastAPI = create_app(context, [worker])
    async with app.router.lifespan_context(app):
        await worker.started.wait()
    assert worker.seen == ["drained", "cancelled"]
    assert app.state.stopping.is_set()


async def test_a_context_is_opened_from_the_settings(tmp_path: Path):
    settings = Settings(data=tmp_path / "data")
    context = open_context(settings)
    key = tmp_path / "data" / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert context.vault.open(context.vault.seal(b"x")) == b"x"
    await labs.close_context(context)


def test_a_damaged_key_is_refused(tmp_path: Path):
    (tmp_path / "secret.key").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_context(Settings(data=tmp_path))
