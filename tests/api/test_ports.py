"""Ports over HTTP: what is asked well is begun, what is asked badly is refused clearly."""

from typing import Any

import pytest

from tests.api.conftest import Running, Send, told

SHAPE = {
    "id", "instance", "owner", "name", "protocol", "port", "host", "host_port", "reach", "state",
    "open_to", "people", "keep_path", "url", "until", "created_at",
}  # fmt: skip


async def add(send: Send, **body: Any) -> Any:
    return await send("POST", "/instances/box/ports", as_="alice", json={"port": 8888} | body)


async def test_a_port_is_granted_at_once_and_begun(send: Send, running: Running):
    box = await running("alice", "box")
    answer = await add(send, name="jupyter", span="8h", open_to=["bob"])
    assert answer.status_code == 202
    port, operation = answer.json()["port"], answer.json()["operation"]
    assert set(port) == SHAPE
    assert (port["state"], port["port"], port["host_port"]) == ("opening", 8888, 30000)
    assert (port["open_to"], port["people"]) == ("people", ["bob"])
    assert operation["kind"] == "port_add"
    assert operation["target"] == {"kind": "instance", "id": box.id}
    assert (await send("GET", "/instances/box/ports", as_="alice")).json() == [port]
    assert (await send("GET", "/ports", as_="alice")).json() == [port]
    assert (await send("GET", "/ports", as_="bob")).json() == []
    assert (await send("GET", "/ports?all=true", as_="ada")).json() == [
        port | {"url": "/apps/box.alice/8888/"}
    ]
    told(await send("GET", "/ports?all=true", as_="bob"), 403, "forbidden")


@pytest.mark.parametrize(
    ("reach", "place"),
    [("network", ("192.0.2.1", 30000)), ("node", ("127.0.0.1", 30000)), ("web", (None, None))],
)
async def test_from_where_it_is_reached_is_chosen(
    send: Send, running: Running, reach: str, place: tuple[str | None, int | None]
):
    await running("alice", "box")
    port = (await add(send, reach=reach)).json()["port"]
    assert (port["reach"], port["host"], port["host_port"]) == (reach, *place)
    assert port["url"] == "/apps/box/8888/"
    (event,) = (await send("GET", "/events?action=port.add", as_="ada")).json()
    assert (event["detail"]["reach"], event["detail"]["host_port"]) == (reach, place[1])


@pytest.mark.parametrize(
    "body",
    [
        {"port": 0},
        {"port": 65536},
        {"port": -1},
        {"port": "8888"},
        {"port": 10**30},
        {"port": 8888.5},
        {"port": None},
        {"host_port": 22},
        {"host_port": 0},
        {"host_port": 22000},
        {"host_port": True},
        {"protocol": "sctp"},
        {"protocol": "TCP"},
        {"name": "../x"},
        {"name": "x; rm -rf /"},
        {"name": "$(id)"},
        {"name": "x\0"},
        {"name": "é"},
        {"span": "forever"},
        {"span": "0m"},
        {"span": "8h\0"},
        {"local": True},
        {"reach": "everywhere"},
        {"reach": None},
        {"reach": "web", "host_port": 30000},
        {"reach": "web", "protocol": "udp"},
        {"open_to": []},
        {"open_to": ["me", "everyone"]},
        {"open_to": "everyone"},
        {"open_to": ["x"] * 101},
        {"listen_address": "0.0.0.0"},
    ],
)
async def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    send: Send, running: Running, body: dict[str, Any]
):
    await running("alice", "box")
    answer = await add(send, **body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]
    assert (await send("GET", "/instances/box/ports", as_="alice")).json() == []


async def test_a_port_in_use_is_a_conflict_that_names_nobody(send: Send, running: Running):
    await running("alice", "box")
    await running("bob", "theirs")
    await add(send, host_port=30005)
    body = {"port": 80, "host_port": 30005}
    answer = await send("POST", "/instances/theirs/ports", as_="bob", json=body)
    error = told(answer, 409, "port_taken")
    assert "alice" not in answer.text
    assert error["detail"] == {"port": 30005}


@pytest.mark.parametrize(
    "port", ["9999", "nothing", "ssh", "22", "8888%2Fudp", "..%2F..", "%00", "a" * 3000, "8888;id"]
)
async def test_a_port_that_is_none_does_not_exist(send: Send, running: Running, port: str):
    await running("alice", "box")
    await add(send)
    for method in ("PATCH", "DELETE"):
        body = {"json": {"span": "1h"}} if method == "PATCH" else {}
        answer = await send(method, f"/instances/box/ports/{port}", as_="alice", **body)
        assert answer.status_code in {404, 422}, answer.text
    assert len((await send("GET", "/instances/box/ports", as_="alice")).json()) == 1


async def test_who_may_open_it_is_changed_at_once(send: Send, running: Running):
    await running("alice", "box")
    await add(send)
    path = "/instances/box/ports/8888"
    changed = await send("PATCH", path, as_="alice", json={"open_to": ["everyone"]})
    assert changed.json()["open_to"] == "everyone"
    told(await send("PATCH", path, as_="alice", json={}), 422, "invalid_input")
    told(await send("PATCH", path, as_="alice", json={"open_to": ["x"]}), 404, "not_found")
