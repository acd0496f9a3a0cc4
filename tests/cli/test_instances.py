import json

from hutch.domain.instances import Drift, InstanceState
from hutch.services.context import utc_now
from hutch.store import containers, instances
from tests.cli.server import Person, Server

SHAPE = {
    "id", "name", "owner", "state", "desired", "node", "image", "cpus", "memory", "disk",
    "processes", "ssh", "drift", "error", "share", "wake_on_ssh", "created_at",
}  # fmt: skip


def test_who_has_none_is_told_how_to_make_one(alice: Person) -> None:
    ran = alice.hutch("list")
    assert (ran.code, ran.out) == (0, "")
    assert "hutch create box" in ran.err
    assert alice.json("list") == []


def test_a_created_instance_runs_and_says_how_to_log_in(alice: Person) -> None:
    ran = alice.hutch("create", "box")
    assert ran.code == 0, ran
    assert "box is ready." in ran.out
    assert "hutch ssh box" in ran.out
    assert f"{alice.name}@192.0.2.1" in ran.out
    assert alice.json("show", "box")["state"] == "running"


def test_the_wait_shows_plain_lines_and_keeps_them_off_the_result(alice: Person) -> None:
    ran = alice.hutch("create", "box")
    assert "Creating box: " in ran.err
    assert " %)" in ran.err
    assert "Creating box" not in ran.out
    assert "\x1b" not in ran.out + ran.err


def test_who_has_no_key_is_told_to_add_one(alice: Person) -> None:
    assert "hutch key add" in alice.hutch("create", "box").err


def test_json_is_the_answer_of_the_api_and_nothing_else(alice: Person) -> None:
    made = alice.json("create", "box", "--cpus", "1", "--memory", "1GiB", "--disk", "2GiB")
    assert set(made) == {"instance", "operation"}
    assert set(made["instance"]) == SHAPE
    assert made["instance"]["state"] == "running"
    assert (made["instance"]["cpus"], made["instance"]["memory"]) == (1, 2**30)
    assert made["operation"]["state"] == "done"
    (listed,) = alice.json("list")
    assert listed == made["instance"]
    assert listed["ssh"].keys() == {"host", "port", "user", "host_key"}
    shown = alice.json("show", "box")
    assert shown.keys() - {"usage", "shares", "ports"} == SHAPE
    assert shown["usage"]["memory"].keys() == {"used", "allowed"}


def test_without_waiting_the_operation_can_be_watched_later(alice: Person) -> None:
    begun = alice.json("create", "box", "--no-wait")
    ended = alice.json("operation", "wait", begun["operation"]["id"])
    assert ended["state"] == "done"
    ran = alice.hutch("stop", "box", "--no-wait")
    assert "hutch operation wait " in ran.out
    operation = ran.out.split()[-1]
    assert alice.hutch("operation", "wait", operation).code == 0
    assert alice.json("show", "box")["state"] == "stopped"


def test_an_instance_is_stopped_started_restarted_and_deleted(alice: Person) -> None:
    alice.hutch("create", "box")
    for verb, state in (("stop", "stopped"), ("start", "running"), ("restart", "running")):
        assert alice.json(verb, "box")["operation"]["state"] == "done"
        assert alice.json("show", "box")["state"] == state
    assert alice.hutch("delete", "box", "--yes").out == "box is deleted.\n"
    assert alice.json("list") == []


def test_limits_are_changed_and_shown_as_used_of_allowed(alice: Person) -> None:
    alice.hutch("create", "box")
    assert alice.hutch("set", "box", "--memory", "6GiB", "--cpus", "3").code == 0
    out = alice.hutch("show", "box").out
    assert "of 6GiB" in out
    assert "cpus       3" in out
    assert "of 8192" in out


def test_options_may_stand_on_either_side_of_the_name(alice: Person) -> None:
    alice.hutch("create", "--cpus", "1", "box", "--memory", "1GiB")
    (box,) = json.loads(alice.hutch("list", "--json").out)
    assert (box["cpus"], box["memory"]) == (1, 2**30)


def test_changing_nothing_is_a_mistake(alice: Person) -> None:
    ran = alice.hutch("set", "box")
    assert ran.code == 2
    assert "--memory" in ran.err


def test_a_rebuilt_instance_keeps_its_port_and_host_key(alice: Person) -> None:
    before = alice.json("create", "box")["instance"]
    assert alice.hutch("rebuild", "box", "--yes").code == 0
    after = alice.json("show", "box")
    assert after["ssh"] == before["ssh"]
    assert after["state"] == "running"


