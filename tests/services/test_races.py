"""Grants under contention: many connections and many processes, and never one too many.

The slow ones also prove that they can fail: see `test_what_sqlalchemy_does_by_itself_oversells`
and `test_without_the_lock_on_the_person_postgresql_oversells`.
"""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from hutch.domain.instances import ContainerRole
from hutch.domain.people import Actor, Role
from hutch.domain.sizes import GiB
from hutch.errors import ConflictError, KeyTakenError, NameTakenError, QuotaExceededError
from hutch.services import instances, keys, users
from hutch.services.context import Context
from hutch.services.instances import Wish
from hutch.store import containers
from hutch.store import users as stored_users
from tests.keys import new_key
from tests.lab import Lab, close_context, open_context
from tests.store import rows

QUOTA = 3
SMALL = {"cpus": 1, "memory": GiB, "disk": GiB}


def _rows(url: str, query: str) -> list[Any]:
    drivername = "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"
    engine = create_engine(make_url(url).set(drivername=drivername), poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def _assert_consistent(url: str) -> None:
    """Whatever was granted, nobody has more than their quota and nothing was given twice."""
    per_owner = _rows(url, "SELECT owner_id, count(*) FROM instances GROUP BY owner_id")
    assert all(count <= QUOTA for _, count in per_owner), per_owner
    for query in (
        "SELECT owner_id, name FROM instances",
        "SELECT host_port FROM ports",
        "SELECT node_id, address FROM containers",
        "SELECT engine_name FROM containers",
    ):
        found = Counter(_rows(url, query))
        assert set(found.values()) <= {1}, (query, found.most_common(3))
    for table in ("ports", "operations", "events"):
        granted = "state != 'failed'"
        count = {"ports": "true", "operations": "true", "events": "action = 'instance.create'"}
        [[instances_]] = _rows(url, f"SELECT count(*) FROM instances WHERE {granted}")
        [[rows]] = _rows(url, f"SELECT count(*) FROM {table} WHERE {count[table]}")
        assert rows == instances_, f"{table} do not match the instances"


@pytest.fixture
async def servers(context: Context, database_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """Three servers on one database, each with connections of its own."""
    opened = [
        open_context(database_url, tmp_path / "data", quota_instances=QUOTA) for _ in range(3)
    ]
    yield opened
    for server in opened:
        await close_context(server)


async def _outcome(doing: Awaitable[Any]) -> str:
    try:
        await doing
    except ConflictError as error:
        return type(error).__name__
    return "granted"


async def test_a_person_who_asks_fifty_times_at_once_gets_what_the_quota_allows(
    servers: list[Context], alice: Actor, bob: Actor, ada: Actor, database_url: str
) -> None:
    for person in (alice, bob, ada):
        got = await asyncio.gather(
            *(
                _outcome(
                    instances.create(servers[n % 3], person, Wish(f"machine-{n // 2}", **SMALL))
                )
                for n in range(50)
            )
        )
        assert got.count("granted") == QUOTA
        assert set(got) <= {"granted", "QuotaExceededError", "NameTakenError"}
        _assert_consistent(database_url)


async def test_people_who_ask_at_once_get_ports_and_addresses_of_their_own(
    servers: list[Context], alice: Actor, bob: Actor, ada: Actor, database_url: str
) -> None:
    people = (alice, bob, ada)
    got = await asyncio.gather(
        *(
            _outcome(instances.create(servers[n % 3], people[n // 3 % 3], Wish(f"m{n}", **SMALL)))
            for n in range(36)
        )
    )
    assert Counter(got) == {"granted": 9, "QuotaExceededError": 27}
    _assert_consistent(database_url)
    assert sorted(_rows(database_url, "SELECT host_port FROM ports")) == [
        (22000 + n,) for n in range(9)
    ]


def _compete(
    url: str, data: Path, people: list[Actor], barrier: Any, rounds: int, results: Any
) -> None:
    """One server process: in each round, asks for ten instances of that round's person at once."""

    async def compete() -> None:
        context = open_context(url, data, quota_instances=QUOTA)
        for number in range(rounds):
            await asyncio.to_thread(barrier.wait, 60)
            got = await asyncio.gather(
                *(
                    _outcome(
                        instances.create(
                            context, people[number], Wish(f"{'abcdefghij'[n]}{number}", **SMALL)
                        )
                    )
                    for n in range(10)
                )
            )
            results.put((number, Counter(got)))
        await close_context(context)

    asyncio.run(compete())


async def test_server_processes_together_never_grant_more_than_the_quota(
    context: Context, ada: Actor, database_url: str, tmp_path: Path
) -> None:
    rounds, processes = 8, 3
    people: list[Actor] = []
    async with context.db.write() as session:
        for number in range(rounds):
            made = await rows.add_user(session, f"person-{number}")
            people.append(Actor(made.id, made.name, made.role))
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(processes), spawn.Queue()
    servers = [
        spawn.Process(
            target=_compete,
            args=(database_url, tmp_path / "data", people, barrier, rounds, results),
        )
        for _ in range(processes)
    ]
    for server in servers:
        server.start()
    total: dict[int, Counter[str]] = {number: Counter() for number in range(rounds)}
    for _ in range(rounds * processes):
        number, got = await asyncio.to_thread(results.get, True, 90)
        total[number] += got
    for server in servers:
        server.join(30)
        assert server.exitcode == 0
    for got in total.values():
        assert got["granted"] == QUOTA, total
        assert set(got) <= {"granted", "QuotaExceededError", "NameTakenError"}
        assert got.total() == 10 * processes
    _assert_consistent(database_url)


Reader = Callable[..., Awaitable[Any]]


def _meet_after(reading: Reader, seconds: float = 0.4) -> Reader:
    """`reading`, after which each of two callers waits until both have read, or for a while."""
    both = asyncio.Barrier(2)

    async def read_and_wait(*arguments: Any) -> Any:
        read = await reading(*arguments)
        try:
            async with asyncio.timeout(seconds):
                await both.wait()
        except (TimeoutError, asyncio.BrokenBarrierError):
            await both.abort()
        return read

    return read_and_wait


async def _race_for_the_last(
    servers: list[Context], person: Actor, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What two get who both read, as far as they are let, before either of them writes."""
    for number in range(QUOTA - 1):
        await instances.create(servers[0], person, Wish(f"had-{number}", **SMALL))
    monkeypatch.setattr(stored_users, "held", _meet_after(stored_users.held))
    return await asyncio.gather(
        *(
            _outcome(instances.create(server, person, Wish(f"last-{number}", **SMALL)))
            for number, server in enumerate(servers[:2])
        )
    )


async def test_two_who_would_both_read_one_left_take_turns(
    servers: list[Context], alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = await _race_for_the_last(servers, alice, monkeypatch)
    assert sorted(got) == ["QuotaExceededError", "granted"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_sqlalchemy_does_by_itself_oversells(
    servers: list[Context], alice: Actor, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why hutch says itself how a transaction begins: this is the test above without that."""
    for server in servers:
        await server.db._writer.dispose()
        server.db._writer = create_async_engine(
            make_url(database_url).set(drivername="sqlite+aiosqlite"), poolclass=NullPool
        )
    got = await _race_for_the_last(servers, alice, monkeypatch)
    assert got == ["granted", "granted"]
    assert _rows(database_url, "SELECT count(*) FROM instances") == [(QUOTA + 1,)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_without_the_lock_on_the_person_postgresql_oversells(
    servers: list[Context], alice: Actor, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_lock(*_: object) -> None: ...

    monkeypatch.setattr(stored_users, "lock_user", no_lock)
    assert await _race_for_the_last(servers, alice, monkeypatch) == ["granted", "granted"]


async def test_the_last_container_of_the_pool_goes_to_one_person_and_the_other_gets_a_new_one(
    servers: list[Context], lab: Lab, alice: Actor, bob: Actor
) -> None:
    async with servers[0].db.write() as session:
        left = await containers.add_container(
            session, lab.node, lab.image.id, ContainerRole.POOL, servers[0].now()
        )
        await containers.set_ready(session, left.id)
    (one, first), (other, second) = await asyncio.gather(
        instances.create(servers[0], alice, Wish("mine")),
        instances.create(servers[1], bob, Wish("mine")),
    )
    assert sorted([first.params["pooled"], second.params["pooled"]]) == [False, True]
    async with servers[0].db.read() as session:
        mine, theirs = [await containers.current(session, one.id) for one in (one, other)]
    assert mine is not None
    assert theirs is not None
    assert mine.engine_name != theirs.engine_name
    assert left.id in {mine.id, theirs.id}


async def test_two_changes_of_one_persons_instances_cannot_both_use_what_is_left(
    servers: list[Context], alice: Actor
) -> None:
    for number in range(2):
        await instances.create(servers[0], alice, Wish(f"m{number}", **SMALL))
        async with servers[0].db.write() as session:
            await session.exec_driver_sql("UPDATE operations SET state = 'done'")
            await session.exec_driver_sql("UPDATE instances SET state = 'running'")
    quota = servers[0].settings.quota_cpus
    got = await asyncio.gather(
        *(
            _outcome(instances.configure(servers[n % 3], alice, f"m{n % 2}", cpus=quota - 1))
            for n in range(8)
        )
    )
    assert got.count("granted") == 1
    assert set(got) <= {"granted", "QuotaExceededError", "BusyError"}


async def test_nobody_registers_more_keys_than_allowed_by_asking_at_once(
    servers: list[Context], alice: Actor
) -> None:
    most = 4
    few = [
        open_context(server.settings.database_url, server.settings.data, keys_per_user=most)
        for server in servers
    ]
    lines = [new_key() for _ in range(12)]
    got = await asyncio.gather(
        *(_outcome(keys.add(few[n % 3], alice, line)) for n, line in enumerate(lines))
    )
    assert Counter(got) == {"granted": most, "ConflictError": len(lines) - most}
    assert len(await keys.list_all(few[0], alice)) == most
    for server in few:
        await close_context(server)


async def test_one_key_given_by_two_people_at_once_belongs_to_one(
    servers: list[Context], alice: Actor, bob: Actor
) -> None:
    for _ in range(8):
        line = new_key()
        got = await asyncio.gather(
            _outcome(keys.add(servers[0], alice, line)), _outcome(keys.add(servers[1], bob, line))
        )
        assert sorted(got) == [KeyTakenError.__name__, "granted"]


async def test_keys_added_at_once_are_pushed_once_to_each_instance(
    servers: list[Context], alice: Actor, database_url: str
) -> None:
    for number in range(QUOTA):
        await instances.create(servers[0], alice, Wish(f"m{number}", **SMALL))
    async with servers[0].db.write() as session:
        await session.exec_driver_sql("UPDATE operations SET state = 'done'")
        await session.exec_driver_sql("UPDATE instances SET state = 'running', keys_version = 0")
    got = await asyncio.gather(
        *(_outcome(keys.add(servers[n % 3], alice, new_key())) for n in range(9))
    )
    assert got == ["granted"] * 9
    pushes = "SELECT target FROM operations WHERE kind = 'keys_push'"
    assert len(_rows(database_url, pushes)) == QUOTA


async def test_of_the_last_two_administrators_who_remove_each_other_one_stays(
    servers: list[Context], context: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hutch.services.users.sign_in.hash_password", _no_hash)
    grace, _ = await users.add(context, ada, "grace", Role.ADMIN)
    second = Actor(grace.id, "grace", Role.ADMIN)
    for remove in (
        lambda server, actor, name: users.disable(server, actor, name),
        lambda server, actor, name: users.configure(server, actor, name, role=Role.MEMBER),
    ):
        got = await asyncio.gather(
            _outcome(remove(servers[0], ada, "grace")), _outcome(remove(servers[1], second, "ada"))
        )
        assert sorted(got) == ["ConflictError", "granted"]
        for name in ("ada", "grace"):
            await users.enable(context, ada, name)
            await users.configure(context, ada, name, role=Role.ADMIN)


async def _no_hash(_: str) -> str:
    return "no password has this hash"


def test_the_errors_named_here_are_the_ones_people_see() -> None:
    assert issubclass(QuotaExceededError, ConflictError)
    assert issubclass(NameTakenError, ConflictError)
