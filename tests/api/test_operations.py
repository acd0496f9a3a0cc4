"""Watching operations: who waits is answered when something changes, and never in vain."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from hutch.api import PREFIX
from hutch.domain.operations import OperationState
from hutch.services import operations as services
from hutch.services.context import Context
from hutch.store import operations
from tests.api.conftest import Send, told
from tests.lab import Lab


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other server changes anything: only what is told here may wake who waits."""
    monkeypatch.setattr(services, "ANOTHER_SERVER_SECONDS", 30.0)


async def _create(send: Send) -> dict[str, Any]:
    answer = await send("POST", "/instances", as_="alice", json={"name": "web"})
    return answer.json()["operation"]


async def _save(context: Context, operation_id: str, **values: Any) -> None:
    async with context.db.write() as session:
        operation = await operations.get_operation(session, operation_id)
        assert operation is not None
        assert await operations.save(session, operation, **values)
    context.hints.changed(operation_id)


async def _claim(context: Context) -> None:
    async with context.db.write() as session:
        assert await operations.claim(session, context.now(), timedelta(seconds=60))


async def test_who_waits_learns_of_the_end(send: Send, context: Context):
    begun = await _create(send)
    await _claim(context)
    waiting = asyncio.create_task(send("GET", f"/operations/{begun['id']}?wait=30", as_="alice"))
    await _watched(context, begun["id"])
    await _save(context, begun["id"], state=OperationState.DONE.value, progress=1.0)
    answer = (await waiting).json()
    assert (answer["state"], answer["progress"]) == ("done", 1.0)


async def test_who_has_seen_a_version_learns_of_the_next(send: Send, context: Context):
    begun = await _create(send)
    path = f"/operations/{begun['id']}?wait=30&seen="
    # An old version is answered at once.
    current = (await send("GET", path + "an.old.one", as_="alice")).json()
    assert current["version"] == begun["version"]
    await _claim(context)
    current = (await send("GET", path + begun["version"], as_="alice")).json()
    waiting = asyncio.create_task(send("GET", path + current["version"], as_="alice"))
    await _watched(context, begun["id"])
    await _save(context, begun["id"], step="start")
    assert (await waiting).json()["step"] == "start"


async def test_a_wait_in_vain_ends_in_time(send: Send):
    begun = await _create(send)
    started = time.monotonic()
    answer = await send("GET", f"/operations/{begun['id']}?wait=0.1", as_="alice")
    assert answer.json()["state"] == "pending"
    assert time.monotonic() - started < 5


async def test_a_stopping_server_ends_every_wait_with_what_is_known(
    send: Send, app: FastAPI, context: Context
):
    begun = await _create(send)
    waiting = asyncio.create_task(send("GET", f"/operations/{begun['id']}?wait=60", as_="alice"))
    await _watched(context, begun["id"])
    app.state.stopping.set()
    answer = await asyncio.wait_for(waiting, 5)
    assert answer.json()["state"] == "pending"


async def test_a_client_that_goes_away_is_waited_for_no_longer(
    app: FastAPI, context: Context, send: Send, token_of: dict[str, str]
):
    begun = await _create(send)
    gone = asyncio.Event()
    messages: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def ignore(_: Any) -> None:
        return None

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"{PREFIX}/operations/{begun['id']}",
        "query_string": b"wait=60",
        "headers": [(b"authorization", f"Bearer {token_of['alice']}".encode())],
    }
    request = asyncio.create_task(app(scope, receive, ignore))
    await _watched(context, begun["id"])
    gone.set()
    await asyncio.wait_for(request, 5)
    assert not context.hints._watchers  # pyright: ignore[reportPrivateUsage]


async def test_operations_are_listed_newest_first(send: Send, lab: Lab):
    first = await _create(send)
    made = await send("POST", "/instances", as_="bob", json={"name": "of-bob"})
    second = made.json()["operation"]
    assert await _ids(send, "alice", "") == [first["id"]]
    assert await _ids(send, "ada", "") == []
    assert await _ids(send, "ada", "?all=true&live=true") == [second["id"], first["id"]]
    assert await _ids(send, "ada", "?all=true&limit=1") == [second["id"]]


async def test_only_a_stuck_operation_is_retried(send: Send, context: Context):
    begun = await _create(send)
    told(await send("POST", f"/operations/{begun['id']}/retry", as_="ada"), 409, "wrong_state")
    await _claim(context)
    error = {"code": "internal_error", "message": "Unforeseen.", "hint": "", "detail": {}}
    await _save(context, begun["id"], state=OperationState.STUCK.value, error=error)
    shown = (await send("GET", f"/operations/{begun['id']}", as_="alice")).json()
    assert (shown["state"], shown["error"]) == ("stuck", error)
    retried = await send("POST", f"/operations/{begun['id']}/retry", as_="ada")
    assert retried.json()["state"] == "pending"


async def _ids(send: Send, who: str, query: str) -> list[str]:
    return [each["id"] for each in (await send("GET", f"/operations{query}", as_=who)).json()]


async def _watched(context: Context, operation_id: str) -> None:
    """Return once somebody waits for the operation and has looked at it."""
    watchers = context.hints._watchers  # pyright: ignore[reportPrivateUsage]
    async with asyncio.timeout(5):
        while not watchers.get(operation_id):
            await asyncio.sleep(0.005)
    # A moment for the look itself; a change that comes earlier is seen by it, which is as good.
    await asyncio.sleep(0.05)
