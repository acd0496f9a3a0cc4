"""The application over each test's own database, and everyone's way to talk to it.

    app             `create_app(context)`, without workers: operations stay pending
    send            `await send("POST", "/instances", as_="alice", json={…})`; paths are below the
                    prefix; without `as_` nobody is signed in
    token_of        everyone's token by name, `reader` among them: alice's read-only one
    running         makes an instance of somebody run, in the database and in the engine

`told(answer, status, code)` holds an answer to the one shape of failures.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from hutch.api import PREFIX
from hutch.api.app import create_app
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.operations import OperationState
from hutch.domain.people import Scope
from hutch.engine.base import ContainerSpec
from hutch.services import instances as services
from hutch.services import tokens
from hutch.services.context import Context, Engines
from hutch.store import containers, instances, operations
from tests.api.live import open_simulated
from tests.lab import Lab

Send = Callable[..., Awaitable[httpx.Response]]
Running = Callable[[str, str], Awaitable[Instance]]


def told(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer, which must have exactly the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "hint", "detail", "request_id"}
    assert error["code"] == code, error
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone, unless a module says otherwise: the store's own tests run over both."""
    return sqlite_url


@pytest_asyncio.fixture
async def context(context: Context) -> AsyncIterator[Context]:
    """With engines as a server opens them, so that an Incus node is not a simulated one."""
    engines = Engines(open_simulated)
    yield replace(context, engines=engines)
    await engines.close()


@pytest.fixture
def app(context: Context) -> FastAPI:
    return create_app(context)


@pytest_asyncio.fixture
async def token_of(context: Context, lab: Lab) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, actor in lab.actors.items():
        found[name], _ = await tokens.create(context, actor, "test", Scope.FULL, 1)
    found["reader"], _ = await tokens.create(context, lab.actors["alice"], "r", Scope.READ, 1)
    return found


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=("192.0.2.99", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://hutch") as opened:
        yield opened


@pytest.fixture
def send(client: httpx.AsyncClient, token_of: dict[str, str]) -> Send:
    async def _send(
        method: str, path: str, *, as_: str | None = None, **request: Any
    ) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        if as_ is not None:
            headers["Authorization"] = f"Bearer {token_of[as_]}"
        return await client.request(method, PREFIX + path, headers=headers, **request)

    return _send


@pytest.fixture
def running(context: Context, lab: Lab) -> Running:
    """Do what the operation would have done, so that an instance can be used without a runner."""

    async def _running(owner: str, name: str) -> Instance:
        wish = services.Wish(name, memory=1024**3, disk=1024**3, cpus=1)
        made, operation = await services.create(context, lab.actors[owner], wish)
        async with context.db.write() as session:
            container = await containers.current(session, made.id)
            assert container is not None
            claimed = await operations.claim(session, context.now(), timedelta(seconds=5))
            assert claimed is not None
            assert claimed.id == operation.id
            await operations.save(
                session,
                claimed,
                state=OperationState.DONE.value,
                lease_token=None,
                finished_at=context.now(),
            )
            await instances.set_state(session, made.id, InstanceState.RUNNING)
        spec = ContainerSpec(container.engine_name, "base", made.limits, container.address)
        await context.engines.of(lab.node).create(spec, start=True)
        return await services.show(context, lab.actors[owner], name)

    return _running
