"""Watching an operation: through restarts, to every kind of end, and until Ctrl-C."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hutch.cli import waiting
from tests.cli.pty_session import on_terminal
from tests.cli.server import Person, Ran, Server, run_hutch
from tests.client.stub import Answer, Stub, as_json


@pytest.fixture
def stub() -> Iterator[Stub]:
    started = Stub()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.0)


def operation(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0123",
        "kind": "instance_start",
        "target": {"kind": "instance", "id": "4567"},
        "state": "running",
        "step": "start",
        "progress": 0.5,
        "message": "Starting",
        "undoing": False,
        "attempts": 0,
        "error": None,
        "created_by": "alice",
        "created_at": "2026-03-01T12:00:00Z",
        "finished_at": None,
        "version": "running.start.0.00",
        **changes,
    }


def start(stub: Stub, *answers: Answer, options: tuple[str, ...] = ()) -> Ran:
    stub.answers = [as_json({"operation": operation()}, 202), *answers]
    return run_hutch("start", "box", *options, HUTCH_URL=stub.url, HUTCH_TOKEN="hutch_x")


def test_the_next_change_is_asked_for_not_polled(stub: Stub) -> None:
    ran = start(stub, as_json(operation(state="done")))
    assert ran.code == 0
    assert stub.asked[1].path.startswith("/api/v1/operations/0123?wait=")
    assert stub.asked[1].path.endswith("&seen=running.start.0.00")


def test_each_change_is_one_line(stub: Stub) -> None:
    steps = [operation(message="One", progress=0.1)] * 3 + [operation(message="Two", progress=0.7)]
    ran = start(stub, *map(as_json, steps), as_json(operation(state="done")))
    assert ran.err.splitlines() == [
        "Starting box: Starting (50 %)",
        "Starting box: One (10 %)",
        "Starting box: Two (70 %)",
    ]


def test_undoing_is_said(stub: Stub) -> None:
    ran = start(stub, as_json(operation(undoing=True)), as_json(operation(state="done")))
    assert "undoing: Starting" in ran.err


def test_a_server_that_restarts_meanwhile_is_waited_for(stub: Stub) -> None:
    away = [Answer(503, b"<html>"), Answer(drop=True), Answer(drop=True)]
    ran = start(stub, *away, as_json(operation(state="done")))
    assert ran.code == 0
    assert "trying again" in ran.err


def test_a_server_that_stays_away_is_given_up_and_the_work_is_not(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    ran = start(stub, Answer(503, b"<html>"))
    assert ran.code == 7
    assert "hutch operation wait 0123" in ran.err


FAILURE = {"code": "engine_unavailable", "message": "Gone.", "hint": "Wait.", "detail": {"a": 1}}


def test_a_failure_is_1_whatever_its_reason(stub: Stub) -> None:
    ran = start(stub, as_json(operation(state="failed", error=FAILURE)))
    assert ran.code == 1
    assert "Error: Starting box failed: Gone." in ran.err
    assert "  Wait." in ran.err


def test_a_failure_with_json_is_the_reasons_own_object(stub: Stub) -> None:
    ran = start(stub, as_json(operation(state="failed", error=FAILURE)), options=("--json",))
    assert ran.code == 1
    error = json.loads(ran.err)["error"]
    assert error["code"] == "engine_unavailable"
    assert error["detail"] == {"a": 1, "operation": "0123"}
    assert json.loads(ran.out)["operation"]["state"] == "failed"


def test_a_reason_that_only_a_newer_server_knows_keeps_its_code(stub: Stub) -> None:
    failure = FAILURE | {"code": "brand_new"}
    ran = start(stub, as_json(operation(state="failed", error=failure)), options=("--json",))
    assert json.loads(ran.err)["error"]["code"] == "brand_new"


def test_a_stuck_operation_is_not_waited_for(stub: Stub) -> None:
    ran = start(stub, as_json(operation(state="stuck", error=FAILURE)))
    assert ran.code == 1
    assert "administrator" in ran.err
    assert "hutch operation retry 0123" in ran.err


def test_a_cancelled_operation_is_a_failure_unless_it_was_to_be_deleted(stub: Stub) -> None:
    cancelled = as_json(operation(state="cancelled"))
    assert start(stub, cancelled).code == 1
    stub.answers = [as_json({"operation": operation(kind="instance_create")}, 202), cancelled]
    ran = run_hutch("delete", "box", "--yes", HUTCH_URL=stub.url, HUTCH_TOKEN="hutch_x")
    assert (ran.code, ran.out) == (0, "box is deleted.\n")


def test_escape_sequences_from_the_server_do_not_reach_the_terminal(stub: Stub) -> None:
    bad = FAILURE | {"message": "\x1b]0;title\x07\x1b[2J"}
    ran = start(stub, as_json(operation(state="failed", error=bad)))
    assert "\x1b" not in ran.err
    assert "\x07" not in ran.err


def test_ctrl_c_stops_the_watching_and_not_the_work(server: Server, alice: Person) -> None:
    alice.hutch("create", "box")
    server.engine.faults.hang("stop")
    try:
        session = on_terminal(alice, "stop", "box")
        session.expect("Stopping box: ")
        session.interrupt()
        assert session.end() == 130
    finally:
        server.engine.faults.hanging.discard("stop")
    assert "The work goes on" in session.seen
    assert "hutch operation wait " in session.seen
    operation_id = alice.json("operation", "list")[0]["id"]
    assert alice.hutch("operation", "wait", operation_id).code == 0
    assert alice.json("show", "box")["state"] == "stopped"


def test_a_person_sees_it_move(server: Server, alice: Person) -> None:
    alice.hutch("create", "box")
    server.engine.faults.hang("stop")
    session = on_terminal(alice, "stop", "box")
    try:
        session.expect("Stopping box: ")
        session.expect("%")
    finally:
        server.engine.faults.hanging.discard("stop")
    assert session.end() == 0
    assert "box is stopped." in session.seen


def test_creation_can_be_deleted_while_it_goes_on(server: Server, alice: Person) -> None:
    server.engine.faults.hang("wait_for_banner")
    alice.hutch("create", "box", "--no-wait")
    deleting = threading.Thread(target=lambda: alice.hutch("delete", "box", "--yes"))
    deleting.start()
    server.engine.faults.hanging.discard("wait_for_banner")
    deleting.join(30)
    assert alice.json("list") == []
