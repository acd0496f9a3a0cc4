"""The client holds to the API's own description: every method asks for something that exists, and
everything that exists can be asked for."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from hutch.api.app import describe_api
from hutch.client import Client
from tests.client.stub import Stub

CALLS: dict[str, Callable[[Client], object]] = {
    "login": lambda c: c.login("alice", "word"),
    "logout": lambda c: c.logout(),
    "me": lambda c: c.me(),
    "change_password": lambda c: c.change_password("old", "new"),
    "list_keys": lambda c: c.list_keys("bob"),
    "add_key": lambda c: c.add_key("ssh-ed25519 AAAA", title="t", user="bob"),
    "remove_key": lambda c: c.remove_key("k1"),
    "ssh_config": lambda c: c.ssh_config("lab"),
    "list_tokens": lambda c: c.list_tokens(),
    "create_token": lambda c: c.create_token("t", scope="read", days=3),
    "revoke_token": lambda c: c.revoke_token("t1"),
    "list_instances": lambda c: c.list_instances(everyone=True, owner="bob"),
    "create_instance": lambda c: c.create_instance(
        "box", image="base", cpus=1, memory="1GiB", disk=2**30, node="n"
    ),
    "show_instance": lambda c: c.show_instance("box"),
    "show_usage": lambda c: c.show_usage("box"),
    "configure_instance": lambda c: c.configure_instance("box", cpus=1, memory="1GiB", disk=1),
    "set_wake": lambda c: c.set_wake("box", False),
    "delete_instance": lambda c: c.delete_instance("box"),
    "start_instance": lambda c: c.start_instance("box"),
    "stop_instance": lambda c: c.stop_instance("box"),
    "restart_instance": lambda c: c.restart_instance("box"),
    "rebuild_instance": lambda c: c.rebuild_instance("box", image="base"),
    "execute": lambda c: c.execute("box", ["id"], stdin=b"x", timeout=3, root=True),
    "list_snapshots": lambda c: c.list_snapshots("box"),
    "create_snapshot": lambda c: c.create_snapshot("box", "s"),
    "delete_snapshot": lambda c: c.delete_snapshot("box", "s"),
    "restore_snapshot": lambda c: c.restore_snapshot("box", "s"),
    "list_ports": lambda c: c.list_ports("box"),
    "list_all_ports": lambda c: c.list_all_ports(everyone=True),
    "add_port": lambda c: c.add_port(
        "box", 80, host_port=30000, protocol="tcp", name="n", span="8h", reach="node",
        open_to=["me"], keep_path=True,
    ),
    "list_apps": lambda c: c.list_apps(),
    "configure_port": lambda c: c.configure_port(
        "box", "80", span="8h", open_to=["bob"], keep_path=False
    ),
    "remove_port": lambda c: c.remove_port("box", "53/udp"),
    "list_files": lambda c: c.list_files("box", b"/a"),
    "show_file": lambda c: c.show_file("box", b"/a"),
    "download": lambda c: c.download("box", b"/a", archive="tar").__enter__(),
    "show_upload": lambda c: c.show_upload("box", b"/a", "0123456789", replace=True),
    "upload": lambda c: c.upload(
        "box", b"/a", iter([b"x"]), size=2, upload="0123456789", offset=1, replace=True, mode=0o644
    ),
    "abandon_upload": lambda c: c.abandon_upload("box", b"/a", "0123456789"),
    "make_folder": lambda c: c.make_folder("box", b"/a"),
    "make_link": lambda c: c.make_link("box", b"/a", b"/b", replace=True),
    "rename_file": lambda c: c.rename_file("box", b"/a", b"/b", replace=True),
    "delete_file": lambda c: c.delete_file("box", b"/a", recursive=True),
    "create_terminal_ticket": lambda c: c.create_terminal_ticket("box"),
    "list_shares": lambda c: c.list_shares("box"),
    "share_instance": lambda c: c.share_instance("box", "bob", read_only_view=True, until="2d"),
    "unshare_instance": lambda c: c.unshare_instance("box", "bob"),
    "list_operations": lambda c: c.list_operations(everyone=True, live=True, limit=3),
    "show_operation": lambda c: c.show_operation("o1", wait=1, seen="v"),
    "retry_operation": lambda c: c.retry_operation("o1"),
    "list_users": lambda c: c.list_users(),
    "add_user": lambda c: c.add_user("bob", role="admin", password="word"),
    "show_user": lambda c: c.show_user("bob"),
    "configure_user": lambda c: c.configure_user(
        "bob", role="member", instances=1, cpus=1, memory="1GiB", disk="1GiB", accelerators=1
    ),
    "disable_user": lambda c: c.disable_user("bob"),
    "enable_user": lambda c: c.enable_user("bob"),
    "reset_password": lambda c: c.reset_password("bob"),
    "list_accelerators": lambda c: c.list_accelerators(),
    "withdraw_accelerator": lambda c: c.withdraw_accelerator("n/0000:3b:00.0", "broken"),
    "restore_accelerator": lambda c: c.restore_accelerator("n/0000:3b:00.0"),
    "share_accelerator": lambda c: c.share_accelerator("n/0000:3b:00.0", 2),
    "take": lambda c: c.take(1, instance="box", model="A100", minutes=60),
    "release": lambda c: c.release(lease="l1", instance="box"),
    "extend": lambda c: c.extend(60, lease="l1", instance="box"),
    "list_leases": lambda c: c.list_leases(everyone=True, live=False, instance="box"),
    "show_lease": lambda c: c.show_lease("l1", wait=1, seen="v"),
    "list_queue": lambda c: c.list_queue(),
    "list_history": lambda c: c.list_history(everyone=True, limit=1, before="l1"),
    "report_gpu": lambda c: c.report_gpu(
        by="person", first="2026-10", last="2026-11", mine=True
    ),
    "list_notices": lambda c: c.list_notices(unread=True, limit=1),
    "read_notices": lambda c: c.read_notices(["n1"]),
    "list_groups": lambda c: c.list_groups(),
    "add_group": lambda c: c.add_group(
        "g", {"guarantee": 1, "limit": 2, "weight": 1.0, "idle": {}}
    ),
    "show_group": lambda c: c.show_group("g"),
    "configure_group": lambda c: c.configure_group(
        "g", {"guarantee": 1, "limit": None, "weight": 1.0, "idle": None}
    ),
    "remove_group": lambda c: c.remove_group("g"),
    "add_member": lambda c: c.add_member("g", "bob"),
    "remove_member": lambda c: c.remove_member("g", "bob"),
    "set_member_quota": lambda c: c.set_member_quota("g", "bob", 1),
    "set_manager": lambda c: c.set_manager("g", "bob", is_manager=True),
    "set_node_idle": lambda c: c.set_node_idle("n", None),
    "list_nodes": lambda c: c.list_nodes(),
    "add_node": lambda c: c.add_node(
        "n", engine="incus", url="unix:///s", address="192.0.2.1", subnet="10.0.0.0/20",
        project="p", pool="p", network="b",
    ),
    "set_node_address": lambda c: c.set_node_address("n", "192.0.2.1"),
    "cordon_node": lambda c: c.cordon_node("n"),
    "uncordon_node": lambda c: c.uncordon_node("n"),
    "new_agent_token": lambda c: c.new_agent_token("n"),
    "list_images": lambda c: c.list_images(),
    "add_image": lambda c: c.add_image("i", description="d", pool_size=1),
    "set_pool": lambda c: c.set_pool("i", 2),
    "list_events": lambda c: c.list_events(
        limit=1, before=9, by="bob", action="instance.", target="x"
    ),
}  # fmt: skip
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return describe_api()


def find(described: dict[str, Any], method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The operation of the description that a request reaches."""
    for template, operations in described["paths"].items():
        pattern = re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return template, operations[method.lower()]
    raise AssertionError(f"the API has no {method} {path}")


