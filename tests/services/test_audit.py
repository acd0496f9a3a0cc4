"""Every change that anyone can ask for is in the audit, and nothing secret is."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from hutch.domain.leases import Lease
from hutch.domain.nodes import EngineKind, NodeState
from hutch.domain.people import Actor, Role, Scope
from hutch.domain.sizes import GiB
from hutch.engine.base import ContainerSpec
from hutch.errors import HutchError
from hutch.services import (
    accelerators,
    apps,
    events,
    files,
    gateway,
    groups,
    images,
    instances,
    keys,
    leases,
    nodes,
    notices,
    operations,
    ports,
    reports,
    shares,
    snapshots,
    tokens,
    users,
)
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.services.vault import new_password
from hutch.store import containers as stored_containers
from hutch.store import images as stored_images
from hutch.store import instances as stored_instances
from tests.keys import new_key
from tests.lab import Lab
from tests.leases import MODEL, add_accelerators

SERVICES = (
    accelerators, apps, events, files, gateway, groups, images, instances, keys, leases, nodes,
    notices, operations, ports, reports, shares, snapshots, tokens, users,
)  # fmt: skip

GPU = f"node1/simulated:{MODEL}:0"
READ_ONLY = {
    "accelerators.find", "accelerators.list_all", "apps.list_all", "apps.open_app",
    "apps.still_open", "groups.list_all", "groups.show",
    "notices.list_all", "reports.gpu_hours",
    "events.list_all", "files.arrived", "files.list_all", "files.look", "files.stat",
    "gateway.reachable", "gateway.still_known", "gateway.still_reachable",
    "gateway.whose_key", "images.list_all", "instances.current", "instances.list_all",
    "instances.show", "instances.usage", "keys.list_all", "leases.history", "leases.list_all",
    "leases.queue", "leases.show", "leases.wait", "nodes.list_all", "operations.list_all",
    "operations.show", "operations.wait", "ports.list_all", "ports.list_own", "shares.list_all",
    "snapshots.list_all",
    "tokens.list_all", "users.list_all", "users.me", "users.show",
}  # fmt: skip
INNER = {
    # What has not become a file yet; of one that does it is recorded.
    "files.abandon",
    # What an agent tells of its node: what is new or broken is recorded as hutch's own doing.
    "accelerators.record_hello", "accelerators.record_found", "accelerators.note_return",
    "accelerators.note_health",
    # That somebody has been told and has read it is said by the notice itself.
    "notices.deliver", "notices.mark_read",
    # Parts of a change, which records it.
    "operations.enqueue", "keys.push_keys", "tokens.check_password", "tokens.hash_password",
    "tokens.recognize",
    # What hutch does when the time of one is over; it is recorded as if somebody had ended it.
    "ports.end_due", "shares.end_due",
    # Who asks is found out here; only when a token was last used is written.
    "tokens.authenticate", "tokens.authenticate_id",
    # What hutch does in the name of somebody who is at the gateway, whose login is recorded there.
    "tokens.lend", "tokens.prolong", "tokens.give_back",
}  # fmt: skip


class World:
    """A lab with an instance of alice's, and what was secret in everything that was done."""

    def __init__(self, context: Context, lab: Lab, passwords: dict[str, str]) -> None:
        self.context, self.lab, self.passwords = context, lab, passwords
        self.alice, self.ada = lab.actors["alice"], lab.actors["ada"]
        self.secrets: list[str | bytes] = [*passwords.values()]

    async def settle(self, state: str = "running", operation: str = "done") -> None:
        """As if everything asked for had been carried out."""
        async with self.context.db.write() as session:
            await session.exec_driver_sql(
                f"UPDATE operations SET state = '{operation}' WHERE state != 'done'"
            )
            await session.exec_driver_sql(f"UPDATE instances SET state = '{state}'")
            await session.exec_driver_sql("UPDATE snapshots SET state = 'ready'")

    def secret(self, value: str) -> str:
        self.secrets.append(value)
        return value


Change = Callable[[World], Awaitable[Any]]


async def _add_user(world: World) -> None:
    _, password = await users.add(world.context, world.ada, "carol", Role.MEMBER)
    world.secret(password)


async def _reset(world: World) -> None:
    world.secret(await users.reset_password(world.context, world.ada, "alice"))


