"""Files for clients that stall: they hold nothing for long, and nothing is read ahead for them."""

import asyncio
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from hutch.api import files as api_files
from hutch.services.context import Context
from tests.api.conftest import Send
from tests.api.test_files import Box, box, database_url, upload
from tests.lab import Lab

__all__ = ["box", "database_url"]


async def _raw(app: FastAPI, method: str, token: str, receive: Any, send: Any) -> None:
    """A transfer of `f` by a client whose every move is the test's."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": "/api/v1/instances/box/files/content", "root_path": "",
        "raw_path": b"/api/v1/instances/box/files/content", "query_string": b"path=f",
        "headers": [(b"host", b"hutch"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("192.0.2.99", 50000), "server": ("hutch", 80),
    }  # fmt: skip
    async with asyncio.timeout(20):
        await app(scope, receive, send)


async def test_who_never_reads_is_given_up_and_nothing_is_read_ahead_for_them(
    send: Send, box: Box, app: FastAPI, token_of: dict[str, str], context: Context,
    lab: Lab, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    await upload(send, "f", bytes(8 * 1024 * 1024))
    monkeypatch.setattr(api_files, "STALL_SECONDS", 0.3)
    offered: list[int] = []

    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for each in asked:
            return each
        return await asyncio.Event().wait()

    async def never_take(message: Any) -> None:
        if message["type"] == "http.response.body":
            offered.append(len(message["body"]))
            await asyncio.Event().wait()

    await _raw(app, "GET", token_of["alice"], receive, never_take)
    assert len(offered) == 1
    assert 0 < offered[0] < 8 * 1024 * 1024
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(context.transfers.take(lab.actors["alice"].user_id))


async def test_who_sends_nothing_more_is_given_up_and_nothing_stays(
    box: Box, app: FastAPI, token_of: dict[str, str], context: Context,
    lab: Lab, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(api_files, "STALL_SECONDS", 0.3)
    came = iter([{"type": "http.request", "body": b"first", "more_body": True}])

    async def receive() -> Any:
        for each in came:
            return each
        return await asyncio.Event().wait()

    async def take(message: Any) -> None:
        pass

    with suppress(ClientDisconnect):
        await _raw(app, "PUT", token_of["alice"], receive, take)
    assert await box.names() == set()
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(context.transfers.take(lab.actors["alice"].user_id))
