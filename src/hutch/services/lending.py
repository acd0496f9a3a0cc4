"""What a lease brings into its instance, and what goes when it ends."""

from hutch.domain.accelerators import Accelerator, OpenedDevice, Vendor, Verb
from hutch.domain.leases import Lease, LeaseState
from hutch.engine.plans import plan
from hutch.services import agents
from hutch.services.context import Context
from hutch.store import accelerators, containers, leases
from hutch.store.db import Session

ENTITLED = frozenset({LeaseState.ATTACHING, LeaseState.ACTIVE})
"""The states in which a lease's accelerators belong into its instance."""


async def held_by_others(session: Session, lease: Lease) -> frozenset[str]:
    """The accelerators that other leases of the same instance entitle it to."""
    others = await leases.list_live(session, instance_id=lease.instance_id, states=ENTITLED)
    return frozenset(held for each in others if each.id != lease.id for held in each.accelerators)


def opened(accelerator: Accelerator) -> tuple[OpenedDevice, ...]:
    """An accelerator's own device nodes as the processes inside open them."""
    found = accelerator.found
    if found.vendor is not Vendor.SIMULATED:
        # The engine puts them where the node has them.
        return tuple(OpenedDevice(each.major, each.minor, each.path) for each in found.nodes)
    # One number for all of them: told apart by the path inside.
    inside = (device.path or device.source or "" for device in plan(accelerator))
    return tuple(
        OpenedDevice(node.major, node.minor, path)
        for node, path in zip(found.nodes, inside, strict=True)
    )


async def have_shut(session: Session, context: Context, lease: Lease) -> None:
    """Ask the node's agent for the first thing that is done to a lease that goes back, so that it
    is done while the operation begins. Call `agents.hint` after the commit."""
    container = await containers.current(session, lease.instance_id)
    others = await held_by_others(session, lease)
    known = await accelerators.list_accelerators(session, node_id=lease.node_id)
    leaving = [each for each in known if each.id in lease.accelerators and each.id not in others]
    if container is not None and leaving:
        await agents.order(
            session,
            context,
            Verb.SHUT,
            node_id=lease.node_id,
            lease_id=lease.id,
            container=container.engine_name,
            devices=[device for each in leaving for device in opened(each)],
        )
