"""The audit, as rows."""

from datetime import timedelta

from hutch.domain.events import Event
from hutch.domain.people import SYSTEM, Actor, Role
from hutch.store import events
from hutch.store.db import Database
from tests.store import rows

ALICE = Actor("a" * 16, "alice", Role.MEMBER, address="192.0.2.9", request_id="request-1")
TARGET = ("instance", "i" * 16, "first")


async def _listed(database: Database, limit: int = 50, **wanted: object) -> list[Event]:
    async with database.read() as session:
        return await events.list_events(session, limit=limit, **wanted)  # type: ignore[arg-type]


async def test_an_event_says_who_did_what_to_what_when_from_where(database: Database) -> None:
    async with database.write() as session:
        await events.record(
            session, ALICE, rows.NOW, "instance.create", TARGET,
            owner_id=ALICE.user_id, result="requested", image="base", ä=[1, None],
        )  # fmt: skip
    [event] = await _listed(database)
    assert event == Event(
        id=event.id,
        at=rows.NOW,
        actor_id=ALICE.user_id,
        actor_name="alice",
        action="instance.create",
        target_kind="instance",
        target_id="i" * 16,
        target_name="first",
        owner_id=ALICE.user_id,
        result="requested",
        address="192.0.2.9",
        request_id="request-1",
        detail={"image": "base", "ä": [1, None]},
    )


async def test_what_hutch_does_itself_has_no_person(database: Database) -> None:
    async with database.write() as session:
        await events.record(session, SYSTEM, rows.NOW, "node.lost", ("node", "n", "node1"))
    [event] = await _listed(database)
    assert (event.actor_id, event.actor_name, event.result) == (None, "hutch", "ok")


async def test_events_are_listed_newest_first_in_pages_and_by_who_and_what(
    database: Database,
) -> None:
    bob = Actor("b" * 16, "bob", Role.MEMBER)
    async with database.write() as session:
        for actor, action, name in (
            (ALICE, "instance.create", "1"),
            (bob, "instance.stop", "2"),
            (ALICE, "key.add", "3"),
            (bob, "instance_x.stop", "4"),
        ):
            # The same moment: the order is that in which they were written.
            await events.record(session, actor, rows.NOW, action, ("thing", name, name))
    names = [event.target_name for event in await _listed(database)]
    assert names == ["4", "3", "2", "1"]
    first = await _listed(database, 2)
    rest = await _listed(database, 2, before=first[-1].id)
    assert [event.target_name for event in [*first, *rest]] == names
    assert [e.target_name for e in await _listed(database, actor="alice")] == ["3", "1"]
    assert [e.target_name for e in await _listed(database, action="instance.")] == ["2", "1"]
    assert [e.target_name for e in await _listed(database, action="instance_")] == ["4"]
    assert await _listed(database, action="%") == []
    assert [e.target_name for e in await _listed(database, target_id="3")] == ["3"]


async def test_old_events_are_swept_and_numbers_are_never_used_again(database: Database) -> None:
    async with database.write() as session:
        for days in (3, 2, 1):
            await events.record(session, ALICE, rows.NOW - timedelta(days=days), "x.y", TARGET)
    newest = (await _listed(database))[0].id
    async with database.write() as session:
        assert await events.delete_before(session, rows.NOW - timedelta(days=2)) == 1
        assert await events.delete_before(session, rows.NOW) == 2
        await events.record(session, ALICE, rows.NOW, "x.y", TARGET)
    assert (await _listed(database))[0].id > newest
