"""Accelerators, leases, reports and notices over HTTP: shapes, refusals, and who may know what."""

from typing import Any

import pytest

from hutch.domain.accelerators import Process, Reading
from hutch.domain.instances import ContainerRole
from hutch.domain.people import Actor
from hutch.services import announcements, scheduling
from hutch.services.context import Context
from hutch.store import accelerators, containers, groups, images
from tests.api.conftest import Send, told
from tests.lab import Lab
from tests.leases import MODEL, Hands, add_accelerators, add_group, add_machine


@pytest.fixture
async def gpus(context: Context, lab: Lab, alice: Actor, bob: Actor) -> list[str]:
    """Two accelerators on node1, where alice and bob have a running machine each."""
    async with context.db.write() as session:
        made = await add_accelerators(session, lab.node, 2, context.now())
        await add_machine(session, alice, lab.node, "box")
        await add_machine(session, bob, lab.node, "bobs")
    return made


async def _manages_vision(context: Context, boss: Actor, *members: Actor) -> None:
    """Make `boss` the manager of a group with these members."""
    async with context.db.write() as session:
        vision = await add_group(session, "vision", boss, *members)
        await groups.set_manager(session, vision.id, boss.user_id, True)


async def _take(send: Send, who: str, count: int, **wish: Any) -> dict[str, Any]:
    answer = await send("POST", "/leases", as_=who, json={"count": count, **wish})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _active(context: Context, send: Send, who: str, count: int) -> dict[str, Any]:
    """A lease whose accelerators are in the machine."""
    taken = await _take(send, who, count)
    hands = Hands(context)
    await hands.attach(await hands.lease(taken["id"]))
    return (await send("GET", f"/leases/{taken['id']}", as_=who)).json()


async def test_what_is_free_is_granted_with_the_answer(send: Send, gpus: list[str]):
    lease = await _take(send, "alice", 1, minutes=240)
    assert (lease["state"], lease["instance"], lease["owner"]) == ("attaching", "box", "alice")
    assert lease["minutes"] == 240.0
    (held,) = lease["accelerators"]
    assert held["id"] in gpus
    assert held["name"].startswith("node1/simulated:")
    assert held["model"] == MODEL
    assert (lease["explanation"], lease["announcement"], lease["error"]) == (None, None, None)


async def test_who_waits_is_told_why_and_behind_whom(context: Context, send: Send, gpus: list[str]):
    held = await _active(context, send, "alice", 2)
    waiting = await _take(send, "bob", 1)
    why = waiting["explanation"]
    assert (waiting["state"], why["waiting"], why["position"]) == ("queued", "devices", 1)
    assert why["projected_start"] == held["expires_at"]
    (holder,) = why["held_by"]
    assert holder == {
        "id": held["id"],
        "owner": "alice",
        "count": 2,
        "state": "active",
        "expires_at": held["expires_at"],
    }
    behind = await _take(send, "bob", 1)
    assert [each["owner"] for each in behind["explanation"]["ahead"]] == ["bob"]


async def test_a_wait_is_answered_when_something_changes(
    context: Context, send: Send, gpus: list[str]
):
    held = await _active(context, send, "alice", 2)
    waiting = await _take(send, "bob", 1)
    path = f"/leases/{waiting['id']}"
    same = await send("GET", f"{path}?wait=0.2&seen={waiting['version']}", as_="bob")
    assert same.json()["version"] == waiting["version"]
    (released,) = (await send("DELETE", "/leases", as_="alice")).json()
    assert (released["id"], released["state"]) == (held["id"], "detaching")
    hands = Hands(context)
    await hands.detach(await hands.lease(held["id"]))
    granted = await send("GET", f"{path}?wait=20&seen={waiting['version']}", as_="bob")
    assert granted.json()["state"] == "attaching"