async def _create_token(world: World) -> None:
    clear, _ = await tokens.create(world.context, world.alice, "laptop", Scope.READ, 1)
    world.secret(clear)


async def _revoke(world: World) -> None:
    clear, token = await tokens.create(world.context, world.alice, "laptop", Scope.READ, 1)
    world.secret(clear)
    await tokens.revoke(world.context, world.alice, token.id)


async def _sign_out(world: World) -> None:
    clear, token, _ = await tokens.login(
        world.context, "alice", world.passwords["alice"],
        address=str(world.alice.address), request_id=world.alice.request_id, scope=Scope.BROWSER,
    )  # fmt: skip
    world.secret(clear)
    await tokens.end_browser(world.context, replace(world.alice, token_id=token.id))


async def _login(world: World) -> None:
    clear, _, _ = await tokens.login(
        world.context, "alice", world.passwords["alice"],
        address=str(world.alice.address), request_id=world.alice.request_id,
    )  # fmt: skip
    world.secret(clear)


async def _remove_key(world: World) -> None:
    key = await keys.add(world.context, world.alice, new_key())
    await keys.remove(world.context, world.alice, key.id)


async def _add_node(world: World) -> None:
    await nodes.add(
        world.context, world.ada, name="node2", engine=EngineKind.SIMULATED,
        url=world.lab.node.url + "-2", address="192.0.2.2", subnet="10.181.0.0/24",
    )  # fmt: skip


async def _retry(world: World) -> None:
    operation = await instances.stop(world.context, world.alice, "first")
    await world.settle(operation="stuck")
    await operations.retry(world.context, world.ada, operation.id)


async def _snapshot(world: World, doing: Change | None = None) -> None:
    await snapshots.create(world.context, world.alice, "first", "monday")


async def _restore(world: World) -> None:
    await _snapshot(world)
    await world.settle()
    await snapshots.restore(world.context, world.alice, "first", "monday")


async def _delete_snapshot(world: World) -> None:
    await _snapshot(world)
    await world.settle()
    await snapshots.delete(world.context, world.alice, "first", "monday")


async def _add_port(world: World) -> None:
    await ports.add(world.context, world.alice, "first", ports.Wish(8888))


async def _remove_port(world: World) -> None:
    await _add_port(world)
    await world.settle()
    await ports.remove(world.context, world.alice, "first", "8888")


async def _configure_port(world: World) -> None:
    await _add_port(world)
    await ports.configure(world.context, world.alice, "first", "8888", open_to=["bob"])


async def _share(world: World) -> None:
    await shares.add(world.context, world.alice, "first", "bob")


async def _unshare(world: World) -> None:
    await _share(world)
    await shares.remove(world.context, world.alice, "first", "bob")


async def _start(world: World) -> None:
    await world.settle("stopped")
    await instances.start(world.context, world.alice, "first")


async def _execute(world: World) -> None:
    argv = ["deploy", "--password", world.secret(new_password())]
    # The simulated engine has nothing running; that it was asked for is what counts.
    with pytest.raises(HutchError):
        await instances.execute(world.context, world.alice, "first", argv)


async def _new_agent_token(world: World) -> None:
    world.secret(await nodes.new_agent_token(world.context, world.ada, "node1"))


async def _take(world: World) -> Lease:
    return await leases.take(world.context, world.alice, count=1)


async def _release(world: World) -> None:
    lease = await _take(world)
    await leases.release(world.context, world.alice, lease=lease.id)


async def _extend(world: World) -> None:
    lease = await _take(world)
    await leases.extend(world.context, world.alice, lease=lease.id, minutes=5)


async def _restore_gpu(world: World) -> None:
    await accelerators.withdraw(world.context, world.ada, GPU, "a fan is broken")
    await accelerators.restore(world.context, world.ada, GPU)


def _with_files(change: Change) -> Change:
    """The change, with a disk that has a folder and a file on it."""

    async def changed(world: World) -> None:
        async with world.context.db.read() as session:
            [instance] = await stored_instances.list_instances(session)
            container = await stored_containers.current(session, instance.id)
        assert container is not None
        engine = world.context.engines.of(world.lab.node)
        await engine.create(
            ContainerSpec(container.engine_name, "base", instance.limits, container.address)
        )
        async with engine.files(container.engine_name) as there:
            await there.make_folder(b"/home/alice")
            await there.make_folder(b"/home/alice/d")
        await change(world)

    return changed


