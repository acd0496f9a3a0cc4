"""Ports: what people lead to ports of their instances."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hutch.domain import names
from hutch.domain.durations import parse_duration
from hutch.domain.ids import new_id
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.operations import Kind, Operation
from hutch.domain.people import SYSTEM, Actor
from hutch.domain.permissions import Action
from hutch.domain.ports import (
    OpenTo,
    Port,
    PortState,
    Protocol,
    Reach,
    check_target,
    claim_port,
    pick_port,
)
from hutch.errors import (
    BusyError,
    ConflictError,
    InvalidInputError,
    NameTakenError,
    NotFoundError,
    QuotaExceededError,
    WrongStateError,
)
from hutch.services.access import find_instance, require, visible_instances
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.services.listening import listening_ports
from hutch.services.operations import enqueue
from hutch.store import events, instances, nodes, ports, users
from hutch.store.db import Session

AGAIN = timedelta(seconds=1)
"""How soon a port whose time is over is tried again, when its instance is busy."""
_AT_REST = frozenset({InstanceState.RUNNING, InstanceState.STOPPED})
_EVERYONE, _ME = "everyone", "me"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for. None leaves it to hutch."""

    target_port: int
    host_port: int | None = None
    protocol: Protocol = Protocol.TCP
    name: str | None = None
    span: str | None = None
    """How long it is to be open, such as `8h`."""
    reach: Reach = Reach.NETWORK
    open_to: Sequence[str] = (_ME,)
    """`me`, `everyone`, or people's names."""
    keeps_path: bool = False
    """What listens there is told the whole path in a browser."""


async def add(
    context: Context, actor: Actor, ref: str, wish: Wish
) -> tuple[Instance, Port, Operation]:
    """Grant a port, and begin to lead it to an instance."""
    check_target(wish.target_port)
    _check_reach(wish)
    until = None if wish.span is None else context.now() + parse_duration(wish.span)
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.PORT_WRITE, ref)
        await users.lock_user(session, instance.owner_id)
        if instance.state not in _AT_REST:
            raise WrongStateError(
                f"{instance.name} is {instance.state}.",
                hint="A port can be led to an instance that is running or stopped.",
                state=instance.state,
            )
        await _check_quota(session, context, instance)
        port = Port(
            id=new_id(),
            instance_id=instance.id,
            name=await _free_name(session, instance, wish),
            protocol=wish.protocol,
            host_port=await _host_port(session, context, instance, wish),
            target_port=wish.target_port,
            state=PortState.OPENING,
            reach=wish.reach,
            open_to=_open_to(wish.open_to),
            people=(),
            keeps_path=wish.keeps_path,
            until=until,
            created_at=context.now(),
        )
        await ports.add_port(session, port)
        port = await _open_up(session, context, instance, port, wish.open_to)
        operation = await _begin(session, context, actor, instance, port, Kind.PORT_ADD)
    context.hints.work.set()
    return instance, port, operation


def _check_reach(wish: Wish) -> None:
    """Raises InvalidInputError for what a browser could not open."""
    if wish.reach is not Reach.WEB:
        return
    if wish.protocol is not Protocol.TCP:
        raise InvalidInputError(
            "A port for the browser alone is a TCP port.", hint="Leave the protocol out."
        )
    if wish.host_port is not None:
        raise InvalidInputError(
            "A port for the browser alone has no port of the node.",
            hint="Leave the host port out, or ask for a local one.",
        )


async def _check_quota(session: Session, context: Context, instance: Instance) -> None:
    allowed = context.settings.quota_ports
    held = await ports.count_of_owner(session, instance.owner_id)
    if held >= allowed:
        raise QuotaExceededError(
            "ports", str(allowed), str(held), "1",
            hint="Remove one that is no longer used: `hutch port list` shows them.",
        )  # fmt: skip


