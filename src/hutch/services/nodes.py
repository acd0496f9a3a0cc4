"""Nodes, as administrators add them and everyone sees them."""

from contextlib import suppress

from hutch.domain import names
from hutch.domain.groups import IdleWish
from hutch.domain.ids import new_id
from hutch.domain.instances import InstanceState
from hutch.domain.nodes import Capacity, EngineKind, Node, NodeState
from hutch.domain.operations import Kind
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import BusyError, NotFoundError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.instances import target
from hutch.services.operations import enqueue
from hutch.services.vault import AGENT_PREFIX, digest, new_token
from hutch.store import events, instances, nodes
from hutch.store.db import Session


async def add(
    context: Context,
    actor: Actor,
    *,
    name: str,
    engine: EngineKind,
    url: str,
    address: str,
    subnet: str,
    project: str = "hutch",
    pool: str = "hutch",
    network: str = "hutchbr0",
) -> Node:
    """Add a node whose engine answers; its capacity is read from the engine.

    Raises EngineUnavailableError when it does not answer.
    """
    require(actor, Action.NODE_WRITE)
    names.instance_name(name)
    node = Node(
        id=new_id(),
        name=name,
        engine=engine,
        url=url,
        project=project,
        pool=pool,
        network=network,
        subnet=subnet,
        address=address,
        state=NodeState.ACTIVE,
        capacity=Capacity(0, 0, 0),
        disk_used=0,
        version="",
        boot_id="",
        seen_at=None,
        unreachable_since=None,
        created_at=context.now(),
    )
    status = await context.engines.of(node).status()
    async with context.db.write() as session:
        await nodes.add_node(session, node)
        await nodes.update_node(
            session,
            node.id,
            cpus=status.cpus,
            memory=status.memory,
            disk=status.disk,
            disk_used=status.disk_used,
            version=status.version,
            boot_id=status.boot_id,
            seen_at=context.now(),
        )
        await events.record(
            session, actor, context.now(), "node.add", ("node", node.id, name), url=url
        )
        added = await nodes.get_node(session, node.id)
    context.hints.reconcile.set()
    return added or node


async def list_all(context: Context, actor: Actor) -> list[tuple[Node, Capacity]]:
    """Every node, with what is promised on it."""
    require(actor, Action.NODE_READ)
    async with context.db.read() as session:
        promised = await nodes.promised(session)
        everything = await nodes.list_nodes(session)
    return [(node, promised.get(node.id, Capacity(0, 0, 0))) for node in everything]


async def set_state(context: Context, actor: Actor, name: str, state: NodeState) -> Node:
    """Cordon a node, so that it takes nothing new, or open it again."""
    require(actor, Action.NODE_WRITE)
    async with context.db.write() as session:
        node = await nodes.find_node(session, name)
        if node is None:
            raise NotFoundError("node", name)
        await nodes.update_node(session, node.id, state=state.value)
        await events.record(
            session, actor, context.now(), f"node.{state.value}", ("node", node.id, node.name)
        )
        return await nodes.get_node(session, node.id) or node


async def set_idle(context: Context, actor: Actor, name: str, idle: IdleWish | None) -> Node:
    """Say when idle accelerators of a node are taken back. None: as in the lab.

    The policy of a holder's group comes before it.
    """
    require(actor, Action.NODE_WRITE)
    async with context.db.write() as session:
        node = await nodes.find_node(session, name)
        if node is None:
            raise NotFoundError("node", name)
        policy = None if idle is None else idle.on(node.idle or context.settings.idle_policy)
        kept = None if policy is None else policy.as_dict()
        await nodes.update_node(session, node.id, idle=kept)
        await events.record(
            session, actor, context.now(), "node.set_idle", ("node", node.id, node.name), idle=kept
        )
        changed = await nodes.get_node(session, node.id)
    context.hints.reconcile.set()
    return changed or node


async def set_address(context: Context, actor: Actor, name: str, address: str) -> Node:
    """Tell hutch that a node is reached at another IPv4 address from now on.

    The ports of the instances that run there are led on from it; the instances go on running.
    """
    require(actor, Action.NODE_WRITE)
    async with context.db.write() as session:
        node = await nodes.find_node(session, name)
        if node is None:
            raise NotFoundError("node", name)
        if node.address == address:
            return node
        await nodes.update_node(session, node.id, address=address)
        await events.record(
            session,
            actor,
            context.now(),
            "node.set_address",
            ("node", node.id, node.name),
            address=address,
        )
        await _lead_ports(session, context, actor, node)
        changed = await nodes.get_node(session, node.id)
    context.hints.reconcile.set()
    context.hints.work.set()
    return changed or node


async def new_agent_token(context: Context, actor: Actor, name: str) -> str:
    """A token for a node's agent, shown this once. The one that it had is of no use any more."""
    require(actor, Action.NODE_WRITE)
    clear = new_token(AGENT_PREFIX)
    async with context.db.write() as session:
        node = await nodes.find_node(session, name)
        if node is None:
            raise NotFoundError("node", name)
        await nodes.update_node(session, node.id, agent_digest=digest(clear), agent_connection=None)
        await events.record(
            session, actor, context.now(), "node.agent_token", ("node", node.id, node.name)
        )
    return clear


async def _lead_ports(session: Session, context: Context, actor: Actor, node: Node) -> None:
    """Begin to lead the ports of a node's running instances anew: starting one that runs does
    that and no more. One that something else is done to shows it as drift if it missed it."""
    for instance in await instances.list_instances(session, node_id=node.id):
        if instance.state is InstanceState.RUNNING:
            with suppress(BusyError):
                await enqueue(
                    session,
                    context,
                    actor,
                    Kind.INSTANCE_START,
                    target(instance.id),
                    owner_id=instance.owner_id,
                    label=instance.name,
                    params={"instance": instance.id},
                )
