"""What people are told about their leases, before something happens to them and after.

A notice is a row and an operation that brings it before the person's eyes: on their terminals
inside the instance, and where the next login shows it. What is announced as an end is not carried
out before that has happened.
"""

from datetime import datetime, timedelta

from hutch.domain.ids import new_id
from hutch.domain.leases import Announcement, EndReason, Lease, Notice
from hutch.domain.people import SYSTEM, Actor
from hutch.services.context import Context
from hutch.services.notices import deliver, printable
from hutch.store import events, leases, notices
from hutch.store.db import Session

_WARNINGS = {
    EndReason.EXPIRED: "The lease of {what} ends at {due}. `hutch gpu extend` asks for more time.",
    EndReason.IDLE: "Nothing computes on {what}: {they} {go} back at {due}. Computing keeps "
    "{them}, and so does `hutch gpu extend`.",
    EndReason.PREEMPTED: "{what} {are} borrowed, and a group that is guaranteed {them} waits: "
    "{they} {go} back at {due}. Save your work by then.",
}
_ENDINGS = {
    EndReason.EXPIRED: "The time of {what} is up: {they} {go} back now.",
    EndReason.IDLE: "Nothing computed on {what}: {they} {go} back now.",
    EndReason.PREEMPTED: "{what} {go} back now to a group that is guaranteed {them}.",
    EndReason.NODE_LOST: "{what} {are} lost with the node.",
    EndReason.FAILED: "{what} could not be brought into the machine: {error}",
}
_GRANTED = "{what} {are} there now, until {due}."
_KEPT = "{what} may stay after all."
_ONE = {"they": "it", "them": "it", "go": "goes", "are": "is"}
_MANY = {"they": "they", "them": "them", "go": "go", "are": "are"}


async def tell(
    session: Session,
    context: Context,
    lease: Lease,
    kind: str,
    text: str,
) -> Notice:
    """Post a notice to a lease's owner, and have it delivered."""
    notice = Notice(
        id=new_id(),
        user_id=lease.owner_id,
        instance_id=lease.instance_id,
        lease_id=lease.id,
        kind=kind,
        text=printable(text),
        created_at=context.now(),
        delivered_at=None,
        read_at=None,
    )
    await notices.add_notice(session, notice)
    await deliver(session, context, notice, lease.instance_name)
    return notice


async def warn(
    session: Session, context: Context, lease: Lease, reason: EndReason, due: datetime
) -> Announcement:
    """Announce that a lease ends at `due` for that reason, in place of what was announced."""
    text = _say(_WARNINGS[reason], lease, due)
    notice = await tell(session, context, lease, "lease.warned", text)
    announcement = Announcement(reason, context.now(), due, notice.id)
    await leases.set_announcement(session, lease.id, announcement)
    await events.record(
        session,
        SYSTEM,
        announcement.at,
        "lease.warn",
        ("lease", lease.id, lease.instance_name),
        owner_id=lease.owner_id,
        reason=reason.value,
        due=due.isoformat(),
    )
    return announcement


async def withdraw(
    session: Session, context: Context, actor: Actor, lease: Lease, why: str
) -> None:
    """Take back what was announced: the lease goes on. Who has seen it is told that too."""
    told = lease.announcement
    if told is None:
        return
    await leases.set_announcement(session, lease.id, None)
    unseen = await notices.take_back(session, told.notice_id)
    if not unseen and told.reason is not EndReason.EXPIRED:
        await tell(session, context, lease, "lease.kept", _say(_KEPT, lease))
    await events.record(
        session,
        actor,
        context.now(),
        "lease.pardon",
        ("lease", lease.id, lease.instance_name),
        owner_id=lease.owner_id,
        reason=told.reason.value,
        why=why,
    )


async def tell_end(
    session: Session, context: Context, lease: Lease, reason: EndReason, error: str = ""
) -> None:
    """Say that a lease ends now; what its owner did themselves they know."""
    if reason in _ENDINGS:
        text = _say(_ENDINGS[reason], lease, error=error)
        await tell(session, context, lease, "lease.ended", text)


async def tell_grant(session: Session, context: Context, lease: Lease) -> None:
    """Say that the accelerators somebody has waited for are there."""
    await tell(session, context, lease, "lease.granted", _say(_GRANTED, lease, lease.expires_at))


def _say(text: str, lease: Lease, due: datetime | None = None, error: str = "") -> str:
    noun = "accelerator" if lease.count == 1 else "accelerators"
    said = text.format(
        what=f"your {lease.count} {noun} in {lease.instance_name}",
        due="" if due is None else f"{_to_minute(due):%Y-%m-%d %H:%M} UTC",
        error=error,
        **(_ONE if lease.count == 1 else _MANY),
    )
    return said[:1].upper() + said[1:]


def _to_minute(moment: datetime) -> datetime:
    """The whole minute before it: who trusts what is shown must not come too late."""
    return moment - timedelta(seconds=moment.second, microseconds=moment.microsecond)