async def _free_name(session: Session, instance: Instance, wish: Wish) -> str:
    """The name for a port; what leads to the same place already is refused."""
    known = await ports.list_ports(session, instance.id)
    for each in known:
        if (each.protocol, each.target_port) == (wish.protocol, wish.target_port):
            if each.name == instances.SSH:
                raise ConflictError(
                    f"Host port {each.host_port} leads to {instance.name}'s SSH server already.",
                    hint=f"`hutch ssh {instance.name}` logs in there; `hutch show` tells the port.",
                    port=each.host_port,
                )
            what = "A port" if each.host_port is None else f"Host port {each.host_port}"
            raise ConflictError(
                f"{what} leads to {wish.protocol} port {wish.target_port} of {instance.name} "
                "already.",
                hint=f"It is called {each.name}: `hutch port list` shows it.",
                port=each.host_port,
            )
    taken = {each.name for each in known}
    if wish.name is not None:
        names.port_name(wish.name)
        if wish.name in taken:
            raise NameTakenError("a port called", wish.name)
        return wish.name
    usual = f"{wish.protocol}-{wish.target_port}"
    # Somebody may have called another one so.
    return next(
        name for name in (usual, *(f"{usual}-{n}" for n in range(2, 100))) if name not in taken
    )


async def _host_port(
    session: Session, context: Context, instance: Instance, wish: Wish
) -> int | None:
    if wish.reach is Reach.WEB:
        return None
    node = await nodes.get_node(session, instance.node_id)
    if node is None:
        raise NotFoundError("node", instance.node_name)
    taken = await ports.taken_ports(session, wish.protocol)
    # What a program of the node listens at would silently be taken away from it.
    taken |= listening_ports(node, wish.protocol)
    first, last = context.settings.port_first, context.settings.port_last
    if wish.host_port is None:
        return pick_port(first, last, taken)
    return claim_port(wish.host_port, first, last, taken)


def _open_to(whom: Sequence[str]) -> OpenTo:
    """Raises InvalidInputError when `whom` is nobody, or several things at once."""
    words = {_ME: OpenTo.OWNER, _EVERYONE: OpenTo.EVERYONE}
    special = [words[each] for each in whom if each in words]
    if not whom or (special and len(whom) > 1):
        raise InvalidInputError(
            f"A port is open to {_ME!r}, to {_EVERYONE!r}, or to people by their names.",
            hint="Give one of these.",
        )
    return special[0] if special else OpenTo.PEOPLE


async def _open_up(
    session: Session, context: Context, instance: Instance, port: Port, whom: Sequence[str]
) -> Port:
    """Write down to whom a port is open. Raises NotFoundError for a name that nobody has."""
    open_to = _open_to(whom)
    people: dict[str, str] = {}
    for name in whom if open_to is OpenTo.PEOPLE else ():
        user = await users.find_user(session, name, context.settings.default_quota)
        if user is None:
            raise NotFoundError("user", name)
        if user.id != instance.owner_id:
            people[name] = user.id
    await ports.update_port(session, port.id, open_to=open_to.value)
    await ports.set_people(session, port.id, people.values())
    return replace(port, open_to=open_to, people=tuple(sorted(people)))


async def configure(
    context: Context,
    actor: Actor,
    ref: str,
    which: str,
    *,
    open_to: Sequence[str] | None = None,
    keeps_path: bool | None = None,
    span: str | None = None,
) -> tuple[Instance, Port]:
    """Change how and to whom a port is open in a browser, or until when; what is None stays."""
    until = None if span is None else context.now() + parse_duration(span)
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.PORT_WRITE, ref)
        port = await _find(session, instance, which)
        if open_to is not None:
            port = await _open_up(session, context, instance, port, open_to)
        if keeps_path is not None:
            await ports.update_port(session, port.id, keeps_path=keeps_path)
            port = replace(port, keeps_path=keeps_path)
        if until is not None:
            await ports.update_port(session, port.id, until=until)
            port = replace(port, until=until)
        await _record(session, context, actor, instance, port, "configure")
    context.hints.reconcile.set()
    return instance, port


async def remove(context: Context, actor: Actor, ref: str, which: str) -> Operation:
    """Begin to take a port away; a host port is free when nothing leads there any more."""
    async with context.db.write() as session:
        instance = await find_instance(session, actor, Action.PORT_WRITE, ref)
        port = await _find(session, instance, which)
        operation = await _begin_removal(session, context, actor, instance, port)
    context.hints.work.set()
    return operation