async def test_the_line_is_everyones_to_see_and_the_machines_in_it_are_not(
    context: Context, send: Send, gpus: list[str]
):
    await _active(context, send, "alice", 2)
    await _take(send, "bob", 1)
    (seen,) = (await send("GET", "/leases/queue", as_="alice")).json()
    assert (seen["owner"], seen["count"], seen["node"]) == ("bob", 1, "node1")
    assert (seen["instance"], seen["group"], seen["error"]) == (None, None, None)
    (own,) = (await send("GET", "/leases/queue", as_="bob")).json()
    assert own["instance"] == "bobs"


async def test_a_lease_is_its_owners_the_groups_managers_and_the_administrators(
    context: Context, send: Send, gpus: list[str], alice: Actor, bob: Actor
):
    await _manages_vision(context, bob, alice)
    lease = await _active(context, send, "alice", 1)
    path = f"/leases/{lease['id']}"
    for who in ("alice", "bob", "ada"):
        assert (await send("GET", path, as_=who)).json()["instance"] == "box", who
    everyones = "/leases?all=true"
    assert len((await send("GET", everyones, as_="bob")).json()) == 1
    assert len((await send("GET", everyones, as_="ada")).json()) == 1
    told(await send("GET", everyones, as_="alice"), 403, "forbidden")
    assert (await send("GET", "/leases", as_="bob")).json() == []
    # To see it is not to have it.
    refused = await send("DELETE", f"/leases?lease={lease['id']}", as_="bob")
    told(refused, 403, "forbidden")


async def test_another_persons_lease_does_not_exist(context: Context, send: Send, gpus: list[str]):
    lease = await _active(context, send, "alice", 1)
    told(await send("GET", f"/leases/{lease['id']}", as_="bob"), 404, "not_found")
    told(await send("GET", f"/leases/{lease['id']}?wait=1", as_="bob"), 404, "not_found")
    for key, value in (("lease", lease["id"]), ("instance", "box")):
        told(await send("DELETE", f"/leases?{key}={value}", as_="bob"), 404, "not_found")
        longer = {key: value, "minutes": 1}
        told(await send("PATCH", "/leases", as_="bob", json=longer), 404, "not_found")
    told(await send("GET", "/leases?instance=box", as_="bob"), 404, "not_found")
    told(await send("POST", "/leases", as_="bob", json={"count": 1, "instance": "box"}),
         404, "not_found")  # fmt: skip


async def test_a_manager_of_another_group_sees_nothing_of_it(
    context: Context, send: Send, gpus: list[str], bob: Actor
):
    await _manages_vision(context, bob)
    lease = await _active(context, send, "alice", 1)
    told(await send("GET", f"/leases/{lease['id']}", as_="bob"), 404, "not_found")
    assert (await send("GET", "/leases?all=true", as_="bob")).json() == []


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"count": 0}, 422, "invalid_limit"),
        ({"count": -1}, 422, "invalid_limit"),
        ({"count": 3}, 422, "no_such_accelerator"),
        ({"count": 2**31}, 422, "invalid_input"),
        ({"count": 1.5}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
        ({"count": 1, "model": "H100"}, 422, "no_such_accelerator"),
        ({"count": 1, "minutes": 0}, 422, "invalid_duration"),
        ({"count": 1, "minutes": 10**6}, 422, "invalid_duration"),
        ({"count": 1, "instance": "nothing"}, 404, "not_found"),
        ({"count": 1, "seconds": 5}, 422, "invalid_input"),
    ],
    ids=str,
)
async def test_what_cannot_be_had_is_refused_at_once(
    send: Send, gpus: list[str], wish: dict[str, Any], status: int, code: str
):
    told(await send("POST", "/leases", as_="alice", json=wish), status, code)
    assert (await send("GET", "/leases", as_="alice")).json() == []


async def test_more_than_the_quota_is_refused_with_the_numbers(send: Send, gpus: list[str]):
    await send("PATCH", "/users/alice", as_="ada", json={"accelerators": 1})
    await _take(send, "alice", 1)
    refused = await send("POST", "/leases", as_="alice", json={"count": 1})
    error = told(refused, 409, "quota_exceeded")
    assert error["detail"]["resource"] == "accelerators"


