"""Sharing over HTTP."""

from typing import Any

import pytest

from hutch.services.context import Context
from tests.api.conftest import Running, Send, told


async def share(send: Send, person: str = "bob", as_: str = "alice", **body: Any) -> Any:
    return await send("PUT", f"/instances/box/shares/{person}", as_=as_, json=body)


async def test_a_guest_lists_and_shows_what_is_shared_marked_as_such(send: Send, running: Running):
    box = await running("alice", "box")
    made = await share(send, until="2d")
    assert made.status_code == 200
    assert made.json().keys() == {"person", "read_only_view", "until", "created_at"}
    [seen] = (await send("GET", "/instances", as_="bob")).json()
    assert (seen["id"], seen["owner"]) == (box.id, "alice")
    assert seen["share"] == {"read_only_view": False, "until": made.json()["until"]}
    assert (await send("GET", "/instances/box", as_="bob")).json() == seen
    assert (await send("GET", "/instances?owner=alice", as_="bob")).json() == [seen]
    [own] = (await send("GET", "/instances", as_="alice")).json()
    assert own["share"] is None


async def test_the_owner_lists_with_whom_it_is_shared_and_ends_it(send: Send, running: Running):
    await running("alice", "box")
    made = (await share(send, read_only_view=True)).json()
    assert (await send("GET", "/instances/box/shares", as_="alice")).json() == [made]
    gone = await send("DELETE", "/instances/box/shares/bob", as_="alice")
    assert gone.status_code == 204
    assert (await send("GET", "/instances/box/shares", as_="alice")).json() == []
    told(await send("GET", "/instances/box", as_="bob"), 404, "not_found")
    told(await send("DELETE", "/instances/box/shares/bob", as_="alice"), 404, "not_found")


@pytest.mark.parametrize(
    "person", ["nobody", "a" * 5000, "%00", "..%2F..", "bob;id", "$(id)", "😀", "Bob"]
)
async def test_a_person_that_is_none_is_refused(send: Send, running: Running, person: str):
    await running("alice", "box")
    answer = await send("PUT", f"/instances/box/shares/{person}", as_="alice", json={})
    assert answer.status_code in {404, 422}, answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"until": "soon"},
        {"until": "0h"},
        {"until": "99999999d"},
        {"until": "2000-01-01"},
        {"until": 3},
        {"until": "2d\0"},
        {"read_only_view": "yes"},
        {"role": "admin"},
    ],
)
async def test_a_share_that_makes_no_sense_is_refused(
    send: Send, running: Running, body: dict[str, Any]
):
    await running("alice", "box")
    assert (await share(send, **body)).status_code == 422
    assert (await send("GET", "/instances/box/shares", as_="alice")).json() == []


async def test_a_guest_is_told_whom_to_ask(send: Send, running: Running, context: Context):
    await running("alice", "box")
    await share(send)
    error = told(await send("DELETE", "/instances/box", as_="bob"), 403, "forbidden")
    assert "alice" in error["hint"]
