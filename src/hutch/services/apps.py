"""Apps: web applications that listen at ports of instances, opened in a browser."""

from dataclasses import dataclass, replace

from hutch.domain.apps import AppName, host_name, path_of
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.nodes import Node
from hutch.domain.people import Actor, Scope
from hutch.domain.permissions import Action, can
from hutch.domain.ports import LOOPBACK, OpenTo, Port, PortState, Protocol, Reach
from hutch.domain.shares import Share
from hutch.engine.base import Engine
from hutch.errors import NotFoundError, UntrustedAppError, WrongStateError
from hutch.services.access import named, require, share_of
from hutch.services.context import Context
from hutch.settings import Settings
from hutch.store import containers, events, instances, nodes, ports, shares, trusts, users
from hutch.store.db import Session


@dataclass(frozen=True, slots=True)
class Opening:
    """An app that somebody may open now."""

    actor: Actor
    instance: Instance
    port: Port
    host: str
    """Where it is reached from here; inside itself when it is reached through the engine."""
    host_port: int
    engine: Engine | None = None
    """What carries connections into it, when nothing that is reached from here listens for it."""
    container: str = ""

    @property
    def is_own(self) -> bool:
        return self.instance.owner_id == self.actor.user_id


async def open_app(
    context: Context, actor: Actor, name: AppName, *, only_trusted: bool = False
) -> Opening:
    """Find an app that the actor may open, and where it is reached.

    The owner may, whom they let log in, and whom they opened the port to; to everyone else there
    is none. Raises UntrustedAppError with `only_trusted`, unless it is one's own or one has said
    that one trusts its owner.
    """
    async with context.db.read() as session:
        instance, port = await _find(session, actor, name)
        if only_trusted and not await _is_trusted(session, actor, instance):
            raise UntrustedAppError(instance.owner_name)
        if instance.state is not InstanceState.RUNNING or port.state is not PortState.OPEN:
            raise WrongStateError(
                f"{instance.name} is {instance.state}.",
                hint=f"`hutch start {instance.name}` starts it, if it is stopped.",
                state=instance.state,
            )
        node = await nodes.get_node(session, instance.node_id)
        container = await containers.current(session, instance.id)
    if node is None or container is None:
        raise NotFoundError("app", f"{name.ref}/{name.port}")
    place = _place(node, container.address, port)
    if place is None:
        engine = context.engines.of(node)
        return Opening(
            actor, instance, port, LOOPBACK, port.target_port, engine, container.engine_name
        )
    return Opening(actor, instance, port, *place)


async def _find(session: Session, actor: Actor, name: AppName) -> tuple[Instance, Port]:
    """Raises NotFoundError for what is not there, and for what the actor may not open."""
    ref, dot, owner = name.ref.partition(".")
    instance = await named(session, actor, f"{owner}/{ref}" if dot else ref)
    if instance is not None:
        share = await share_of(session, actor, instance)
        for port in await ports.list_ports(session, instance.id):
            leads = (port.protocol, port.target_port) == (Protocol.TCP, name.port)
            if leads and port.name != instances.SSH and _may(actor, instance, share, port):
                return instance, port
    raise NotFoundError(
        "app", f"{name.ref}/{name.port}",
        hint="`hutch app list` shows those that you may open; `hutch port add` makes one.",
    )  # fmt: skip


def _may(actor: Actor, instance: Instance, share: Share | None, port: Port) -> bool:
    # Whoever opens an app may well run programs with it: no token does that which only reads.
    if actor.scope is Scope.READ:
        return False
    if can(actor, Action.APP_READ, instance.owner_id, share):
        return True
    return port.open_to is OpenTo.EVERYONE or actor.name in port.people


async def _is_trusted(session: Session, actor: Actor, instance: Instance) -> bool:
    return instance.owner_id == actor.user_id or await trusts.exists(
        session, actor.user_id, instance.owner_id
    )


def _place(node: Node, address: str, port: Port) -> tuple[str, int] | None:
    """Where a port is reached from here: directly on this machine, by its forward elsewhere.

    None when nothing listens for it, or only where another machine alone gets.
    """
    is_here = node.url.startswith(("unix:", "file:"))
    if port.host_port is None or (port.reach is Reach.NODE and not is_here):
        return None
    if port.reach is Reach.NODE:
        return LOOPBACK, port.host_port
    return (address, port.target_port) if is_here else (node.address, port.host_port)


async def still_open(context: Context, opening: Opening, *, only_trusted: bool = False) -> None:
    """Raise unless the actor may still open it, at the same place."""
    name = AppName(opening.instance.id, opening.port.target_port, "")
    again = await open_app(context, opening.actor, name, only_trusted=only_trusted)
    if (again.instance.id, again.host, again.host_port) != (
        opening.instance.id, opening.host, opening.host_port,
    ):  # fmt: skip
        raise NotFoundError("app", f"{name.ref}/{name.port}")


async def trust(context: Context, actor: Actor, owner: str) -> None:
    """Say that one opens another's apps at hutch's own address, knowing what that means."""
    require(actor, Action.APP_READ)
    async with context.db.write() as session:
        user = await users.find_user(session, owner, context.settings.default_quota)
        if user is None:
            raise NotFoundError("user", owner)
        await trusts.add(session, actor.user_id, user.id, context.now())
        await events.record(
            session, actor, context.now(), "app.trust", ("user", user.id, user.name),
            owner_id=actor.user_id,
        )  # fmt: skip


async def list_all(context: Context, actor: Actor) -> list[tuple[Instance, Port]]:
    """Every app that the actor may open: one's own first, then by owner and instance."""
    require(actor, Action.APP_READ)
    async with context.db.read() as session:
        received = await shares.received(session, actor.user_id, context.now())
        open_to_me = {port.id: port for port in await ports.open_to(session, actor.user_id)}
        found = await instances.list_instances(
            session,
            owner_id=actor.user_id,
            also={*received, *(port.instance_id for port in open_to_me.values())},
        )
        leading = await ports.of_instances(session, [each.id for each in found])
    return [
        (replace(instance, share=received.get(instance.id)), port)
        for instance in sorted(found, key=lambda each: each.owner_id != actor.user_id)
        for port in leading.get(instance.id, ())
        if port.protocol is Protocol.TCP
        and port.name != instances.SSH
        and (
            port.id in open_to_me
            or can(actor, Action.APP_READ, instance.owner_id, received.get(instance.id))
        )
    ]


def url_of(settings: Settings, actor: Actor, instance: Instance, port: Port) -> str:
    """Where an app is opened: an address, or a path below hutch's own where that is not known."""
    is_own = instance.owner_id == actor.user_id
    if not settings.apps_domain:
        path = path_of(instance.name, instance.owner_name, port.target_port, is_own=is_own)
        return settings.public_url + path
    host = host_name(
        instance.name, instance.id, port.target_port, settings.apps_domain, is_own=is_own
    )
    scheme, _, rest = settings.public_url.partition("://")
    # The port of the address that people use, if it is none of the usual ones.
    _, colon, number = rest.rpartition(":")
    suffix = f":{number}" if colon and number.isdecimal() else ""
    return f"{scheme}://{host}{suffix}/"