async def test_a_lease_is_released_once_and_kept_in_the_history(
    context: Context, send: Send, gpus: list[str]
):
    lease = await _active(context, send, "alice", 1)
    await send("DELETE", f"/leases?lease={lease['id']}", as_="alice")
    hands = Hands(context)
    await hands.detach(await hands.lease(lease["id"]))
    again = await send("DELETE", f"/leases?lease={lease['id']}", as_="alice")
    told(again, 409, "wrong_state")
    (ended,) = (await send("GET", "/leases/history", as_="alice")).json()
    assert (ended["id"], ended["state"], ended["end_reason"]) == (lease["id"], "ended", "released")
    assert ended["accelerators"] == lease["accelerators"]
    before = await send("GET", f"/leases/history?before={lease['id']}", as_="alice")
    assert before.json() == []
    (listed,) = (await send("GET", "/leases?live=false", as_="alice")).json()
    assert listed["id"] == lease["id"]


async def test_a_lease_is_extended(context: Context, send: Send, gpus: list[str]):
    lease = await _active(context, send, "alice", 1)
    body = {"instance": "box", "minutes": 60}
    longer = (await send("PATCH", "/leases", as_="alice", json=body)).json()
    assert longer["expires_at"] > lease["expires_at"]
    assert longer["version"] != lease["version"]
    for minutes, code in ((0, "invalid_duration"), (10**6, "invalid_duration")):
        refused = await send("PATCH", "/leases", as_="alice", json={"minutes": minutes})
        told(refused, 422, code)


# -- accelerators ------------------------------------------------------------------------------


async def test_everyone_sees_who_holds_what_until_when_and_no_more(
    context: Context, send: Send, gpus: list[str]
):
    lease = await _active(context, send, "alice", 1)
    mine = lease["accelerators"][0]["name"]
    for who, is_mine, instance in (
        ("alice", True, "box"),
        ("bob", False, None),
        ("ada", False, "box"),
    ):
        seen = (await send("GET", "/accelerators", as_=who)).json()
        free = next(each for each in seen if each["name"] != mine)
        held = next(each for each in seen if each["name"] == mine)
        assert free["holders"] == []
        (holder,) = held["holders"]
        assert (holder["owner"], holder["until"]) == ("alice", lease["expires_at"])
        assert (holder["is_mine"], holder["instance"]) == (is_mine, instance)
        assert (holder["lease"] is None) == (instance is None)


async def test_what_runs_is_shown_to_its_owner_the_groups_manager_and_administrators(
    context: Context, lab: Lab, send: Send, gpus: list[str], alice: Actor, bob: Actor
):
    await _manages_vision(context, bob)
    lease = await _active(context, send, "alice", 1)
    [instance] = (await send("GET", "/instances", as_="alice")).json()
    async with context.db.write() as session:
        [image] = await images.list_images(session)
        made = await containers.add_container(
            session, lab.node, image.id, ContainerRole.CURRENT, context.now(), instance["id"]
        )
        running = Process(4711, "python secret.py", made.engine_name, "alice", 1024)
        reading = Reading("x", 0.5, 1024, 40.0, 60.0, processes=(running,))
        held = lease["accelerators"][0]["id"]
        await accelerators.set_readings(session, {held: reading}, context.now())

    async def seen(who: str) -> list[str]:
        listed = (await send("GET", "/accelerators", as_=who)).json()
        (busy,) = [each["reading"] for each in listed if each["reading"]]
        assert (busy["utilisation"], busy["memory_used"]) == (0.5, 1024)
        return [f"{each['command']} in {each['instance']}" for each in busy["processes"]]

    assert await seen("alice") == ["python secret.py in box"]
    assert await seen("ada") == ["python secret.py in alice/box"]
    assert await seen("bob") == []
    async with context.db.write() as session:
        vision = await groups.find_group(session, "vision")
        assert vision is not None
        await session.exec_driver_sql(f"UPDATE leases SET group_id = '{vision.id}'")
    assert await seen("bob") == ["python secret.py in alice/box"]