def fields(described: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """The properties of a body's schema, through references and alternatives."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return fields(described, described["components"]["schemas"][name])
    found = set(schema.get("properties", {}))
    return found.union(*(fields(described, one) for one in schema.get("anyOf", [])))


def test_every_method_of_the_client_is_tried_here() -> None:
    public = {name for name in dir(Client) if callable(getattr(Client, name)) and name[0] != "_"}
    # A WebSocket is none of what the description of the API can describe.
    assert public - {"close", "open_terminal"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_method_asks_for_what_the_api_describes(
    stub: Stub, client: Client, described: dict[str, Any], name: str
) -> None:
    CALLS[name](client)
    (asked,) = stub.asked
    parts = urlsplit(asked.path)
    _, operation = find(described, asked.method, parts.path)
    declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
    assert {key for key, _ in parse_qsl(parts.query)} <= declared
    if asked.body and name != "upload":
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(json.loads(asked.body)) == fields(described, schema)


def test_every_operation_of_the_api_has_a_method(
    stub: Stub, client: Client, described: dict[str, Any]
) -> None:
    for call in CALLS.values():
        call(client)
    reached = {
        (asked.method.lower(), find(described, asked.method, urlsplit(asked.path).path)[0])
        for asked in stub.asked
    }
    there = {
        (method, path)
        for path, operations in described["paths"].items()
        for method in operations.keys() & METHODS
        if path.startswith("/api/")
    }
    assert there - reached == set()
