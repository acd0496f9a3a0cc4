"""People, keys, images and events over HTTP."""

from typing import Any

import asyncssh
import pytest

from tests.api.conftest import Send, told


def _public(kind: str = "ssh-ed25519", **options: Any) -> str:
    key = asyncssh.generate_private_key(kind, comment="me@laptop", **options)
    return key.export_public_key().decode()


async def test_a_person_is_added_with_a_password_shown_once(send: Send):
    answer = await send("POST", "/users", as_="ada", json={"name": "carol"})
    assert answer.status_code == 201
    assert answer.json()["user"]["role"] == "member"
    password = answer.json()["password"]
    login = await send("POST", "/login", json={"name": "carol", "password": password})
    assert login.status_code == 200
    assert password not in (await send("GET", "/users/carol", as_="ada")).text


@pytest.mark.parametrize("name", ["", "root", "a b", "../x", "ü", "x" * 33, "a\0", "$(id)"])
async def test_a_bad_name_of_a_person_is_refused(send: Send, name: str):
    answer = await send("POST", "/users", as_="ada", json={"name": name})
    assert answer.status_code == 422


async def test_a_persons_quota_is_changed_field_by_field(send: Send):
    before = (await send("GET", "/users/alice", as_="ada")).json()
    body = {"memory": "1TiB", "cpus": 0}
    after = (await send("PATCH", "/users/alice", as_="ada", json=body)).json()
    assert after["quota"] == before["quota"] | {"memory": 1024**4, "cpus": 0}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"cpus": -1}, "invalid_limit"),
        ({"instances": 2**31}, "invalid_input"),
        ({"memory": -1}, "invalid_size"),
        ({"memory": 2**63}, "invalid_size"),
        ({"role": "king"}, "invalid_input"),
    ],
    ids=str,
)
async def test_a_quota_that_makes_no_sense_is_refused(send: Send, body: dict[str, Any], code: str):
    told(await send("PATCH", "/users/alice", as_="ada", json=body), 422, code)


@pytest.mark.parametrize(
    "request_", [("PATCH", "", {"role": "member"}), ("POST", "/disable", None)]
)
async def test_the_last_administrator_stays_one(send: Send, request_: tuple[str, str, Any]):
    method, verb, body = request_
    told(await send(method, f"/users/ada{verb}", as_="ada", json=body), 409, "conflict")


async def test_a_key_is_added_listed_and_removed(send: Send):
    line = _public()
    made = await send("POST", "/keys", as_="alice", json={"public": line})
    assert made.status_code == 201
    key = made.json()
    assert (key["type"], key["title"]) == ("ssh-ed25519", "me@laptop")
    assert key["fingerprint"].startswith("SHA256:")
    assert (await send("GET", "/keys", as_="alice")).json() == [key]
    assert (await send("GET", "/keys?user=alice", as_="ada")).json() == [key]
    told(await send("GET", "/keys?user=alice", as_="bob"), 404, "not_found")
    told(await send("DELETE", f"/keys/{key['id']}", as_="bob"), 404, "not_found")
    # A fingerprint contains slashes.
    removed = await send("DELETE", f"/keys/{key['fingerprint']}", as_="alice")
    assert removed.status_code == 204
    assert (await send("GET", "/keys", as_="alice")).json() == []


async def test_anothers_key_is_refused(send: Send):
    line = _public()
    assert (await send("POST", "/keys", as_="alice", json={"public": line})).status_code == 201
    told(await send("POST", "/keys", as_="bob", json={"public": line}), 409, "key_taken")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("", "invalid_key"),
        ("this is no key", "invalid_key"),
        ("ssh-ed25519 AAAA", "invalid_key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "invalid_key"),
        ("ssh-ed25519 a\nssh-ed25519 b", "invalid_key"),
        ('command="reboot" ssh-ed25519 AAAA', "invalid_key"),
        ("ssh-dss AAAA", "weak_key"),
        ("x\0y", "invalid_input"),
        ("x" * 20_000, "invalid_input"),
    ],
    ids=lambda given: repr(given)[:30],
)
async def test_what_is_no_good_key_is_refused(send: Send, line: str, code: str):
    told(await send("POST", "/keys", as_="alice", json={"public": line}), 422, code)


async def test_a_weak_key_is_refused(send: Send):
    line = _public("ssh-rsa", key_size=1024)
    told(await send("POST", "/keys", as_="alice", json={"public": line}), 422, "weak_key")


async def test_an_image_is_offered_and_its_pool_set(send: Send):
    body = {"name": "cuda", "description": "Debian with CUDA"}
    assert (await send("POST", "/images", as_="ada", json=body)).json()["pool_size"] == 0
    changed = await send("PATCH", "/images/cuda", as_="ada", json={"pool_size": 2})
    assert changed.json()["pool_size"] == 2
    names = [image["name"] for image in (await send("GET", "/images", as_="alice")).json()]
    assert names == ["base", "cuda"]
    for size in (-1, 101):
        answer = await send("PATCH", "/images/cuda", as_="ada", json={"pool_size": size})
        told(answer, 422, "invalid_limit")
    told(await send("PATCH", "/images/none", as_="ada", json={"pool_size": 1}), 404, "not_found")
    told(await send("POST", "/images", as_="ada", json=body), 409, "name_taken")


async def test_events_are_filtered_and_paged(send: Send):
    for name in ("one", "two"):
        await send("POST", "/instances", as_="alice", json={"name": name})
    newest, oldest = (await send("GET", "/events?by=alice&action=instance.", as_="ada")).json()
    assert (newest["target"]["name"], oldest["target"]["name"]) == ("two", "one")
    page = await send("GET", f"/events?action=instance.&before={newest['id']}", as_="ada")
    assert page.json() == [oldest]
    found = await send("GET", f"/events?target={oldest['target']['id']}", as_="ada")
    assert found.json() == [oldest]