async def _some_content() -> AsyncIterator[bytes]:
    yield b"x"


def _in_a_group(change: Change) -> Change:
    """The change, with alice in the group `vision`."""

    async def changed(world: World) -> None:
        await groups.add(world.context, world.ada, "vision")
        await groups.add_member(world.context, world.ada, "vision", "alice")
        # Only what follows is looked at.
        async with world.context.db.write() as session:
            await session.exec_driver_sql("DELETE FROM events")
        await change(world)

    return changed


# Each change: what does it, the event's action, who did it, the target's kind and name.
CHANGES: dict[str, tuple[Change, str, str, str, str]] = {
    "images.add": (
        lambda w: images.add(w.context, w.ada, "cuda", "with CUDA"),
        "image.add", "ada", "image", "cuda",
    ),
    "images.set_pool": (
        lambda w: images.set_pool(w.context, w.ada, "base", 2),
        "image.set_pool", "ada", "image", "base",
    ),
    "instances.create": (
        lambda w: instances.create(w.context, w.alice, Wish("second")),
        "instance.create", "alice", "instance", "second",
    ),
    "instances.start": (_start, "instance.start", "alice", "instance", "first"),
    "instances.stop": (
        lambda w: instances.stop(w.context, w.alice, "first"),
        "instance.stop", "alice", "instance", "first",
    ),
    "instances.restart": (
        lambda w: instances.restart(w.context, w.alice, "first"),
        "instance.restart", "alice", "instance", "first",
    ),
    "instances.rebuild": (
        lambda w: instances.rebuild(w.context, w.alice, "first"),
        "instance.rebuild", "alice", "instance", "first",
    ),
    "instances.delete": (
        lambda w: instances.delete(w.context, w.alice, "first"),
        "instance.delete", "alice", "instance", "first",
    ),
    "instances.configure": (
        lambda w: instances.configure(w.context, w.alice, "first", memory=5 * GiB),
        "instance.configure", "alice", "instance", "first",
    ),
    "files.make_folder": (
        _with_files(lambda w: files.make_folder(w.context, w.alice, "first", b"e")),
        "file.mkdir", "alice", "instance", "first",
    ),
    "files.make_link": (
        _with_files(lambda w: files.make_link(w.context, w.alice, "first", b"l", b"d")),
        "file.link", "alice", "instance", "first",
    ),
    "files.rename": (
        _with_files(lambda w: files.rename(w.context, w.alice, "first", b"d", b"e")),
        "file.rename", "alice", "instance", "first",
    ),
    "files.delete": (
        _with_files(lambda w: files.delete(w.context, w.alice, "first", b"d")),
        "file.delete", "alice", "instance", "first",
    ),
    "files.receive": (
        _with_files(
            lambda w: files.receive(
                w.context, w.alice, "first", files.Upload(b"f"), _some_content()
            )
        ),
        "file.upload", "alice", "instance", "first",
    ),
    "instances.execute": (_execute, "instance.exec", "alice", "instance", "first"),
    "keys.add": (
        lambda w: keys.add(w.context, w.alice, new_key("laptop")),
        "key.add", "alice", "key", "laptop",
    ),
    "keys.remove": (_remove_key, "key.remove", "alice", "key", "someone@laptop"),
    "leases.take": (_take, "lease.take", "alice", "lease", "first"),
    "leases.release": (_release, "lease.release", "alice", "lease", "first"),
    "leases.extend": (_extend, "lease.extend", "alice", "lease", "first"),
    "nodes.add": (_add_node, "node.add", "ada", "node", "node2"),
    "nodes.set_state": (
        lambda w: nodes.set_state(w.context, w.ada, "node1", NodeState.CORDONED),
        "node.cordoned", "ada", "node", "node1",
    ),
    "nodes.set_idle": (
        lambda w: nodes.set_idle(w.context, w.ada, "node1", None),
        "node.set_idle", "ada", "node", "node1",
    ),
    "nodes.new_agent_token": (_new_agent_token, "node.agent_token", "ada", "node", "node1"),
    "accelerators.withdraw": (
        lambda w: accelerators.withdraw(w.context, w.ada, GPU, "a fan is broken"),
        "accelerator.withdraw", "ada", "accelerator", GPU,
    ),
    "accelerators.restore": (_restore_gpu, "accelerator.restore", "ada", "accelerator", GPU),
    "accelerators.share": (
        lambda w: accelerators.share(w.context, w.ada, GPU, 2),
        "accelerator.share", "ada", "accelerator", GPU,
    ),
    "groups.add": (
        lambda w: groups.add(w.context, w.ada, "vision", guarantee=2),
        "group.add", "ada", "group", "vision",
    ),
    "groups.configure": (
        _in_a_group(lambda w: groups.configure(w.context, w.ada, "vision", weight=2.0)),
        "group.configure", "ada", "group", "vision",
    ),
    "groups.remove": (
        _in_a_group(lambda w: groups.remove(w.context, w.ada, "vision")),
        "group.remove", "ada", "group", "vision",
    ),
    "groups.add_member": (
        _in_a_group(lambda w: groups.add_member(w.context, w.ada, "vision", "bob")),
        "group.add_member", "ada", "group", "vision",
    ),
    "groups.remove_member": (
        _in_a_group(lambda w: groups.remove_member(w.context, w.ada, "vision", "alice")),
        "group.remove_member", "ada", "group", "vision",
    ),
    "groups.set_manager": (
        _in_a_group(lambda w: groups.set_manager(w.context, w.ada, "vision", "alice", True)),
        "group.set_manager", "ada", "group", "vision",
    ),
    "groups.set_quota": (
        _in_a_group(lambda w: groups.set_quota(w.context, w.ada, "vision", "alice", 2)),
        "user.configure", "ada", "user", "alice",
    ),
    "nodes.set_address": (
        lambda w: nodes.set_address(w.context, w.ada, "node1", "192.0.2.3"),
        "node.set_address", "ada", "node", "node1",
    ),
    "operations.retry": (_retry, "operation.retry", "ada", "operation", "instance_stop"),
    "apps.trust": (
        lambda w: apps.trust(w.context, w.alice, "bob"),
        "app.trust", "alice", "user", "bob",
    ),
    "ports.add": (_add_port, "port.add", "alice", "instance", "first"),
    "ports.configure": (_configure_port, "port.configure", "alice", "instance", "first"),
    "ports.remove": (_remove_port, "port.remove", "alice", "instance", "first"),
    "shares.add": (_share, "instance.share", "alice", "instance", "first"),
    "shares.remove": (_unshare, "instance.unshare", "alice", "instance", "first"),
    "gateway.set_wake": (
        lambda w: gateway.set_wake(w.context, w.alice, "first", wake=False),
        "instance.set_wake", "alice", "instance", "first",
    ),
    "gateway.record": (
        lambda w: gateway.record(
            w.context, [gateway.Visit(w.alice, ("SHA256:x",), w.context.now())]
        ),
        "gateway.login", "alice", "user", "alice",
    ),
    "snapshots.create": (_snapshot, "snapshot.create", "alice", "instance", "first"),
    "snapshots.restore": (_restore, "snapshot.restore", "alice", "instance", "first"),
    "snapshots.delete": (_delete_snapshot, "snapshot.delete", "alice", "instance", "first"),
    "tokens.login": (_login, "user.login", "alice", "user", "alice"),
    "tokens.create": (_create_token, "token.create", "alice", "token", "laptop"),
    "tokens.end_browser": (_sign_out, "token.revoke", "alice", "token", "browser"),
    "tokens.revoke": (_revoke, "token.revoke", "alice", "token", "laptop"),
    "users.add": (_add_user, "user.add", "ada", "user", "carol"),
    "users.disable": (
        lambda w: users.disable(w.context, w.ada, "alice"),
        "user.disable", "ada", "user", "alice",
    ),
    "users.enable": (
        lambda w: users.enable(w.context, w.ada, "alice"),
        "user.enable", "ada", "user", "alice",
    ),
    "users.reset_password": (_reset, "user.reset_password", "ada", "user", "alice"),
    "users.change_password": (
        lambda w: users.change_password(
            w.context, w.alice, w.passwords["alice"], w.secret(new_password())
        ),
        "user.change_password", "alice", "user", "alice",
    ),
    "users.configure": (
        lambda w: users.configure(w.context, w.ada, "alice", role=Role.ADMIN, cpus=3),
        "user.configure", "ada", "user", "alice",
    ),
}  # fmt: skip


