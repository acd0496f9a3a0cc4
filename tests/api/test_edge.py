"""Request ids, addresses, headers and the log line."""

import io
import json
import logging
import re
from collections.abc import Iterator

import httpx
import pytest
import structlog
from fastapi import FastAPI

from hutch.api import edge
from hutch.api.call import client_address, request_id, trusted_networks
from hutch.api.edge import Edge
from hutch.errors import ConfigurationError
from hutch.logs import configure_logs
from hutch.services.context import Context
from hutch.store import operations
from tests.api.conftest import Send

PROXIES = trusted_networks(["127.0.0.1", "::1", "10.0.0.0/8"])


async def test_a_request_id_goes_through_to_the_event_and_the_operation(
    send: Send, context: Context
):
    answer = await send(
        "POST",
        "/instances",
        as_="alice",
        json={"name": "web"},
        headers={"X-Request-ID": "deploy-7"},
    )
    assert answer.headers["x-request-id"] == "deploy-7"
    events = (await send("GET", "/events?action=instance.create", as_="ada")).json()
    assert events[0]["request_id"] == "deploy-7"
    async with context.db.read() as session:
        operation = await operations.get_operation(session, answer.json()["operation"]["id"])
    assert operation is not None
    assert operation.request_id == "deploy-7"


@pytest.mark.parametrize("given", ["", "a" * 65, "a b", "a\nb", "ü", "<script>", "%0a"])
def test_a_request_id_that_is_none_is_replaced(given: str):
    assert re.fullmatch("[0-9a-f]{16}", request_id(given))


@pytest.mark.parametrize("given", ["a", "a" * 64, "0f-1.2_Z"])
def test_a_request_id_is_kept(given: str):
    assert request_id(given) == given


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.9", None, "192.0.2.9"),
        # Whoever is no proxy may claim what they like.
        ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        # What stands left of the first hop that is not ours was written by that hop.
        ("127.0.0.1", "203.0.113.5, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.5, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        # A Unix socket has no peer address.
        ("", "198.51.100.1", "198.51.100.1"),
        ("", None, ""),
    ],
)
def test_the_address_is_the_last_that_can_be_believed(peer: str, forwarded: str | None, found: str):
    assert client_address(peer, forwarded, PROXIES) == found


async def test_the_believed_address_is_what_the_audit_names(app: FastAPI, send: Send):
    for peer, seen in (("127.0.0.1", "203.0.113.5"), ("192.0.2.9", "192.0.2.9")):
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://hutch") as client:
            await client.post(
                "/api/v1/login",
                json={"name": "alice", "password": "wrong"},
                headers={"X-Forwarded-For": "203.0.113.5"},
            )
        events = (await send("GET", "/events?action=user.login&limit=1", as_="ada")).json()
        assert events[0]["address"] == seen


def test_proxies_that_are_no_addresses_are_refused_at_start(app: FastAPI):
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        Edge(app, largest_body=1, trusted_proxies=["proxy.example"])


@pytest.mark.parametrize("path", ["/me", "/nothing", "/login"])
async def test_every_answer_has_the_security_headers(send: Send, path: str):
    headers = (await send("GET", path, as_="alice")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["referrer-policy"] == "no-referrer"


async def test_no_other_origin_is_let_in(send: Send):
    answer = await send("GET", "/me", as_="alice", headers={"Origin": "https://example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the edge logs as a server writes it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    written = io.StringIO()
    configure_logs("info", "json", written)
    # Loggers keep what they were first configured with: the edge gets one for this test alone.
    monkeypatch.setattr(edge, "log", structlog.get_logger())
    yield written
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


async def test_one_line_is_logged_and_no_secret(
    send: Send, token_of: dict[str, str], passwords: dict[str, str], logged: io.StringIO
):
    await send("GET", "/instances?owner=inquery", as_="alice")
    await send("POST", "/login", json={"name": "alice", "password": passwords["alice"]})
    await send("PUT", "/me/password", as_="bob", json={"old": passwords["bob"], "new": "x"})
    printed = logged.getvalue()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert len(lines) == 3
    first = lines[0]
    assert first["message"] == "request"
    assert first["route"] == "/api/v1/instances"
    assert (first["method"], first["status"], first["actor"]) == ("GET", 403, "alice")
    assert first["duration_ms"] > 0
    assert len(first["request_id"]) == 16
    for secret in (*token_of.values(), *passwords.values(), "inquery"):
        assert secret not in printed


async def test_looking_after_the_server_is_not_logged(
    client: httpx.AsyncClient, logged: io.StringIO
):
    assert (await client.get("/healthz")).status_code == 200
    assert logged.getvalue() == ""


async def test_libraries_are_logged_in_the_same_form(logged: io.StringIO):
    logging.getLogger("uvicorn.error").warning("Something %s", "happened")
    line = json.loads(logged.getvalue())
    assert (line["message"], line["level"]) == ("Something happened", "warning")
