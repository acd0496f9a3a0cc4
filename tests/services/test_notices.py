"""What people are told: their own notices alone, and text that no terminal obeys."""

import pytest

from hutch.domain.ids import new_id
from hutch.domain.leases import Notice
from hutch.domain.people import Actor
from hutch.errors import NotFoundError
from hutch.services import notices
from hutch.services.context import Context
from hutch.store import notices as rows
from tests.lab import Clock


async def add(context: Context, person: Actor, text: str = "Soon it ends.") -> Notice:
    notice = Notice(
        new_id(), person.user_id, "instance", "lease", "lease.warned", text, context.now(), None,
        None,
    )  # fmt: skip
    async with context.db.write() as session:
        await rows.add_notice(session, notice)
    return notice


async def test_everyone_reads_their_own_newest_first(
    context: Context, alice: Actor, bob: Actor, clock: Clock
) -> None:
    clock.stop()
    first = await add(context, alice, "one")
    clock.forward(seconds=1)
    second = await add(context, alice, "two")
    await add(context, bob, "three")
    assert await notices.list_all(context, alice) == [second, first]
    assert await notices.list_all(context, alice, limit=1) == [second]


async def test_what_was_read_is_known(context: Context, alice: Actor, clock: Clock) -> None:
    clock.stop()
    first, second = await add(context, alice, "one"), await add(context, alice, "two")
    assert await notices.mark_read(context, alice, [first.id]) == 1
    assert await notices.mark_read(context, alice, [first.id]) == 0
    assert await notices.list_all(context, alice, unread=True) == [second]
    assert await notices.mark_read(context, alice) == 1
    assert {each.read_at for each in await notices.list_all(context, alice)} == {clock()}


async def test_somebody_elses_is_not_there(context: Context, alice: Actor, bob: Actor) -> None:
    notice = await add(context, alice)
    for notice_id in (notice.id, "nothing"):
        with pytest.raises(NotFoundError):
            await notices.mark_read(context, bob, [notice_id])
    assert len(await notices.list_all(context, alice, unread=True)) == 1


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("python (4242) uses it", "python (4242) uses it"),
        ("\x1b]0;title\x07\x1b[2Jgone", "]0;title [2Jgone"),
        ("two\r\nlines", "two lines"),
        ("\u202eturned\u2028round\x00", "turned round"),
        ("für Ärzte", "für Ärzte"),
    ],
)
def test_a_text_holds_nothing_that_a_terminal_obeys(written: str, shown: str) -> None:
    assert notices.printable(written) == shown
