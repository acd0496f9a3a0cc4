"""Groups and policies of idleness over HTTP."""

from typing import Any

import pytest

from tests.api.conftest import Send, told

IDLE = {"window_minutes": 120.0, "threshold_percent": 5.0, "warning_minutes": 15.0}


async def _vision(send: Send, **shares: Any) -> dict[str, Any]:
    """The group `vision` with alice as its manager, as alice sees it."""
    body = {"name": "vision", **shares}
    assert (await send("POST", "/groups", as_="ada", json=body)).status_code == 201
    await send("POST", "/groups/vision/members", as_="ada", json={"user": "alice"})
    manager = {"is_manager": True}
    await send("PUT", "/groups/vision/members/alice/manager", as_="ada", json=manager)
    return (await send("GET", "/groups/vision", as_="alice")).json()


async def test_a_group_is_shown_with_its_shares_and_its_people(send: Send):
    shown = await _vision(send, guarantee=2, limit=6, weight=2, idle={"window_minutes": 120})
    shown.pop("created_at")
    assert shown == {
        "name": "vision",
        "guarantee": 2,
        "limit": 6,
        "weight": 2.0,
        "idle": IDLE,
        "held": 0,
        "waiting": 0,
        "members": [{"user": "alice", "is_manager": True, "maximum": 4, "held": 0}],
    }
    (listed,) = (await send("GET", "/groups", as_="ada")).json()
    assert {key: listed[key] for key in shown} == shown
    assert (await send("GET", "/groups", as_="bob")).json() == []
    told(await send("GET", "/groups/vision", as_="bob"), 404, "not_found")


async def test_null_takes_a_limit_away_and_leaving_it_out_does_not(send: Send):
    await _vision(send, guarantee=2, limit=6, idle={"window_minutes": 120})
    path = "/groups/vision"
    kept = (await send("PATCH", path, as_="ada", json={"weight": 3})).json()
    assert (kept["limit"], kept["idle"], kept["weight"]) == (6, IDLE, 3.0)
    freed = (await send("PATCH", path, as_="ada", json={"limit": None, "idle": None})).json()
    assert (freed["limit"], freed["idle"], freed["guarantee"]) == (None, None, 2)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"guarantee": -1}, "invalid_limit"),
        ({"guarantee": 5, "limit": 4}, "invalid_limit"),
        ({"guarantee": 2**31}, "invalid_input"),
        ({"guarantee": 1.5}, "invalid_input"),
        ({"guarantee": True}, "invalid_input"),
        ({"weight": 0}, "invalid_limit"),
        ({"weight": "1"}, "invalid_input"),
        ({"idle": {"window_minutes": -1}}, "invalid_input"),
        ({"idle": {"threshold_percent": 101}}, "invalid_input"),
        ({"idle": {"window": 60}}, "invalid_input"),
        ({"idle": 0}, "invalid_input"),
        ({"members": []}, "invalid_input"),
    ],
    ids=str,
)
async def test_shares_that_make_no_sense_are_refused(send: Send, body: dict[str, Any], code: str):
    before = await _vision(send)
    told(await send("PATCH", "/groups/vision", as_="ada", json=body), 422, code)
    told(await send("POST", "/groups", as_="ada", json={"name": "new"} | body), 422, code)
    assert (await send("GET", "/groups/vision", as_="ada")).json() == before


@pytest.mark.parametrize(
    "content", ['{"weight": NaN}', '{"weight": Infinity}', '{"weight": 1e999}']
)
async def test_a_weight_is_a_number(send: Send, content: str):
    await _vision(send)
    headers = {"content-type": "application/json"}
    answer = await send("PATCH", "/groups/vision", as_="ada", content=content, headers=headers)
    assert answer.status_code in {400, 422}


async def test_a_manager_keeps_members_and_nothing_else(send: Send):
    await _vision(send, limit=4)
    members = "/groups/vision/members"
    added = await send("POST", members, as_="alice", json={"user": "bob"})
    assert added.status_code == 201
    changed = await send("PATCH", f"{members}/bob", as_="alice", json={"accelerators": 1})
    maximum = {member["user"]: member["maximum"] for member in changed.json()["members"]}
    assert maximum == {"alice": 4, "bob": 1}
    assert (await send("GET", "/me", as_="bob")).json()["quota"]["accelerators"] == 1
    for path in (f"{members}/bob", f"{members}/bob"):
        told(await send("PATCH", path, as_="alice", json={"accelerators": 5}), 422, "invalid_limit")
    told(await send("PATCH", "/groups/vision", as_="alice", json={"weight": 9}), 403, "forbidden")
    manager = {"is_manager": True}
    told(await send("PUT", f"{members}/bob/manager", as_="alice", json=manager), 403, "forbidden")
    told(await send("DELETE", "/groups/vision", as_="alice"), 403, "forbidden")
    assert (await send("DELETE", f"{members}/bob", as_="alice")).status_code == 204
    told(await send("DELETE", f"{members}/bob", as_="alice"), 404, "not_found")
    told(await send("POST", members, as_="bob", json={"user": "bob"}), 403, "forbidden")


async def test_another_group_is_not_found_by_a_manager(send: Send):
    await _vision(send)
    await send("POST", "/groups", as_="ada", json={"name": "audio"})
    for method, path, body in (
        ("GET", "", None),
        ("POST", "/members", {"user": "bob"}),
        ("PATCH", "/members/bob", {"accelerators": 1}),
        ("DELETE", "/members/bob", None),
    ):
        answer = await send(method, f"/groups/audio{path}", as_="alice", json=body)
        told(answer, 404, "not_found")


async def test_a_group_is_removed_and_its_people_stay(send: Send):
    await _vision(send)
    assert (await send("DELETE", "/groups/vision", as_="ada")).status_code == 204
    told(await send("GET", "/groups/vision", as_="ada"), 404, "not_found")
    assert (await send("GET", "/users/alice", as_="ada")).status_code == 200


async def test_a_persons_accelerators_are_part_of_their_quota(send: Send):
    changed = await send("PATCH", "/users/alice", as_="ada", json={"accelerators": 7})
    assert changed.json()["quota"]["accelerators"] == 7
    assert changed.json()["held"]["accelerators"] == 0
    refused = await send("PATCH", "/users/alice", as_="ada", json={"accelerators": -1})
    told(refused, 422, "invalid_limit")


async def test_a_node_has_a_policy_of_idleness_of_its_own(send: Send):
    assert (await send("GET", "/nodes", as_="alice")).json()[0]["idle"] is None
    path = "/nodes/node1"
    body: dict[str, Any] = {"idle": {"window_minutes": 120}}
    assert (await send("PATCH", path, as_="ada", json=body)).json()["idle"] == IDLE
    assert (await send("GET", "/nodes", as_="alice")).json()[0]["idle"] == IDLE
    never = {"idle": {"window_minutes": 0, "warning_minutes": 5}}
    changed = (await send("PATCH", path, as_="ada", json=never)).json()["idle"]
    assert changed == {**IDLE, "window_minutes": 0.0, "warning_minutes": 5.0}
    assert (await send("PATCH", path, as_="ada", json={"idle": None})).json()["idle"] is None
    told(await send("PATCH", path, as_="ada", json={}), 422, "invalid_input")
    told(await send("PATCH", path, as_="alice", json=body), 403, "forbidden")
    told(await send("PATCH", "/nodes/nowhere", as_="ada", json=body), 404, "not_found")
