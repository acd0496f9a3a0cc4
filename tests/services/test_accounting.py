"""Quotas, names, ports and addresses against a plain model, through the use cases."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from hutch.domain.limits import Holding, Limits
from hutch.domain.people import Actor
from hutch.domain.sizes import GiB
from hutch.errors import (
    BusyError,
    HutchError,
    NameTakenError,
    NoAddressLeftError,
    NoPortLeftError,
    QuotaExceededError,
)
from hutch.services import instances, users
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.store import containers
from hutch.store import instances as stored
from hutch.store import operations as stored_operations
from tests.lab import close_context, fill, open_context
from tests.postgresql import Server

PORTS = range(22000, 22007)
# 10.9.0.0/28 without the first ten and the broadcast address.
ADDRESSES = [f"10.9.0.{n}" for n in range(10, 15)]
QUOTA = Holding(4, 8, 12 * GiB, 40 * GiB, 4)
NAMES = ["a", "b", "c", "d", "e"]


class Machine:
    """An instance as the model has it."""

    def __init__(self, owner: str, name: str, limits: Limits, port: int, address: str) -> None:
        self.owner, self.name, self.limits = owner, name, limits
        self.port, self.address = port, address
        self.busy = True
        self.counts = True
        self.then: Limits | None = None


def _holding(machines: list[Machine]) -> Holding:
    held = Holding(0, 0, 0, 0)
    for one in machines:
        limits = one.limits
        # What failed holds a name and a port, and so counts as one, and nothing else.
        made = Holding(1, limits.cpus, limits.memory, limits.disk)
        held = held.plus(made if one.counts else Holding(1, 0, 0, 0))
    return held


def _exceeds(held: Holding, more: Holding) -> bool:
    return any(
        getattr(more, name) > 0 and getattr(held, name) + getattr(more, name) > getattr(QUOTA, name)
        for name in Holding.__slots__
    )


class Accounting(RuleBasedStateMachine):
    template: ClassVar[Path]
    server: ClassVar[Server | None] = None
    postgresql_template: ClassVar[str] = ""

    machines = Bundle("machines")

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="hutch-accounting-"))
        self.database = ""
        if self.server is None:
            shutil.copy(self.template, self.folder / "hutch.db")
            url = f"sqlite:///{self.folder / 'hutch.db'}"
        else:
            self.database = self.server.create(template=self.postgresql_template)
            url = self.server.url(self.database)
        self.context: Context = open_context(
            url, self.folder,
            ssh_port_first=PORTS[0], ssh_port_last=PORTS[-1],
            quota_instances=QUOTA.instances, quota_cpus=QUOTA.cpus,
            quota_memory=QUOTA.memory, quota_disk=QUOTA.disk,
        )  # fmt: skip
        lab = self.run(fill(self.context.db, self.folder / "engine.db", QUOTA))
        self.run(self.sql("UPDATE nodes SET subnet = '10.9.0.0/28'"))
        self.people: dict[str, Actor] = lab.actors
        self.model: list[Machine] = []

    def teardown(self) -> None:
        if hasattr(self, "context"):
            self.run(close_context(self.context))
            self.loop.close()
            shutil.rmtree(self.folder)
            if self.server is not None:
                self.server.drop(self.database)

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    async def sql(self, statement: str) -> None:
        async with self.context.db.write() as session:
            await session.exec_driver_sql(statement)

    def attempt(self, doing: Coroutine[Any, Any, Any], expected: type[HutchError] | None) -> Any:
        if expected is None:
            return self.run(doing)
        with pytest.raises(HutchError) as caught:
            self.run(doing)
        assert type(caught.value) is expected
        return None

    def owned(self, owner: str) -> list[Machine]:
        return [one for one in self.model if one.owner == owner]

    @rule(
        target=machines,
        owner=st.sampled_from(["alice", "bob", "ada"]),
        name=st.sampled_from(NAMES),
        cpus=st.integers(1, 5),
        memory=st.integers(1, 7),
        disk=st.integers(1, 25),
    )
    def create(self, owner: str, name: str, cpus: int, memory: int, disk: int) -> Any:
        limits = Limits(cpus, memory * GiB, disk * GiB, 8192)
        ports = [port for port in PORTS if port not in {one.port for one in self.model}]
        taken = {one.address for one in self.model if one.counts}
        addresses = [address for address in ADDRESSES if address not in taken]
        expected: type[HutchError] | None = None
        if _exceeds(_holding(self.owned(owner)), Holding(1, cpus, memory * GiB, disk * GiB)):
            expected = QuotaExceededError
        elif any((one.owner, one.name) == (owner, name) for one in self.model):
            expected = NameTakenError
        elif not ports:
            expected = NoPortLeftError
        elif not addresses:
            expected = NoAddressLeftError
        wish = Wish(name, cpus=cpus, memory=limits.memory, disk=limits.disk)
        got = self.attempt(instances.create(self.context, self.people[owner], wish), expected)
        if got is None:
            return multiple()
        made = Machine(owner, name, limits, ports[0], addresses[0])
        assert got[0].ssh_port == made.port
        self.model.append(made)
        return made

    @rule(machine=machines, cpus=st.integers(1, 8), memory=st.integers(1, 12))
    def configure(self, machine: Machine, cpus: int, memory: int) -> None:
        if machine not in self.model or not machine.counts:
            return
        old, new = machine.limits, Limits(cpus, memory * GiB, machine.limits.disk, 8192)
        others = _holding(self.owned(machine.owner))
        more = Holding(0, new.cpus - old.cpus, new.memory - old.memory, 0)
        expected: type[HutchError] | None = None
        if machine.busy:
            expected = BusyError
        elif _exceeds(others, more):
            expected = QuotaExceededError
        self.attempt(
            instances.configure(
                self.context, self.people[machine.owner], machine.name,
                cpus=cpus, memory=new.memory,
            ),
            expected,
        )  # fmt: skip
        if expected is None:
            # The larger of both counts until the change has been carried out.
            machine.limits = Limits(
                max(old.cpus, new.cpus), max(old.memory, new.memory), old.disk, 8192
            )
            machine.busy, machine.then = True, new

    @rule(machine=machines)
    def carry_out(self, machine: Machine) -> None:
        """What was asked for last has been done."""
        if machine not in self.model or not machine.busy:
            return
        machine.busy = False
        if machine.then is not None:
            machine.limits, machine.then = machine.then, None

        async def done() -> None:
            async with self.context.db.write() as session:
                found = await self._find(session, machine)
                await stored.set_limits(session, found.id, machine.limits)
                await stored.update_instance(session, found.id, state="running")
                live = await stored_operations.live_operation(session, instances.target(found.id))
                assert live is not None
                await stored_operations.save(session, live, state="done")

        # A lease is needed to save: the operation was never claimed, so its token is none.
        self.run(self._claim_all())
        self.run(done())

    @rule(machine=machines)
    def fail(self, machine: Machine) -> None:
        """Its creation could not be done: only its name and port are still held."""
        if machine not in self.model or not machine.busy or machine.then is not None:
            return
        machine.busy, machine.counts = False, False

        async def failed() -> None:
            async with self.context.db.write() as session:
                found = await self._find(session, machine)
                container = await containers.current(session, found.id)
                assert container is not None
                await containers.delete_container(session, container.id)
                await stored.update_instance(session, found.id, state="failed")
                live = await stored_operations.live_operation(session, instances.target(found.id))
                assert live is not None
                await stored_operations.save(session, live, state="failed")

        self.run(self._claim_all())
        self.run(failed())

    @rule(machine=consumes(machines))
    def remove(self, machine: Machine) -> None:
        """It was deleted, and that has been carried out."""
        if machine not in self.model:
            return
        self.model.remove(machine)

        async def removed() -> None:
            async with self.context.db.write() as session:
                found = await self._find(session, machine)
                container = await containers.current(session, found.id)
                if container is not None:
                    await containers.delete_container(session, container.id)
                await stored.delete_instance(session, found.id)
                await session.exec_driver_sql(
                    f"DELETE FROM operations WHERE target = '{instances.target(found.id)}'"
                )

        self.run(removed())

    async def _find(self, session: Any, machine: Machine) -> Any:
        owner = self.people[machine.owner]
        found = await stored.find_instance(session, owner.user_id, machine.name)
        assert found is not None
        return found

    async def _claim_all(self) -> None:
        await self.sql("UPDATE operations SET lease_token = 'x' WHERE lease_token IS NULL")

    @invariant()
    def the_database_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "context"):
            return

        async def compare() -> None:
            async with self.context.db.read() as session:
                everything = await stored.list_instances(session)
                living = await containers.list_containers(session)
            found = {(one.owner_name, one.name): one for one in everything}
            assert found.keys() == {(one.owner, one.name) for one in self.model}
            for one in self.model:
                seen = found[one.owner, one.name]
                assert (seen.limits, seen.ssh_port) == (one.limits, one.port)
            assert sorted(container.address for container in living) == sorted(
                one.address for one in self.model if one.counts
            )
            for name, actor in self.people.items():
                user, held = await users.me(self.context, actor)
                assert held == _holding(self.owned(name))
                assert user.quota == QUOTA
                assert not _exceeds(Holding(0, 0, 0, 0), held)

        self.run(compare())


def _check(machine: type[Accounting], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_counts_as_the_model_does(sqlite_template: Path) -> None:
    _check(type("OnSqlite", (Accounting,), {"template": sqlite_template}), 15)


def test_postgresql_counts_as_the_model_does(
    postgresql_server: Server, postgresql_template: str
) -> None:
    attributes = {"server": postgresql_server, "postgresql_template": postgresql_template}
    _check(type("OnPostgresql", (Accounting,), attributes), 6)
