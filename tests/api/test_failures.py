"""Whatever goes wrong, the answer has the one shape and tells nothing it should not."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import FastAPI

from hutch.api.app import create_app
from hutch.errors import DatabaseUnavailableError, EngineConflictError
from hutch.services import instances, tokens
from hutch.services.context import Context
from hutch.store import db, migrate
from tests import lab as labs
from tests.api.conftest import Send, told
from tests.postgresql import Server

JSON = {"Content-Type": "application/json"}


async def test_an_unknown_path_is_not_found(send: Send):
    told(await send("GET", "/nothing/here", as_="alice"), 404, "not_found")


async def test_a_trailing_slash_is_another_path(send: Send):
    told(await send("GET", "/instances/web/", as_="alice"), 404, "not_found")


async def test_a_wrong_method_says_which_are_right(send: Send):
    answer = await send("PUT", "/instances/web", as_="alice")
    told(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"name": "web"',
        b'{"name": "web"}}',
        b"\xff\xfe\xfd",
        b'{"name": "\xff"}',
        b"[" * 200_000,
        b'{"name":' * 100_000,
        b'{"cpus": ' + b"9" * 10_000 + b"}",
        b"",
        b"[]",
        b"null",
        b'"web"',
        b"17",
        b"NaN",
    ],
    ids=lambda body: repr(body[:16]),
)
async def test_what_is_not_a_json_object_is_refused(send: Send, body: bytes):
    answer = await send("POST", "/instances", as_="alice", content=body, headers=JSON)
    told(answer, 422, "invalid_input")


async def test_a_body_of_another_type_is_refused_with_the_type_to_send(send: Send):
    answer = await send("POST", "/instances", as_="alice", data={"name": "web"})
    assert "application/json" in told(answer, 422, "invalid_input")["hint"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a\0b"}, "name"),
        ({"name": 7}, "name"),
        ({}, "name"),
        ({"name": "web", "colour": "red"}, "colour"),
        ({"name": "web", "cpus": 2**63}, "cpus"),
        ({"name": "web", "cpus": 10**400}, "cpus"),
        ({"name": "web", "cpus": 2.5}, "cpus"),
        ({"name": "web", "cpus": "2"}, "cpus"),
        ({"name": "web", "cpus": True}, "cpus"),
        ({"name": "web", "node": ["x"]}, "node"),
    ],
)
async def test_a_bad_field_is_named(send: Send, body: dict[str, object], field: str):
    answer = await send("POST", "/instances", as_="alice", json=body)
    error = told(answer, 422, "invalid_input")
    assert error["detail"]["field"] == field
    assert field in error["message"]


async def test_lone_surrogates_are_refused(send: Send):
    body = rb'{"name": "\ud800", "\udfff": 1}'
    answer = await send("POST", "/instances", as_="alice", content=body, headers=JSON)
    told(answer, 422, "invalid_input")


async def test_what_was_given_is_not_repeated(send: Send):
    answer = await send("POST", "/login", json={"name": "alice", "password": ["hunter22"]})
    told(answer, 422, "invalid_input")
    assert "hunter22" not in answer.text


@pytest.mark.parametrize("path", ["/instances/a%00b", "/instances?owner=a%00b", "/%00"])
async def test_nul_in_the_address_is_refused(send: Send, path: str):
    told(await send("GET", path, as_="alice"), 422, "invalid_input")


@pytest.mark.parametrize(
    "path",
    [
        "/instances?limit=0",
        "/instances?limit=99999999999999999999999",
        "/operations?limit=x",
        "/operations/x?wait=61",
        "/operations/x?wait=nan",
        "/instances?all=perhaps",
        "/instances?ownr=bob",
        "/me?x=",
    ],
)
async def test_a_bad_query_is_refused(send: Send, path: str):
    told(await send("GET", path, as_="alice"), 422, "invalid_input")


async def test_a_body_that_announces_too_much_is_not_read(app: FastAPI, context: Context):
    largest = context.settings.largest_body
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x" * largest

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://hutch"
    ) as client:
        headers = {**JSON, "Content-Length": str(100 * 1024**2)}
        answer = await client.post("/api/v1/login", content=body(), headers=headers)
    told(answer, 413, "too_large")
    assert read == 0


async def test_a_body_that_does_not_end_is_read_only_to_the_limit(app: FastAPI, context: Context):
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 65536

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://hutch"
    ) as client:
        answer = await client.post("/api/v1/login", content=body(), headers=JSON)
    told(answer, 413, "too_large")
    assert read == context.settings.largest_body // 65536 + 1


async def test_a_body_of_just_the_limit_is_read(send: Send, context: Context):
    body = b'{"name": "alice"}'.ljust(context.settings.largest_body)
    answer = await send("POST", "/instances", as_="alice", content=body, headers=JSON)
    assert answer.status_code == 202


async def test_a_mistake_of_ours_is_told_to_the_log_alone(
    send: Send, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("the secret is 1234")

    monkeypatch.setattr(instances, "show", broken)
    answer = await send("GET", "/instances/web", as_="alice")
    error = told(answer, 500, "internal_error")
    assert "1234" not in answer.text
    assert "ZeroDivisionError" not in answer.text
    printed = capsys.readouterr()
    assert "ZeroDivisionError" in printed.out + printed.err
    assert error["request_id"] in printed.out + printed.err


async def test_a_busy_engine_is_asked_again_later(send: Send, monkeypatch: pytest.MonkeyPatch):
    async def busy(*_: object) -> None:
        raise EngineConflictError("It is being copied.")

    monkeypatch.setattr(instances, "usage", busy)
    answer = await send("GET", "/instances/web/usage", as_="alice")
    told(answer, 503, "engine_conflict")
    assert int(answer.headers["retry-after"]) > 0


async def test_too_many_requests_say_when_to_come_back(
    send: Send, context: Context, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object) -> bool:
        raise VerifyMismatchError

    # The real work would only make this slow.
    monkeypatch.setattr(PasswordHasher, "verify", never)
    body = {"name": "alice", "password": "wrong"}
    for _ in range(context.settings.login_failures):
        told(await send("POST", "/login", json=body), 401, "bad_login")
    answer = await send("POST", "/login", json=body)
    told(answer, 429, "too_many_requests")
    assert 0 < int(answer.headers["retry-after"]) <= context.settings.login_window_seconds + 1


async def test_a_locked_database_is_unavailable_until_it_is_free(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.1)
    context = labs.open_context(sqlite_url, tmp_path)
    lab = await labs.fill(context.db, tmp_path / "engine.db", context.settings.default_quota)
    clear, _ = await tokens.create(context, lab.actors["alice"], "t", tokens.Scope.FULL, 1)
    transport = httpx.ASGITransport(create_app(context))
    headers = {"Authorization": f"Bearer {clear}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://hutch/api/v1", headers=headers
    ) as client:
        await client.get("/me")
        holder = sqlite3.connect(tmp_path / "hutch.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answer = await client.post("/instances", json={"name": "web"})
        told(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        # Who only reads is not held up by who writes.
        assert (await client.get("/instances")).json() == []
        holder.execute("ROLLBACK")
        holder.close()
        assert (await client.post("/instances", json={"name": "web"})).status_code == 202
    await labs.close_context(context)


async def test_a_database_that_is_gone_is_unavailable_until_it_is_back(
    stoppable_server: Server, tmp_path: Path
):
    url = stoppable_server.url(stoppable_server.create())
    migrate.upgrade(url)
    context = labs.open_context(url, tmp_path)
    lab = await labs.fill(context.db, tmp_path / "engine.db", context.settings.default_quota)
    clear, _ = await tokens.create(context, lab.actors["alice"], "t", tokens.Scope.FULL, 1)
    headers = {"Authorization": f"Bearer {clear}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(context)), base_url="http://hutch", headers=headers
    ) as client:
        assert (await client.get("/api/v1/instances")).status_code == 200
        stoppable_server.stop(at_once=True)
        for request in (
            client.get("/api/v1/instances"),
            client.post("/api/v1/instances", json={"name": "web"}),
            client.post("/api/v1/login", json={"name": "a", "password": "b"}),
        ):
            answer = await request
            told(answer, 503, "database_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            # Neither the address of the database nor the statement is anybody's business.
            assert "SELECT" not in answer.text
        told(await client.get("/readyz"), 503, "unavailable")
        assert (await client.get("/healthz")).status_code == 200
        stoppable_server.start()
        assert (await client.get("/api/v1/instances")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
    await labs.close_context(context)


async def test_an_error_in_an_error_still_has_the_shape(
    send: Send, monkeypatch: pytest.MonkeyPatch
):
    async def gone(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("gone", detail_with_bytes=b"\xff")

    monkeypatch.setattr(instances, "show", gone)
    answer = await send("GET", "/instances/web", as_="alice")
    assert answer.status_code in {500, 503}
    assert set(json.loads(answer.text)) == {"error"}
