"""What lending accelerators to an instance and taking them back have in common."""

from dataclasses import dataclass

from hutch.domain.accelerators import Accelerator, OpenedDevice
from hutch.domain.instances import Container, ContainerRole, Instance
from hutch.domain.leases import Lease
from hutch.domain.nodes import Node
from hutch.domain.operations import Operation
from hutch.engine.base import Device, Engine
from hutch.engine.plans import extra, plan_all
from hutch.errors import NotFoundError
from hutch.operations.base import Work
from hutch.services.instances import target
from hutch.services.lending import ENTITLED, held_by_others, opened
from hutch.store import accelerators, containers, instances, leases, nodes, operations
from hutch.store.db import Session


@dataclass(frozen=True, slots=True)
class Loan:
    """A lease with everything that its steps need, read in one go."""

    lease: Lease
    instance: Instance | None
    """None: it was deleted meanwhile."""
    containers: tuple[Container, ...]
    """Every container of the instance, whatever its role."""
    node: Node
    engine: Engine
    accelerators: tuple[Accelerator, ...]
    staying: tuple[Accelerator, ...]
    """What other leases of the same instance entitle it to."""
    working: Operation | None
    """What is being done to the instance."""

    @property
    def current(self) -> Container | None:
        """The container that the instance lives in."""
        roles = (each for each in self.containers if each.role is ContainerRole.CURRENT)
        return next(roles, None)

    @property
    def devices(self) -> tuple[Device, ...]:
        return plan_all(self.accelerators)

    @property
    def leaving(self) -> tuple[Accelerator, ...]:
        """What the instance has no more once this lease has ended."""
        return tuple(each for each in self.accelerators if each not in self.staying)

    @property
    def leaving_devices(self) -> tuple[str, ...]:
        """The names of the devices that go with it: not what the others share with it."""
        return extra(plan_all(self.leaving), plan_all(self.staying))

    @property
    def opened(self) -> tuple[OpenedDevice, ...]:
        """What a process inside has open while it uses what is leaving."""
        return tuple(device for each in self.leaving for device in opened(each))


async def load(work: Work) -> Loan:
    """Read the lease that an operation works on, as it is now."""
    async with work.context.db.read() as session:
        lease = await leases.get_lease(session, work.params["lease"])
        if lease is None:
            raise NotFoundError("lease", work.params["lease"])
        node = await nodes.get_node(session, lease.node_id)
        if node is None:
            raise LookupError(f"the node of lease {lease.id} is gone")
        known = await accelerators.list_accelerators(session, node_id=lease.node_id)
        others = await held_by_others(session, lease)
        return Loan(
            lease=lease,
            instance=await instances.get_instance(session, lease.instance_id),
            containers=tuple(await containers.of_instance(session, lease.instance_id)),
            node=node,
            engine=work.context.engines.of(node),
            accelerators=tuple(each for each in known if each.id in lease.accelerators),
            staying=tuple(each for each in known if each.id in others),
            working=await operations.live_operation(session, target(lease.instance_id)),
        )


async def entitled(session: Session, instance: Instance) -> tuple[Accelerator, ...]:
    """The accelerators that belong into an instance by all of its leases."""
    live = await leases.list_live(session, instance_id=instance.id, states=ENTITLED)
    held = {accelerator_id for each in live for accelerator_id in each.accelerators}
    known = await accelerators.list_accelerators(session, node_id=instance.node_id)
    return tuple(each for each in known if each.id in held)
