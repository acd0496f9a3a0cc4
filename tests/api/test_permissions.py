"""Every route, asked by everyone: what `can` says is what happens."""

import re
from typing import Any

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from hutch.api import PREFIX
from hutch.api.app import assemble
from hutch.api.openapi import action_of, operation_id
from hutch.domain.people import Actor, Role, Scope
from hutch.domain.permissions import Action, can
from hutch.services import groups, tokens, users
from hutch.services.context import Context
from hutch.settings import Settings
from tests.api.conftest import Running, Send, told
from tests.lab import Lab

WITHOUT_LOGIN = {
    "/healthz",
    "/readyz",
    f"{PREFIX}/login",
    f"{PREFIX}/openapi.json",
}

_BODIES: dict[str, Any] = {
    "instance_create": {"name": "another"},
    "instance_configure": {"cpus": 1},
    "instance_set_wake": {"on_ssh": True},
    "instance_execute": {"argv": ["true"]},
    "snapshot_create": {"name": "now"},
    "share_put": {},
    "port_create": {"port": 80},
    "port_configure": {"span": "1h"},
    "profile_change_password": {"old": "x", "new": "x"},
    "key_create": {"public": "x"},
    "token_create": {"title": "x"},
    "node_create": {"name": "n", "engine": "incus", "url": "x", "address": "x", "subnet": "x"},
    "node_set_address": {"address": "192.0.2.9"},
    "image_create": {"name": "x"},
    "image_configure": {"pool_size": 0},
    "group_create": {"name": "x"},
    "group_configure": {},
    "group_add_member": {"user": "x"},
    "group_set_quota": {"accelerators": 1},
    "group_set_manager": {"is_manager": True},
    "lease_create": {"count": 1},
    "lease_extend": {"minutes": 1},
    "accelerator_withdraw": {"reason": "x"},
    "accelerator_share": {"sharers": 1},
    "notice_mark_read": {},
    "node_configure": {"idle": None},
    "user_create": {"name": "x"},
    "user_configure": {},
}


@pytest_asyncio.fixture
async def token_of(context: Context, lab: Lab, token_of: dict[str, str]) -> dict[str, str]:
    """Everyone's token, and that of `mona`, who manages a group."""
    ada = lab.actors["ada"]
    await users.add(context, ada, "mona", Role.MEMBER)
    await groups.add(context, ada, "vision", limit=4)
    await groups.add_member(context, ada, "vision", "mona")
    standing = await groups.set_manager(context, ada, "vision", "mona", True)
    mona, _ = await users.show(context, ada, "mona")
    manager = Actor(mona.id, "mona", Role.MEMBER, manages=standing.group.id)
    token, _ = await tokens.create(context, manager, "test", Scope.FULL, 1)
    return token_of | {"mona": token}


def _routes() -> list[APIRoute]:
    return [each for each in assemble(Settings()).routes if isinstance(each, APIRoute)]


def _requests() -> list[tuple[str, str, str, Action]]:
    """(operation, method, path below the prefix, action) of every route that needs a login."""
    found: list[tuple[str, str, str, Action]] = []
    for route in _routes():
        action = action_of(route)
        if action is not None:
            method = next(iter(route.methods or ()))
            found.append((operation_id(route), method, route.path_format[len(PREFIX) :], action))
    return found


REQUESTS = [pytest.param(*each, id=each[0]) for each in _requests()]


def _filled(path: str, instance: str = "nothing") -> str:
    return re.sub(r"{\w+}", "nothing", path.replace("{instance}", instance))


def test_only_the_listed_routes_do_without_login():
    assert {route.path for route in _routes() if action_of(route) is None} == WITHOUT_LOGIN


def test_every_action_has_a_route():
    assert {action_of(route) for route in _routes()} - {None} == set(Action)


def test_nothing_is_changed_by_get():
    reading = {action for action in Action if action.value.endswith(":read")}
    for route in _routes():
        if action_of(route) is not None and "GET" in (route.methods or ()):
            assert action_of(route) in reading, route.path


@pytest.mark.parametrize(("operation", "method", "path", "action"), REQUESTS)
async def test_nobody_passes_without_a_token(
    send: Send, operation: str, method: str, path: str, action: Action
):
    answer = await send(method, _filled(path), json=_BODIES.get(operation))
    told(answer, 401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("operation", "method", "path", "action"), REQUESTS)
async def test_everyone_may_what_can_says(
    send: Send, lab: Lab, operation: str, method: str, path: str, action: Action
):
    askers = {
        "alice": Actor("x", "alice", Role.MEMBER),
        "reader": Actor("x", "alice", Role.MEMBER, Scope.READ),
        "mona": Actor("x", "mona", Role.MEMBER, manages="vision"),
        "ada": Actor("x", "ada", Role.ADMIN),
    }
    for name, actor in askers.items():
        answer = await send(method, _filled(path), as_=name, json=_BODIES.get(operation))
        if can(actor, action):
            assert answer.status_code not in {403, 500}, (name, answer.text)
            # The password was wrong; the token was good.
            assert answer.status_code != 401 or operation == "profile_change_password"
        else:
            told(answer, 403, "forbidden")


@pytest.mark.parametrize(
    ("operation", "method", "path", "action"),
    [each for each in REQUESTS if "{instance}" in str(each.values[2])],
)
async def test_anothers_instance_does_not_exist(
    send: Send, running: Running, operation: str, method: str, path: str, action: Action
):
    theirs = await running("alice", "secret")
    for ref in (theirs.id, theirs.name):
        answer = await send(method, _filled(path, ref), as_="bob", json=_BODIES.get(operation))
        error = told(answer, 404, "not_found")
        nothing = await send(method, _filled(path), as_="bob", json=_BODIES.get(operation))
        # Word for word what is said of an instance that nobody has.
        assert error["message"].replace(ref, "nothing") == nothing.json()["error"]["message"]


async def test_an_administrator_reaches_everyones_instance_by_its_id(send: Send, running: Running):
    theirs = await running("alice", "web")
    answer = await send("GET", f"/instances/{theirs.id}", as_="ada")
    assert answer.json()["owner"] == "alice"
    assert (await send("GET", "/instances/web", as_="ada")).status_code == 404


async def test_anothers_operation_does_not_exist(send: Send):
    made = await send("POST", "/instances", as_="alice", json={"name": "web"})
    operation = made.json()["operation"]["id"]
    told(await send("GET", f"/operations/{operation}?wait=1", as_="bob"), 404, "not_found")
    assert (await send("GET", "/operations?all=true", as_="bob")).json() == []


async def test_anothers_token_and_key_cannot_be_removed(send: Send):
    listed = (await send("GET", "/tokens", as_="alice")).json()
    told(await send("DELETE", f"/tokens/{listed[0]['id']}", as_="bob"), 404, "not_found")
    assert (await send("GET", "/me", as_="alice")).status_code == 200


@pytest.mark.parametrize("query", ["all=true", "owner=bob"])
async def test_a_member_cannot_list_what_is_not_theirs(send: Send, query: str):
    told(await send("GET", f"/instances?{query}", as_="alice"), 403, "forbidden")
