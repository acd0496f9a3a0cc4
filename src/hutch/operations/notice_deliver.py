"""A notice, brought to where the person sees it: on their terminals, and at their next login.

| step    | does                                                    | undo |
|---------|---------------------------------------------------------|------|
| deliver | writes it inside, if the instance runs                  |      |

Only a notice that has arrived is marked as delivered, and an announced reclaim is put off by as
long as that took. What did not arrive, because the machine did not run or could not be written to,
is brought later by the reconciler of leases.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from hutch.domain.instances import InstanceState
from hutch.domain.leases import EndReason, Notice
from hutch.domain.operations import Kind
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.operations.provision import put_notice
from hutch.services import scheduling
from hutch.store import instances, leases, notices
from hutch.store.db import Session

KEPT = 5
"""So many of the latest that were not read are shown at a login."""
_WIDTH = 76
_RECLAIMED = frozenset({EndReason.IDLE, EndReason.PREEMPTED})


def on_terminals(notice: Notice) -> bytes:
    """The notice between two lines of its own, with a bell: a full-screen program may be there."""
    lines = ["", "hutch:", *_wrapped(notice.text), ""]
    return ("\a" + "\r\n".join(lines) + "\r\n").encode()


def at_login(latest: Sequence[Notice]) -> bytes:
    """What a login shows, the latest last; nothing when there is nothing to say."""
    lines: list[str] = []
    for notice in reversed(latest):
        lines += [f"hutch, {notice.created_at:%Y-%m-%d %H:%M} UTC:", *_wrapped(notice.text), ""]
    return "\n".join(lines).encode()


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


async def _deliver(work: Work) -> None:
    async with work.context.db.read() as session:
        notice = await notices.get_notice(session, work.params["notice"])
        instance = await instances.get_instance(session, work.params["instance"])
    if notice is None or instance is None or instance.state is not InstanceState.RUNNING:
        return
    it = await machine.load(work)
    async with work.context.db.read() as session:
        latest = await notices.list_notices(
            session, instance_id=instance.id, unread=True, limit=KEPT
        )
    await put_notice(
        it.engine,
        it.name,
        user=it.instance.owner_name,
        notice_id=notice.id,
        text=on_terminals(notice),
        login=at_login(latest),
    )
    await work.remember(delivered=True)


async def _done(session: Session, work: Work) -> None:
    now = work.context.now()
    notice = await notices.get_notice(session, work.params["notice"])
    if notice is None or not work.data.get("delivered"):
        return
    if await notices.set_delivered(session, notice.id, now) and notice.lease_id is not None:
        await _put_off(session, notice.lease_id, notice.id, now)


async def _put_off(session: Session, lease_id: str, notice_id: str, now: datetime) -> None:
    """Leave the holder of a lease the whole time that was announced, from now on."""
    lease = await leases.get_lease(session, lease_id)
    told = None if lease is None else lease.announcement
    if told is None or told.notice_id != notice_id or told.reason not in _RECLAIMED:
        return
    due = max(told.due, now + (told.due - told.at))
    await leases.set_announcement(session, lease_id, replace(told, due=due))


DELIVER = Procedure(
    Kind.NOTICE_DELIVER,
    (Step("deliver", "Telling the person", _deliver),),
    done=_done,
    after=scheduling.poke,
)