async def test_an_accelerator_is_taken_out_of_service_and_brought_back(
    context: Context, send: Send, gpus: list[str]
):
    (first, _) = (await send("GET", "/accelerators", as_="ada")).json()
    reason = {"reason": "a fan is broken"}
    # By its name, which has a slash in it, and by its id.
    out = await send("POST", f"/accelerators/{first['name']}/withdraw", as_="ada", json=reason)
    assert out.json()["withdrawn"] == "a fan is broken"
    taken = await _take(send, "alice", 2)
    assert taken["explanation"]["waiting"] == "no_such_device"
    back = await send("POST", f"/accelerators/{first['id']}/restore", as_="ada")
    assert back.json()["withdrawn"] is None
    await scheduling.poke(context)
    granted = await send("GET", f"/leases/{taken['id']}", as_="alice")
    assert granted.json()["state"] == "attaching"


async def test_an_accelerator_is_shared_while_nobody_holds_it(
    context: Context, send: Send, gpus: list[str]
):
    (first, second) = (await send("GET", "/accelerators", as_="ada")).json()
    path = f"/accelerators/{first['name']}/share"
    assert (await send("POST", path, as_="ada", json={"sharers": 4})).json()["sharers"] == 4
    await _active(context, send, "alice", 2)
    told(await send("POST", path, as_="ada", json={"sharers": 1}), 409, "conflict")
    told(await send("POST", path, as_="ada", json={"sharers": 0}), 422, "invalid_input")
    told(await send("POST", path, as_="alice", json={"sharers": 1}), 403, "forbidden")
    told(
        await send("POST", "/accelerators/x/share", as_="ada", json={"sharers": 1}),
        404,
        "not_found",
    )
    assert second["sharers"] == 1


# -- reports and notices -----------------------------------------------------------------------


async def test_a_report_has_its_span_and_its_rows(context: Context, send: Send, gpus: list[str]):
    lease = await _active(context, send, "alice", 2)
    month = lease["granted_at"][:7]
    report = (await send("GET", "/reports/gpu?by=person", as_="alice")).json()
    assert (report["by"], report["first"], report["last"]) == ("person", month, month)
    (row,) = report["rows"]
    assert (row["name"], row["leases"], row["busy_hours"]) == ("alice", 1, 0.0)
    assert row["held_hours"] >= 0
    assert (await send("GET", "/reports/gpu", as_="bob")).json()["rows"] == []
    for query in ("by=king", "first=2026", "last=x", "first=2026-02&last=2026-01"):
        told(await send("GET", f"/reports/gpu?{query}", as_="alice"), 422, "invalid_input")


async def test_notices_are_ones_own_and_are_marked_as_read(
    context: Context, send: Send, gpus: list[str]
):
    lease = await _active(context, send, "alice", 1)
    hands = Hands(context)
    async with context.db.write() as session:
        held = await hands.lease(lease["id"])
        for kind in ("lease.warned", "lease.ended"):
            await announcements.tell(session, context, held, kind, "Save your work.")
    (last, first) = (await send("GET", "/notices?unread=true", as_="alice")).json()
    assert (last["kind"], first["kind"]) == ("lease.ended", "lease.warned")
    assert (last["text"], last["lease"]) == ("Save your work.", lease["id"])
    assert (last["delivered_at"], last["read_at"]) == (None, None)
    for who in ("bob", "ada"):
        assert (await send("GET", "/notices", as_=who)).json() == []
        refused = await send("POST", "/notices/read", as_=who, json={"notices": [last["id"]]})
        told(refused, 404, "not_found")
    one = {"notices": [last["id"]]}
    assert (await send("POST", "/notices/read", as_="alice", json=one)).json() == {"marked": 1}
    (left,) = (await send("GET", "/notices?unread=true", as_="alice")).json()
    assert left["id"] == first["id"]
    assert (await send("POST", "/notices/read", as_="alice", json={})).json() == {"marked": 1}
    assert len((await send("GET", "/notices?limit=1", as_="alice")).json()) == 1