def _public_coroutines(module: ModuleType) -> set[str]:
    noun = module.__name__.rpartition(".")[2]
    return {
        f"{noun}.{name}"
        for name, function in vars(module).items()
        if inspect.iscoroutinefunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_use_case_is_either_a_change_that_is_tested_here_or_reads_only() -> None:
    found = set[str]().union(*(_public_coroutines(module) for module in SERVICES))
    assert found == CHANGES.keys() | READ_ONLY | INNER


@pytest.fixture
async def world(context: Context, lab: Lab, passwords: dict[str, str]) -> World:
    made = World(context, lab, passwords)
    async with context.db.write() as session:
        await add_accelerators(session, lab.node, 1, context.now())
    await instances.create(context, made.alice, Wish("first"))
    await made.settle()
    async with context.db.read() as session:
        found = await stored_instances.list_instances(session)
        sealed = await stored_instances.host_secret(session, found[0].id)
        assert sealed is not None
        made.secrets += [sealed, context.vault.open(sealed).splitlines()[2]]
        image = await stored_images.find_image(session, "base")
        assert image is not None
    return made


async def _everything(context: Context, table: str) -> str:
    async with context.db.read() as session:
        return repr((await session.exec_driver_sql(f"SELECT * FROM {table}")).all())


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_a_change_is_recorded_with_who_what_and_from_where(world: World, change: str) -> None:
    act, action, actor_name, target_kind, target_name = CHANGES[change]
    before = {event.id for event in await events.list_all(world.context, world.ada)}
    await act(world)
    new = [e for e in await events.list_all(world.context, world.ada) if e.id not in before]
    [event] = [event for event in new if event.action == action]
    actor: Actor = world.lab.actors[actor_name]
    assert (event.actor_id, event.actor_name) == (actor.user_id, actor.name)
    assert (event.address, event.request_id) == (actor.address, actor.request_id)
    assert (event.target_kind, event.target_name) == (target_kind, target_name)
    assert event.target_id
    for table in ("events", "operations"):
        written = await _everything(world.context, table)
        for secret in world.secrets:
            shown = secret if isinstance(secret, str) else secret.decode()
            assert shown not in written
        assert "argon2" not in written
        assert "PRIVATE" not in written


# Their preparation is a change of its own.
_PREPARED = {
    "keys.remove", "tokens.revoke", "tokens.end_browser", "operations.retry",
    "snapshots.restore", "snapshots.delete", "instances.start", "ports.configure",
    "ports.remove", "shares.remove", "leases.release",
    "leases.extend",
    "accelerators.restore",
    "groups.configure", "groups.remove", "groups.add_member", "groups.remove_member",
    "groups.set_manager", "groups.set_quota",
}  # fmt: skip


@pytest.mark.parametrize("change", sorted(CHANGES.keys() - _PREPARED))
async def test_a_change_that_fails_is_not_recorded_as_done(
    world: World, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit is written in the change's own transaction: both or neither."""

    async def fail(*_: object, **__: object) -> None:
        raise KeyError("the disk is full")

    monkeypatch.setattr("hutch.store.events.record", fail)
    before = [await _everything(world.context, table) for table in _TABLES]
    with pytest.raises((KeyError, BaseExceptionGroup)):
        await CHANGES[change][0](world)
    assert [await _everything(world.context, table) for table in _TABLES] == before


_TABLES = (
    "users", "tokens", "ssh_keys", "images", "nodes", "instances", "containers", "ports",
    "accelerators", "groups", "memberships", "shares", "snapshots", "operations", "events",
)  # fmt: skip


async def test_requests_and_their_operations_share_an_id(world: World) -> None:
    operation = await instances.stop(world.context, world.alice, "first")
    assert operation.request_id == world.alice.request_id
    [event] = await events.list_all(world.context, world.ada, action="instance.stop")
    assert event.request_id == operation.request_id
    assert event.detail["operation"] == operation.id
    assert event.result == "requested"


async def test_only_administrators_read_the_audit(world: World) -> None:
    with pytest.raises(HutchError) as caught:
        await events.list_all(world.context, world.alice)
    assert caught.value.code == "forbidden"


async def test_a_page_of_the_audit_has_an_end(world: World) -> None:
    found = await events.list_all(world.context, world.ada, limit=10**9)
    assert 0 < len(found) <= events.MOST
