"""Whether there is room: in a person's quota, and on which node.

Everything here counts under a lock that the open transaction holds until it ends, so that two
grants at once never share what is left.
"""

from hutch.domain.instances import Instance
from hutch.domain.limits import Holding, Limits, check_quota
from hutch.domain.nodes import Capacity, Node, NodeState, check_fits, has_room
from hutch.errors import EngineUnavailableError, NoRoomError, NotFoundError
from hutch.services.context import Context
from hutch.store import nodes, users
from hutch.store.db import Session, lock


async def check_quota_of(session: Session, context: Context, user_id: str, more: Holding) -> None:
    """Raise QuotaExceededError when `more` does not fit into what a person may still have."""
    await users.lock_user(session, user_id)
    user = await users.get_user(session, user_id, context.settings.default_quota)
    if user is None:
        raise NotFoundError("user", user_id)
    check_quota(user.quota, await users.held(session, user_id), more)


async def place(session: Session, context: Context, wanted: str | None, limits: Limits) -> Node:
    """The node for a new instance: the one that was asked for, else the one with most room."""
    await lock(session, "placement")
    if wanted is not None:
        node = await nodes.find_node(session, wanted)
        if node is None:
            raise NotFoundError("node", wanted)
        _check_open(node)
        candidates = [node]
    else:
        everything = await nodes.list_nodes(session)
        candidates = [node for node in everything if node.state is NodeState.ACTIVE]
        if not candidates:
            raise NoRoomError(
                "No node takes new instances at the moment.",
                hint="An administrator can add a node, or uncordon one.",
            )
        reachable = [node for node in candidates if node.unreachable_since is None]
        if not reachable:
            _check_open(candidates[0])
        candidates = reachable
    # Asking for more than the largest node has in all is a mistake, not a shortage.
    check_fits(max(candidates, key=lambda node: _fit(node, limits)), limits)
    promised = await nodes.promised(session)
    free = [node for node in candidates if _takes(context, node, promised, limits)]
    if not free:
        raise NoRoomError(
            "There is no room for this instance now.",
            hint="Ask for less, delete what you no longer need, or wait until others do.",
            node=wanted,
        )
    return min(free, key=lambda node: _load(node, promised))


def _check_open(node: Node) -> None:
    if node.state is not NodeState.ACTIVE:
        raise NoRoomError(
            f"Node {node.name} takes no new instances at the moment: it is cordoned.",
            hint="Leave --node out, or name another one.",
            node=node.name,
        )
    if node.unreachable_since is not None:
        raise EngineUnavailableError(
            f"Node {node.name} has not answered since {node.unreachable_since:%Y-%m-%d %H:%M} UTC.",
            hint="Try again later; your administrator sees this too.",
            node=node.name,
        )


def _fit(node: Node, limits: Limits) -> int:
    has = node.capacity
    return sum((limits.cpus <= has.cpus, limits.memory <= has.memory, limits.disk <= has.disk))


def _takes(context: Context, node: Node, promised: dict[str, Capacity], limits: Limits) -> bool:
    nothing = Capacity(0, 0, 0)
    return node.capacity.disk - node.disk_used >= context.settings.disk_reserve and has_room(
        node.capacity, promised.get(node.id, nothing), limits, context.settings.overcommit
    )


def _load(node: Node, promised: dict[str, Capacity]) -> float:
    """How full a node would be called: the largest promised share of any resource."""
    has, given = node.capacity, promised.get(node.id, Capacity(0, 0, 0))
    return max(given.cpus / has.cpus, given.memory / has.memory, given.disk / has.disk)


async def check_growth(session: Session, context: Context, instance: Instance, new: Limits) -> None:
    """Raise when an instance's node has no room for its new limits."""
    node = await nodes.get_node(session, instance.node_id)
    if node is None:
        raise NotFoundError("node", instance.node_name)
    check_fits(node, new)
    old = instance.limits
    await lock(session, "placement")
    promised = (await nodes.promised(session)).get(node.id, Capacity(0, 0, 0))
    without = Capacity(
        promised.cpus - old.cpus, promised.memory - old.memory, promised.disk - old.disk
    )
    grows = new.cpus > old.cpus or new.memory > old.memory or new.disk > old.disk
    if grows and not has_room(node.capacity, without, new, context.settings.overcommit):
        raise NoRoomError(
            f"Node {node.name} has no room for that much more.",
            hint="Ask for less, or wait until others give something back.",
            node=node.name,
        )