def test_an_operation_that_fails_says_why_and_ends_with_1(server: Server, alice: Person) -> None:
    alice.hutch("create", "box")
    server.engine.faults.fail("snapshot")
    ran = alice.hutch("snapshot", "create", "box", "s1")
    assert ran.code == 1
    assert ran.out == ""
    assert "Error: Taking snapshot s1 of box failed: " in ran.err


def test_a_failed_operation_with_json_is_one_object_on_each_side(
    server: Server, alice: Person
) -> None:
    alice.hutch("create", "box")
    server.engine.faults.fail("snapshot")
    ran = alice.hutch("snapshot", "create", "box", "s1", "--json")
    assert ran.code == 1
    operation = json.loads(ran.out)["operation"]
    assert operation["state"] == "failed"
    error = json.loads(ran.err)["error"]
    assert set(error) == {"code", "message", "hint", "detail", "request_id"}
    assert error["detail"]["operation"] == operation["id"]


def test_what_someone_changed_by_hand_is_shown_with_what_to_do(
    server: Server, alice: Person
) -> None:
    made = alice.json("create", "box")["instance"]

    async def stop_by_hand() -> None:
        """What the reconciler does when it finds the container stopped."""
        drift = Drift("stopped_outside", "Stopped. `hutch start box` starts it.", utc_now())
        async with server.context.db.read() as session:
            container = await containers.current(session, made["id"])
        assert container is not None
        await server.engine.stop(container.engine_name)
        async with server.context.db.write() as session:
            await instances.set_state(session, made["id"], InstanceState.STOPPED)
            await instances.set_drift(session, made["id"], drift)

    server.do(stop_by_hand())
    ran = alice.hutch("show", "box")
    assert "stopped (drift)" in ran.out
    assert "hutch start box" in ran.err
    assert "(drift)" in alice.hutch("list").out
    assert alice.hutch("start", "box").code == 0
    assert "drift" not in alice.hutch("list").out


def test_another_persons_instance_does_not_exist(alice: Person, bob: Person) -> None:
    made = alice.json("create", "box")["instance"]
    for ref in ("box", made["id"]):
        for command in (["show", ref], ["delete", ref, "--yes"], ["exec", ref, "--", "id"]):
            assert bob.hutch(*command).code == 3
    assert bob.hutch("show", f"{alice.name}/box").code == 3


def test_an_administrator_names_others_instances_by_owner(
    server: Server, alice: Person, ada: Person
) -> None:
    alice.hutch("create", "box")
    ref = f"{alice.name}/box"
    assert ref in ada.hutch("list", "--all").out
    assert ref in ada.hutch("list", "--owner", alice.name).out
    assert ada.json("show", ref)["owner"] == alice.name
    assert ada.hutch("stop", ref).out == f"{ref} is stopped.\n"
    assert ada.hutch("show", f"{alice.name}/none").code == 3
    assert ada.hutch("show", "nobody/box").code == 3
    assert ada.hutch("delete", ref, "--yes").code == 0
    assert ada.json("list", "--owner", alice.name) == []


def test_snapshots_come_and_go_and_leave_a_way_back(alice: Person) -> None:
    alice.hutch("create", "box")
    assert "hutch snapshot create box" in alice.hutch("snapshot", "list", "box").err
    assert alice.hutch("snapshot", "create", "box", "one").code == 0
    assert [one["name"] for one in alice.json("snapshot", "list", "box")] == ["one"]
    assert alice.hutch("snapshot", "restore", "box", "one", "--yes").code == 0
    kinds = {one["kind"] for one in alice.json("snapshot", "list", "box")}
    assert kinds == {"manual", "before-restore"}
    assert alice.hutch("snapshot", "delete", "box", "one", "--yes").code == 0
    assert "one" not in alice.hutch("snapshot", "list", "box").out.split()


def test_operations_are_listed_and_shown(alice: Person) -> None:
    alice.hutch("create", "box")
    (operation,) = alice.json("operation", "list")
    assert operation["kind"] == "instance_create"
    out = alice.hutch("operation", "show", operation["id"]).out
    assert "instance_create" in out
    assert "100 %" in out
    assert alice.json("operation", "list", "--live") == []
    assert alice.hutch("operation", "retry", operation["id"]).code == 4


def test_whether_ssh_starts_it_can_be_said_alone_and_with_limits(alice: Person) -> None:
    assert alice.json("create", "box")["instance"]["wake_on_ssh"] is True
    ran = alice.hutch("set", "box", "--no-wake")
    assert (ran.code, ran.out) == (0, "box is started by `hutch start box` alone.\n")
    assert alice.json("show", "box")["wake_on_ssh"] is False
    changed = alice.json("set", "box", "--wake", "--cpus", "1")
    assert changed["operation"]["state"] == "done"
    assert alice.json("set", "box", "--wake")["wake_on_ssh"] is True
    assert alice.hutch("set", "box").code == 2