async def list_all(context: Context, actor: Actor, ref: str) -> tuple[Instance, list[Port]]:
    """An instance's ports, without that of SSH."""
    async with context.db.read() as session:
        instance = await find_instance(session, actor, Action.PORT_READ, ref)
        found = await ports.list_ports(session, instance.id)
    return instance, [port for port in found if port.name != instances.SSH]


async def list_own(
    context: Context, actor: Actor, *, everyone: bool = False
) -> list[tuple[Instance, Port]]:
    """The ports of one's own instances and of those that others share; or everyone's."""
    require(actor, Action.PORT_READ)
    async with context.db.read() as session:
        mine = await visible_instances(session, actor, everyone=everyone, owner=None)
        found = await ports.of_instances(session, [each.id for each in mine])
    return [
        (instance, port)
        for instance in mine
        for port in found.get(instance.id, ())
        if port.name != instances.SSH
    ]


async def end_due(context: Context) -> datetime | None:
    """Begin to take away the ports whose time is over. Answers when to look again."""
    now = context.now()
    async with context.db.read() as session:
        over = await ports.due(session, now)
        following = await ports.next_end(session)
    busy = False
    for port in over:
        async with context.db.write() as session:
            instance = await instances.get_instance(session, port.instance_id)
            known = await ports.get_port(session, port.id)
            if instance is None or known is None or known.until is None or known.until > now:
                continue
            try:
                await _begin_removal(session, context, SYSTEM, instance, known)
            except BusyError:
                busy = True
    if over:
        context.hints.work.set()
        return now + AGAIN if busy else await _next_end(context)
    return following


async def _next_end(context: Context) -> datetime | None:
    async with context.db.read() as session:
        return await ports.next_end(session)


async def _find(session: Session, instance: Instance, which: str) -> Port:
    """The port of a name, or that leads to a port of that number (`8888`, `53/udp`)."""
    known = [
        port for port in await ports.list_ports(session, instance.id) if port.name != instances.SSH
    ]
    number = re.fullmatch(r"([0-9]{1,5})(?:/(tcp|udp))?", which, re.ASCII)
    found = [
        port
        for port in known
        if port.name == which
        or (
            number is not None
            and port.target_port == int(number[1])
            and number[2] in {None, port.protocol.value}
        )
    ]
    if not found:
        raise NotFoundError(
            "port", which, hint=f"`hutch port list {instance.name}` shows what there is."
        )
    if len(found) > 1:
        raise ConflictError(
            f"{which} is both a tcp and a udp port of {instance.name}.",
            hint=f"Say which: {which}/tcp or {which}/udp.",
        )
    return found[0]


async def _begin_removal(
    session: Session, context: Context, actor: Actor, instance: Instance, port: Port
) -> Operation:
    operation = await _begin(session, context, actor, instance, port, Kind.PORT_REMOVE)
    await ports.update_port(session, port.id, state=PortState.CLOSING.value)
    return operation


async def _begin(
    session: Session, context: Context, actor: Actor, instance: Instance, port: Port, kind: Kind
) -> Operation:
    operation = await enqueue(
        session,
        context,
        actor,
        kind,
        # The instance's, so that nothing else moves its ports meanwhile.
        target(instance.id),
        owner_id=instance.owner_id,
        label=instance.name,
        params={"instance": instance.id, "port": port.id},
    )
    await _record(session, context, actor, instance, port, kind.value.partition("_")[2], operation)
    return operation


async def _record(
    session: Session,
    context: Context,
    actor: Actor,
    instance: Instance,
    port: Port,
    verb: str,
    operation: Operation | None = None,
) -> None:
    await events.record(
        session, actor, context.now(), f"port.{verb}", ("instance", instance.id, instance.name),
        owner_id=instance.owner_id,
        result="ok" if operation is None else "requested",
        operation=operation and operation.id,
        port=port.target_port, protocol=port.protocol.value, host_port=port.host_port,
        reach=port.reach.value, open_to=port.open_to.value, people=list(port.people),
        keeps_path=port.keeps_path, until=port.until and port.until.isoformat(),
    )  # fmt: skip
