"""Signing in and out, tokens, and what does not get in."""

import httpx
import pytest
from argon2 import PasswordHasher

from hutch.api import PREFIX
from tests.api.conftest import Send, told
from tests.lab import Clock


async def _login(send: Send, name: str, password: str) -> httpx.Response:
    return await send("POST", "/login", json={"name": name, "password": password})


async def _me(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.get(f"{PREFIX}/me", headers={"Authorization": f"Bearer {token}"})


async def test_a_password_is_exchanged_for_a_token(
    send: Send, client: httpx.AsyncClient, passwords: dict[str, str]
):
    answer = await _login(send, "alice", passwords["alice"])
    assert answer.status_code == 200
    assert answer.json()["user"] == {"name": "alice", "role": "member"}
    me = (await _me(client, answer.json()["token"])).json()
    assert (me["name"], me["held"]["instances"]) == ("alice", 0)


async def test_every_wrong_login_is_told_alike_after_the_same_work(
    send: Send, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    await send("POST", "/users/bob/disable", as_="ada")
    hashed: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, stored: str, password: str) -> bool:
        hashed.append(stored.rpartition("$")[0].rpartition("$")[0])
        return verify(self, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    answers: list[dict[str, object]] = []
    for name, password in (
        ("alice", "wrong"),
        ("nobody", "wrong"),
        ("bob", passwords["bob"]),
        ("' OR 1=1 --", "wrong"),
        ("", ""),
    ):
        error = told(await _login(send, name, password), 401, "bad_login")
        answers.append({key: error[key] for key in ("message", "hint", "detail")})
    assert all(answer == answers[0] for answer in answers)
    # One verification each, with the same algorithm and cost.
    assert len(hashed) == len(answers)
    assert len(set(hashed)) == 1


async def test_signing_out_ends_the_token(
    send: Send, client: httpx.AsyncClient, passwords: dict[str, str]
):
    token = (await _login(send, "alice", passwords["alice"])).json()["token"]
    answer = await client.post(f"{PREFIX}/logout", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 204
    assert answer.content == b""
    told(await _me(client, token), 401, "bad_token")


async def test_an_expired_token_does_not_get_in(
    send: Send, client: httpx.AsyncClient, clock: Clock
):
    made = await send("POST", "/tokens", as_="alice", json={"title": "ci", "days": 1})
    assert made.status_code == 201
    token = made.json()["token"]
    assert (await _me(client, token)).status_code == 200
    clock.forward(days=1, seconds=1)
    told(await _me(client, token), 401, "bad_token")


async def test_a_revoked_token_does_not_get_in(send: Send, client: httpx.AsyncClient):
    made = (await send("POST", "/tokens", as_="alice", json={"title": "ci"})).json()
    assert made["expires_at"] is None
    assert (await send("DELETE", f"/tokens/{made['id']}", as_="alice")).status_code == 204
    told(await _me(client, made["token"]), 401, "bad_token")


async def test_a_disabled_person_does_not_get_in(send: Send):
    assert (await send("POST", "/users/alice/disable", as_="ada")).json()["disabled_at"]
    told(await send("GET", "/me", as_="alice"), 401, "bad_token")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWxpY2U6eA==",
        "hutch_x",
    ],
)
async def test_what_is_no_bearer_token_is_not_authenticated(send: Send, header: str):
    answer = await send("GET", "/me", headers={"Authorization": header})
    told(answer, 401, "not_authenticated")


@pytest.mark.parametrize(
    "token",
    ["x", "hutch_", "hutch_" + "x" * 43, "hutch_" + "x" * 5000, "hutch_' OR 1=1 --", "hutch_ü"],
)
async def test_an_unknown_token_does_not_get_in(send: Send, token: str):
    header = f"Bearer {token}".encode("latin-1")
    told(await send("GET", "/me", headers={b"Authorization": header}), 401, "bad_token")


async def test_a_token_is_listed_without_its_text(send: Send):
    made = await send("POST", "/tokens", as_="alice", json={"title": "ci", "scope": "read"})
    listed = (await send("GET", "/tokens", as_="alice")).json()
    assert made.json()["token"].startswith("hutch_")
    assert {each["title"] for each in listed} == {"test", "r", "ci"}
    assert all("token" not in each for each in listed)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"title": "x", "days": 0}, "invalid_input"),
        ({"title": "x", "days": -1}, "invalid_input"),
        ({"title": "x", "days": 10**9}, "invalid_input"),
        ({"title": "x", "scope": "everything"}, "invalid_input"),
        ({"title": ""}, "invalid_name"),
        ({"title": "a\nb"}, "invalid_name"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(
    send: Send, body: dict[str, object], code: str
):
    told(await send("POST", "/tokens", as_="alice", json=body), 422, code)


async def test_a_password_is_changed_with_the_old_one(send: Send, passwords: dict[str, str]):
    new = passwords["bob"][::-1]
    wrong = {"old": "wrong", "new": new}
    told(await send("PUT", "/me/password", as_="alice", json=wrong), 401, "bad_login")
    right = {"old": passwords["alice"], "new": new}
    assert (await send("PUT", "/me/password", as_="alice", json=right)).status_code == 204
    assert (await _login(send, "alice", new)).status_code == 200
    told(await _login(send, "alice", passwords["alice"]), 401, "bad_login")


async def test_a_weak_password_is_refused(send: Send, passwords: dict[str, str]):
    body = {"old": passwords["alice"], "new": "short"}
    told(await send("PUT", "/me/password", as_="alice", json=body), 422, "weak_password")


async def test_an_administrator_gives_a_new_password_and_ends_the_old_tokens(send: Send):
    answer = await send("POST", "/users/alice/reset-password", as_="ada")
    assert (await _login(send, "alice", answer.json()["password"])).status_code == 200
    told(await send("GET", "/me", as_="alice"), 401, "bad_token")
