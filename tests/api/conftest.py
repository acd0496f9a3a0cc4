"""The application over each test's own database, and everyone's way to talk to it.

app             `create_app(context)`, without workers: operations stay pending
send            `await send("POST", "/instances", as_="alice", json={…})`; paths are below the
                prefix; without `as_` nobody is signed in
token_of        everyone's token by name, `reader` among them: alice's read-only one
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from hutch.api import PREFIX
from hutch.api.app import create_app
from hutch.domain.people import Scope
from hutch.services import tokens
from hutch.services.context import Context
from tests.lab import Lab

Send = Callable[..., Awaitable[httpx.Response]]


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
