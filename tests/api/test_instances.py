"""Instances over HTTP: what is asked well is begun, what is asked badly is refused clearly."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from hutch.domain.sizes import GiB
from hutch.engine.simulated import SimulatedEngine
from hutch.services.context import Context
from hutch.store import nodes
from tests.api.conftest import Running, Send, told
from tests.lab import Lab

LARGEST_NODE = 257 * GiB


async def _create(send: Send, **body: Any) -> Any:
    return await send("POST", "/instances", as_="alice", json={"name": "web"} | body)


async def test_a_creation_is_granted_at_once_and_begun(send: Send):
    answer = await _create(send, cpus=3, memory="1.5GiB", disk=5 * GiB)
    assert answer.status_code == 202
    instance, operation = answer.json()["instance"], answer.json()["operation"]
    assert (instance["name"], instance["owner"], instance["state"]) == ("web", "alice", "creating")
    assert (instance["cpus"], instance["memory"], instance["disk"]) == (3, 3 * GiB // 2, 5 * GiB)
    assert instance["ssh"]["user"] == "alice"
    assert instance["ssh"]["port"] >= 22000
    assert operation["state"] == "pending"
    assert operation["target"] == {"kind": "instance", "id": instance["id"]}
    assert (await send("GET", "/instances/web", as_="alice")).json() == instance
    assert (await send("GET", "/instances", as_="alice")).json() == [instance]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "a" * 10_000,
        "../../etc/passwd",
        "a/b",
        "web; rm -rf /",
        "$(reboot)",
        "`id`",
        "-web",
        "web-",
        "7up",
        "Web",
        "wéb",
        "веб",
        "web\n",
        "web ",
        "web.lab",
        "😀",
    ],
    ids=lambda name: repr(name[:20]),
)
async def test_a_bad_name_is_refused(send: Send, name: str):
    error = told(await _create(send, name=name), 422, "invalid_name")
    assert len(error["message"]) < 200
    assert (await send("GET", "/instances", as_="alice")).json() == []


async def test_a_name_that_is_taken_is_refused(send: Send):
    assert (await _create(send)).status_code == 202
    told(await _create(send), 409, "name_taken")


async def test_another_person_may_use_the_same_name(send: Send):
    assert (await _create(send)).status_code == 202
    assert (await send("POST", "/instances", as_="bob", json={"name": "web"})).status_code == 202


async def test_of_two_creations_of_one_name_at_once_one_wins(send: Send):
    answers = await asyncio.gather(*(_create(send) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert len((await send("GET", "/instances", as_="alice")).json()) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"cpus": 0}, 422, "invalid_limit"),
        ({"cpus": -1}, 422, "invalid_limit"),
        ({"cpus": 2000}, 422, "invalid_limit"),
        ({"cpus": 9e99}, 422, "invalid_input"),
        ({"memory": 0}, 422, "invalid_size"),
        ({"memory": -1}, 422, "invalid_size"),
        ({"memory": "-1GiB"}, 422, "invalid_size"),
        ({"memory": 9e99}, 422, "invalid_size"),
        ({"memory": "9e99"}, 422, "invalid_size"),
        ({"memory": 10**60}, 422, "invalid_size"),
        ({"memory": "much"}, 422, "invalid_size"),
        ({"memory": "4GiB; reboot"}, 422, "invalid_size"),
        ({"memory": True}, 422, "invalid_size"),
        ({"memory": ["4GiB"]}, 422, "invalid_size"),
        ({"memory": 1}, 422, "invalid_limit"),
        ({"disk": "1MiB"}, 422, "invalid_limit"),
        ({"cpus": 17}, 409, "quota_exceeded"),
        ({"memory": "65GiB"}, 409, "quota_exceeded"),
        ({"disk": "501GiB"}, 409, "quota_exceeded"),
        ({"image": "windows"}, 404, "not_found"),
        ({"image": "../base"}, 404, "not_found"),
        ({"image": ""}, 404, "not_found"),
        ({"node": "node9"}, 404, "not_found"),
    ],
    ids=str,
)
async def test_what_cannot_be_had_is_refused_and_leaves_nothing(
    send: Send, body: dict[str, Any], status: int, code: str
):
    told(await _create(send, **body), status, code)
    assert (await send("GET", "/instances", as_="alice")).json() == []
    assert (await send("GET", "/operations", as_="alice")).json() == []
    assert (await send("GET", "/me", as_="alice")).json()["held"]["instances"] == 0


async def test_more_than_the_node_has_is_refused(send: Send):
    await send("PATCH", "/users/alice", as_="ada", json={"memory": "1TiB"})
    error = told(await _create(send, memory=LARGEST_NODE), 422, "node_too_small")
    assert error["detail"]["resource"] == "memory"


async def test_one_instance_too_many_is_refused(send: Send):
    await send("PATCH", "/users/alice", as_="ada", json={"instances": 1})
    assert (await _create(send)).status_code == 202
    error = told(await _create(send, name="web2"), 409, "quota_exceeded")
    assert error["detail"] == {"resource": "instances", "allowed": "1", "held": "1", "asked": "1"}


async def test_a_cordoned_node_takes_nothing(send: Send):
    assert (await send("POST", "/nodes/node1/cordon", as_="ada")).json()["state"] == "cordoned"
    told(await _create(send), 409, "no_room")
    told(await _create(send, node="node1"), 409, "no_room")
    await send("POST", "/nodes/node1/uncordon", as_="ada")
    assert (await _create(send)).status_code == 202


async def test_a_creation_does_not_need_the_engine(send: Send, context: Context, lab: Lab):
    engine = context.engines.of(lab.node)
    assert isinstance(engine, SimulatedEngine)
    engine.faults.die()
    assert (await _create(send)).status_code == 202


async def test_a_node_that_is_known_to_be_silent_takes_nothing(
    send: Send, context: Context, lab: Lab
):
    async with context.db.write() as session:
        await nodes.update_node(session, lab.node.id, unreachable_since=context.now())
    answer = await _create(send)
    told(answer, 503, "engine_unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_usage_is_shown_beside_what_is_allowed(send: Send, running: Running):
    await running("alice", "web")
    usage = (await send("GET", "/instances/web/usage", as_="alice")).json()
    assert usage["memory"]["allowed"] == GiB
    assert 0 < usage["memory"]["used"] < GiB
    assert usage["cpu"]["allowed"] == 1


async def test_a_silent_engine_is_unavailable_for_usage_alone(
    send: Send, running: Running, context: Context, lab: Lab
):
    await running("alice", "web")
    engine = context.engines.of(lab.node)
    assert isinstance(engine, SimulatedEngine)
    engine.faults.die()
    told(await send("GET", "/instances/web/usage", as_="alice"), 503, "engine_unavailable")
    assert (await send("GET", "/instances/web", as_="alice")).status_code == 200


@pytest.mark.parametrize("verb", ["stop", "restart", "rebuild"])
async def test_what_is_asked_of_a_running_instance_is_begun_once(
    send: Send, running: Running, verb: str
):
    await running("alice", "web")
    answer = await send("POST", f"/instances/web/{verb}", as_="alice")
    assert answer.status_code == 202
    operation = answer.json()["operation"]
    assert operation["kind"] == f"instance_{verb}"
    error = told(
        await send("POST", f"/instances/web/{verb}", as_="alice"), 409, "operation_in_progress"
    )
    assert error["detail"]["operation"] == operation["id"]


async def test_a_running_instance_cannot_be_started(send: Send, running: Running):
    await running("alice", "web")
    told(await send("POST", "/instances/web/start", as_="alice"), 409, "wrong_state")


async def test_an_instance_is_rebuilt_from_an_image_that_exists(send: Send, running: Running):
    await running("alice", "web")
    request = {"as_": "alice", "json": {"image": "windows"}}
    told(await send("POST", "/instances/web/rebuild", **request), 404, "not_found")


async def test_deleting_during_creation_cancels_it(send: Send):
    begun = (await _create(send)).json()["operation"]
    answer = await send("DELETE", "/instances/web", as_="alice")
    assert answer.status_code == 202
    assert answer.json()["operation"]["id"] == begun["id"]
    assert answer.json()["operation"]["version"] != begun["version"]


async def test_limits_are_changed(send: Send, running: Running):
    await running("alice", "web")
    answer = await send("PATCH", "/instances/web", as_="alice", json={"memory": "2GiB"})
    assert answer.json()["operation"]["kind"] == "instance_configure"


@pytest.mark.parametrize("body", [{}, {"cpus": None}])
async def test_a_change_of_nothing_is_refused(send: Send, running: Running, body: dict[str, Any]):
    await running("alice", "web")
    told(await send("PATCH", "/instances/web", as_="alice", json=body), 422, "invalid_input")


async def test_an_administrator_lists_everyones_and_one_persons(send: Send):
    for name in ("alice", "bob"):
        await send("POST", "/instances", as_=name, json={"name": f"of-{name}"})
    everyone = (await send("GET", "/instances?all=true", as_="ada")).json()
    assert [each["owner"] for each in everyone] == ["alice", "bob"]
    bobs = (await send("GET", "/instances?owner=bob", as_="ada")).json()
    assert [each["name"] for each in bobs] == ["of-bob"]
    told(await send("GET", "/instances?owner=eve", as_="ada"), 404, "not_found")


async def test_a_long_list_is_read_in_pages(send: Send):
    for number in range(5):
        assert (await _create(send, name=f"web{number}")).status_code == 202
    found: list[str] = []
    after = ""
    while page := (await send("GET", f"/instances?limit=2&after={after}", as_="alice")).json():
        assert len(page) <= 2
        found += [each["name"] for each in page]
        after = page[-1]["id"]
    assert sorted(found) == [f"web{number}" for number in range(5)]


async def test_a_program_runs_with_its_input_and_its_arguments_untouched(
    send: Send, running: Running
):
    await running("alice", "web")
    given = b"\x00\xff; $(reboot)"
    body = {"argv": ["cat"], "stdin": base64.b64encode(given).decode(), "root": True}
    ran = (await send("POST", "/instances/web/exec", as_="alice", json=body)).json()
    assert ran["code"] == 0
    assert base64.b64decode(ran["stdout"]) == given
    events = (await send("GET", "/events?action=instance.exec", as_="ada")).json()
    assert (events[0]["by"], events[0]["detail"]) == ("alice", {"program": "cat"})


@pytest.mark.parametrize(
    "body",
    [
        {"argv": []},
        {"argv": "ls"},
        {"argv": [1]},
        {"argv": ["a\0b"]},
        {"argv": ["ls"], "stdin": "no base64!"},
        {"argv": ["ls"], "stdin": 7},
        {"argv": ["ls"], "timeout": 0},
        {"argv": ["ls"], "timeout": 1e9},
        {"argv": ["ls"] * 2000},
        {"argv": ["ls"], "user": "root"},
    ],
    ids=lambda body: repr(body)[:40],
)
async def test_a_program_that_makes_no_sense_is_refused(
    send: Send, running: Running, body: dict[str, Any]
):
    await running("alice", "web")
    answer = await send("POST", "/instances/web/exec", as_="alice", json=body)
    told(answer, 422, "invalid_input")


async def test_a_program_needs_a_running_instance(send: Send):
    await _create(send)
    answer = await send("POST", "/instances/web/exec", as_="alice", json={"argv": ["true"]})
    told(answer, 409, "wrong_state")


async def test_snapshots_are_taken_listed_and_not_found(send: Send, running: Running):
    await running("alice", "web")
    told(await send("GET", "/instances/other/snapshots", as_="alice"), 404, "not_found")
    body = {"name": "../x"}
    told(
        await send("POST", "/instances/web/snapshots", as_="alice", json=body), 422, "invalid_name"
    )
    answer = await send("POST", "/instances/web/snapshots", as_="alice", json={"name": "one"})
    assert answer.status_code == 202
    assert answer.json()["snapshot"]["state"] == "creating"
    listed = (await send("GET", "/instances/web/snapshots", as_="alice")).json()
    assert listed == [answer.json()["snapshot"]]


async def test_a_simulated_node_must_lie_in_the_data_folder(
    send: Send, app: FastAPI, tmp_path: Path, context: Context
):
    body = {"name": "n2", "engine": "simulated", "address": "192.0.2.2", "subnet": "10.9.0.0/24"}
    data = context.settings.data
    outside = (tmp_path / "outside.db", data / ".." / "outside.db", data, Path("/etc/passwd"))
    for path in outside:
        answer = await send("POST", "/nodes", as_="ada", json=body | {"url": f"file://{path}"})
        told(answer, 422, "invalid_input")
    assert not (tmp_path / "outside.db").exists()
    url = f"file://{data / 'second.db'}"
    assert (await send("POST", "/nodes", as_="ada", json=body | {"url": url})).status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"subnet": "10.9.0.0/33"},
        {"subnet": "10.9.0.0/30"},
        {"subnet": "fd00::/64"},
        {"subnet": "everything"},
        {"address": "not an address"},
        {"address": "-x"},
        {"address": "x; reboot"},
        {"address": "node1.example"},
        {"address": "2001:db8::1"},
        {"address": "192.0.2.2/24"},
        {"address": "0.0.0.0"},
        {"project": "../default"},
        {"pool": ""},
        {"network": "a b"},
        {"url": "http://127.0.0.1:8443"},
        {"url": "unix:relative"},
        {"url": "https://["},
        {"url": "file:///tmp/x"},
        {"engine": "docker"},
    ],
    ids=str,
)
async def test_a_node_that_makes_no_sense_is_refused(send: Send, change: dict[str, str]):
    body = {
        "name": "n2",
        "engine": "incus",
        "url": "unix:///nowhere/unix.socket",
        "address": "192.0.2.2",
        "subnet": "10.9.0.0/24",
    }
    told(await send("POST", "/nodes", as_="ada", json=body | change), 422, "invalid_input")
    assert len((await send("GET", "/nodes", as_="ada")).json()) == 1
