"""What people see of leases.

Everyone sees who holds an accelerator and until when, and who waits for how many. What a lease is
otherwise - the machine, what is announced, what it was based on - is for who has it, the manager of
its group, and administrators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hutch.domain.accelerators import Accelerator
from hutch.domain.leases import Lease
from hutch.domain.people import Actor
from hutch.domain.permissions import Action, can
from hutch.services.context import Context
from hutch.store import accelerators, leases


def sees(actor: Actor, lease: Lease) -> bool:
    """Whether the actor may know all about a lease."""
    if actor.manages is not None and lease.group_id == actor.manages:
        return True
    return can(actor, Action.LEASE_READ, lease.owner_id)


def seen_by(actor: Actor, lease: Lease) -> Lease:
    """The lease as the actor may know it."""
    if sees(actor, lease):
        return lease
    return replace(
        lease,
        instance_id="",
        instance_name="",
        group_id=None,
        group_name=None,
        announcement=None,
        evidence=None,
        error=None,
    )


@dataclass(frozen=True, slots=True)
class Named:
    """A lease, with what its ids stand for."""

    lease: Lease
    accelerators: tuple[Accelerator, ...]
    """What it holds, or held."""
    ahead: tuple[Lease, ...]
    """Who is before it in the line."""
    held_by: tuple[Lease, ...]
    """Whose accelerators it waits for, the first to end first."""


async def named(context: Context, actor: Actor, found: Sequence[Lease]) -> list[Named]:
    """The leases with what they refer to, as the actor may know it."""
    others = {each for lease in found for key in ("ahead", "held_by") for each in _of(lease, key)}
    devices = {each for lease in found for each in lease.accelerators}
    known: dict[str, Lease] = {}
    held: list[Accelerator] = []
    async with context.db.read() as session:
        if others:
            known = {each.id: each for each in await leases.get_leases(session, others)}
        if devices:
            held = await accelerators.get_accelerators(session, devices)
    return [
        Named(
            lease=seen_by(actor, lease),
            accelerators=tuple(each for each in held if each.id in lease.accelerators),
            ahead=_known(actor, known, _of(lease, "ahead")),
            held_by=_known(actor, known, _of(lease, "held_by")),
        )
        for lease in found
    ]


def _of(lease: Lease, key: str) -> list[str]:
    return (lease.explanation or {}).get(key, [])


def _known(actor: Actor, known: Mapping[str, Lease], ids: Sequence[str]) -> tuple[Lease, ...]:
    """Those that are still there: the explanation is as old as the last pass."""
    return tuple(seen_by(actor, known[each]) for each in ids if each in known)
