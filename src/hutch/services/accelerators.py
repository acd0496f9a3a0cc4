"""Accelerators, as nodes find them, administrators rule over them and everyone sees them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from hutch.domain.accelerators import Accelerator, FoundAccelerator, Health, Reading
from hutch.domain.ids import new_id
from hutch.domain.inventory import Inventory, compare, is_better, is_worse
from hutch.domain.leases import Lease, LeaseState
from hutch.domain.nodes import Node
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.permissions import Action
from hutch.errors import ConflictError, InvalidInputError, NotFoundError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.sight import sees
from hutch.store import accelerators, containers, events, instances, leases, nodes
from hutch.store.db import Session

MOST_SHARERS = 64
LONGEST_REASON = 200


async def list_all(
    context: Context, actor: Actor
) -> list[tuple[Accelerator, Reading | None, list[Lease]]]:
    """Every accelerator, what it was last seen doing, and the leases that hold it.

    In a reading, processes are those of instances that the actor may see, and their `container` is
    the instance's name (`owner/name` for another person's): what others run is nobody's business.
    """
    require(actor, Action.ACCELERATOR_READ)
    async with context.db.read() as session:
        everything = await accelerators.list_accelerators(session)
        readings = await accelerators.list_readings(session)
        live = await leases.list_live(session)
        others = {
            each.instance_id
            for each in live
            if each.owner_id != actor.user_id and sees(actor, each)
        }
        names = await _names_of_containers(session, actor, others)
    holders: dict[str, list[Lease]] = {}
    for lease in live:
        if lease.state is not LeaseState.QUEUED:
            for accelerator_id in lease.accelerators:
                holders.setdefault(accelerator_id, []).append(lease)
    return [
        (each, _seen_by_people(readings.get(each.id), names), holders.get(each.id, []))
        for each in everything
    ]


async def _names_of_containers(
    session: Session, actor: Actor, others: Collection[str]
) -> dict[str, str]:
    """What the actor calls the instances whose processes they may see, by the engine's name:
    their own, all for administrators, and those with these ids."""
    owner_id = None if actor.is_admin or others else actor.user_id
    shown = {
        each.id: each.name
        if each.owner_id == actor.user_id and not actor.is_admin
        else f"{each.owner_name}/{each.name}"
        for each in await instances.list_instances(session, owner_id=owner_id)
        if actor.is_admin or each.owner_id == actor.user_id or each.id in others
    }
    return {
        each.engine_name: shown[each.instance_id]
        for each in await containers.list_containers(session)
        if each.instance_id in shown
    }


def _seen_by_people(reading: Reading | None, names: dict[str, str]) -> Reading | None:
    if reading is None:
        return None
    processes = (
        replace(each, container=names[each.container])
        for each in reading.processes
        if each.container in names
    )
    return replace(reading, processes=tuple(processes))


async def withdraw(context: Context, actor: Actor, ref: str, reason: str) -> Accelerator:
    """Take an accelerator out of service: who holds it keeps it, nobody else gets it."""
    require(actor, Action.ACCELERATOR_WRITE)
    if not reason.strip() or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise InvalidInputError(
            "Say why, in one line.", hint=f"Give 1 to {LONGEST_REASON} characters.", field="reason"
        )
    return await _change(context, actor, ref, "withdraw", withdrawn=reason.strip())


async def restore(context: Context, actor: Actor, ref: str) -> Accelerator:
    """Bring an accelerator back into service."""
    require(actor, Action.ACCELERATOR_WRITE)
    return await _change(context, actor, ref, "restore", withdrawn=None)


async def share(context: Context, actor: Actor, ref: str, sharers: int) -> Accelerator:
    """Let so many leases hold an accelerator at once; 1 is exclusive.

    Raises ConflictError while anybody holds it.
    """
    require(actor, Action.ACCELERATOR_WRITE)
    if not 1 <= sharers <= MOST_SHARERS:
        raise InvalidInputError(
            f"An accelerator cannot have {sharers} sharers.",
            hint=f"Give 1 (exclusive) to {MOST_SHARERS}.",
            field="sharers",
        )
    return await _change(context, actor, ref, "share", sharers=sharers)


async def _change(
    context: Context, actor: Actor, ref: str, verb: str, **values: Any
) -> Accelerator:
    async with context.db.write() as session:
        await leases.lock_leases(session)
        known = await find(session, ref)
        if all(getattr(known, name) == value for name, value in values.items()):
            return known
        if "sharers" in values:
            await _refuse_while_held(session, known)
        await accelerators.update_accelerator(session, known.id, **values)
        await events.record(
            session, actor, context.now(), f"accelerator.{verb}", target(known),
            node=known.node_name, **values,
        )  # fmt: skip
        changed = await accelerators.get_accelerator(session, known.id)
    context.hints.reconcile.set()
    return changed or known


async def _refuse_while_held(session: Session, known: Accelerator) -> None:
    held = await accelerators.list_holders(session, known.node_id)
    holders = sorted({each.owner_name for each in held if each.accelerator_id == known.id})
    if holders:
        raise ConflictError(
            f"Accelerator {known.found.address} of node {known.node_name} is held by"
            f" {', '.join(holders)}.",
            hint="Take it out of service, wait until it is released, then change it.",
            holders=holders,
        )


async def find(session: Session, ref: str) -> Accelerator:
    """The accelerator with this id, `node/address`, or address if one node alone has it.

    Raises NotFoundError, and InvalidInputError when several nodes have that address.
    """
    known = await accelerators.get_accelerator(session, ref)
    if known is not None:
        return known
    node, slash, address = ref.partition("/")
    found = await accelerators.find_accelerators(session, address if slash else ref)
    if slash:
        found = [each for each in found if each.node_name == node]
    if not found:
        raise NotFoundError("accelerator", ref, hint="`hutch gpu list` shows what there is.")
    if len(found) > 1:
        names = ", ".join(f"{each.node_name}/{each.found.address}" for each in found)
        raise InvalidInputError(
            f"Several nodes have an accelerator {ref[:80]!r}.", hint=f"Say which: {names}."
        )
    return found[0]


def target(known: Accelerator) -> tuple[str, str, str]:
    """How events name an accelerator."""
    return "accelerator", known.id, f"{known.node_name}/{known.found.address}"


async def record_hello(
    context: Context,
    node: Node,
    found: Sequence[FoundAccelerator],
    *,
    version: str,
    has_nvidia_driver: bool,
) -> str:
    """An agent signed in: what its node has. The id of its connection, the only one that counts."""
    connection = new_id()
    now = context.now()
    async with context.db.write() as session:
        await leases.lock_leases(session)
        await nodes.update_node(
            session,
            node.id,
            agent_connection=connection,
            agent_version=version,
            has_nvidia_driver=has_nvidia_driver,
        )
        touched = await nodes.touch_agent(session, node.id, connection, now)
        changed = await _take_stock(session, context, node, found)
        returned = touched is not None and await note_return(session, context, touched)
    if changed or returned:
        context.hints.reconcile.set()
    return connection


async def record_found(
    context: Context, node: Node, connection: str, found: Sequence[FoundAccelerator]
) -> bool:
    """What a node has now; False when the connection no longer counts, and nothing is kept."""
    async with context.db.write() as session:
        await leases.lock_leases(session)
        if await nodes.touch_agent(session, node.id, connection, context.now()) is None:
            return False
        changed = await _take_stock(session, context, node, found)
    if changed:
        context.hints.reconcile.set()
    return True


async def note_return(session: Session, context: Context, node: Node) -> bool:
    """Record that an agent which had been silent speaks again; whether it had been."""
    if node.agent_silent_since is None:
        return False
    now = context.now()
    silent = max(0, round((now - node.agent_silent_since).total_seconds()))
    await nodes.update_node(session, node.id, agent_silent_since=None)
    await events.record(
        session, SYSTEM, now, "node.agent_returned", ("node", node.id, node.name),
        silent_seconds=silent,
    )  # fmt: skip
    return True


async def _take_stock(
    session: Session, context: Context, node: Node, found: Sequence[FoundAccelerator]
) -> bool:
    """Write down what a node has; whether anything changed. Changes of leases take turns."""
    known = await accelerators.list_accelerators(session, node_id=node.id)
    held = {each.accelerator_id for each in await accelerators.list_holders(session, node.id)}
    news = compare(known, found, held)
    now = context.now()
    for each in _without_address(news):
        await accelerators.free_address(session, each.id)
    changed = False
    for each, seen in news.same:
        if each.found != seen:
            changed = True
            await accelerators.update_found(session, each.id, seen, now)
            await note_health(session, each, seen.health, seen.reason, now)
    for each, reason in news.missing:
        if (each.found.health, each.found.reason) != (Health.MISSING, reason):
            changed = True
            lost = {"health": Health.MISSING.value, "reason": reason, "reading": None}
            await accelerators.update_accelerator(session, each.id, **lost)
            await note_health(session, each, Health.MISSING, reason, now)
    for each, seen in news.replaced:
        await accelerators.update_found(session, each.id, seen, now)
        await events.record(
            session, SYSTEM, now, "accelerator.replaced", target(each),
            was=each.found.uuid, model_was=each.found.model, uuid=seen.uuid, model=seen.model,
        )  # fmt: skip
    for seen in news.new:
        new = await accelerators.add_accelerator(
            session, node.id, seen, now, sharers=context.settings.accelerator_sharers
        )
        await events.record(
            session, SYSTEM, now, "accelerator.found",
            ("accelerator", new, f"{node.name}/{seen.address}"), model=seen.model, uuid=seen.uuid,
        )  # fmt: skip
    return changed or bool(news.replaced or news.new)


def _without_address(news: Inventory) -> Iterable[Accelerator]:
    """Those that give up their address first, so that another one of the node can have it."""
    yield from news.displaced
    yield from (each for each, seen in news.same if each.found.address != seen.address)


async def note_health(
    session: Session, known: Accelerator, health: Health, reason: str, at: datetime
) -> None:
    """Record that an accelerator broke, or is well again; its row is the caller's to write."""
    if is_worse(known.found.health, health):
        await events.record(
            session, SYSTEM, at, "accelerator.failed", target(known), result="failed",
            health=health.value, reason=reason,
        )  # fmt: skip
    elif is_better(known.found.health, health):
        await events.record(session, SYSTEM, at, "accelerator.recovered", target(known))
