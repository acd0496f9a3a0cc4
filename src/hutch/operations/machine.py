"""What the steps of several operations on an instance share."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from hutch.domain.instances import Container, ContainerRole, Instance, InstanceState
from hutch.domain.leases import EndReason
from hutch.domain.nodes import Node
from hutch.domain.people import SYSTEM, SshKey
from hutch.domain.ports import LOOPBACK, Port, PortState, Reach
from hutch.engine.base import ContainerSpec, Engine, Forward, Observed
from hutch.errors import EngineNotFoundError, NotFoundError
from hutch.operations import drivers
from hutch.operations.base import Work
from hutch.operations.provision import put_keys, put_person
from hutch.services import transitions
from hutch.store import containers, images, instances, keys, leases, nodes, ports, users
from hutch.store.db import Session

log = structlog.get_logger(__name__)

SSH_FORWARD = "forward-ssh"
BANNER_SECONDS = 60.0
"""A fresh machine that does not answer by then never will."""


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance with everything its steps need, read in one go."""

    instance: Instance
    container: Container | None
    engine: Engine
    forward: Forward
    """The one that leads to its SSH server."""
    forwards: tuple[Forward, ...]
    """All that lead to it, that one among them."""
    keys: list[SshKey]
    """Those that open it: the owner's, and those of whom they share it with."""
    keys_version: int
    has_nvidia_driver: bool
    """Whether the node can give the libraries of its NVIDIA driver."""

    @property
    def name(self) -> str:
        """The name of the container that the instance lives in."""
        if self.container is None:
            raise EngineNotFoundError(
                f"{self.instance.name} has no container.", hint="Delete it and create it anew."
            )
        return self.container.engine_name


def forward_name(port_id: str) -> str:
    """What the engine knows a port by, other than that of SSH: nothing that anyone typed."""
    return f"port-{port_id}"


def forwards_of(node: Node, leading: Iterable[Port]) -> tuple[Forward, ...]:
    """The forwards that lead to an instance, in the engine's words.

    There is none for a port that is reached in a browser alone.
    """
    return tuple(
        Forward(
            name=SSH_FORWARD if port.name == instances.SSH else forward_name(port.id),
            listen_address=LOOPBACK if port.reach is Reach.NODE else node.address,
            listen_port=port.host_port,
            target_port=port.target_port,
            protocol=port.protocol.value,
        )
        for port in leading
        if port.state is not PortState.CLOSING and port.host_port is not None
    )


async def load(work: Work, role: ContainerRole = ContainerRole.CURRENT) -> Machine:
    """Read the instance that an operation works on, as it is now."""
    context = work.context
    instance_id: str = work.params["instance"]
    async with context.db.read() as session:
        instance = await instances.get_instance(session, instance_id)
        if instance is None:
            raise NotFoundError("instance", instance_id)
        container = await containers.of_role(session, instance_id, role)
        node = await nodes.get_node(session, instance.node_id)
        owner = await users.get_user(session, instance.owner_id, context.settings.default_quota)
        leading = await ports.list_ports(session, instance_id)
        opening = await keys.keys_into(session, instance_id, context.now())
    if node is None or owner is None:
        raise LookupError(f"instance {instance_id} lost its node or owner")
    forwards = forwards_of(node, leading)
    return Machine(
        instance=instance,
        container=container,
        engine=context.engines.of(node),
        forward=next(each for each in forwards if each.name == SSH_FORWARD),
        forwards=forwards,
        keys=opening,
        keys_version=owner.keys_version + instance.guests_version,
        has_nvidia_driver=node.has_nvidia_driver,
    )


async def spec(
    work: Work, machine: Machine, container: Container, forwards: tuple[Forward, ...]
) -> ContainerSpec:
    """What a container for an instance is made of."""
    async with work.context.db.read() as session:
        image = await images.get_image(session, container.image_id)
    if image is None:
        raise NotFoundError("image", container.image_id)
    return ContainerSpec(
        name=container.engine_name,
        image=image.name,
        limits=machine.instance.limits,
        address=container.address,
        labels=labels(work, container),
        forwards=forwards,
        has_nvidia_driver=machine.has_nvidia_driver,
    )


def labels(work: Work, container: Container) -> dict[str, str]:
    """Enough to know whose container it is when the database is lost."""
    known = {"lab": work.context.vault.lab, "container": container.id}
    if container.instance_id is not None:
        known["instance"] = container.instance_id
    return known


def is_somebody_elses(seen: Observed, instance_id: str | None) -> bool:
    """Whether a container already belongs to another instance than the one it is taken for.

    So it is when the database was put back to a time before it was given away. Then the engine
    is right: it must neither go to the next person nor be deleted.
    """
    owner = seen.labels.get("instance")
    return owner is not None and owner != instance_id


async def delete_container(engine: Engine, container_name: str, instance_id: str | None) -> None:
    """Delete a container unless it has become another instance's."""
    seen = await engine.get(container_name)
    if seen is not None and is_somebody_elses(seen, instance_id):
        log.error("left alone: it belongs to another instance", container=container_name)
        return
    await engine.delete(container_name)


async def provision(work: Work, machine: Machine, container: Container) -> None:
    """Make a running container its owner's, and remember which keys went in."""
    async with work.context.db.read() as session:
        sealed = await instances.host_secret(session, machine.instance.id)
    if sealed is None:
        raise NotFoundError("instance", machine.instance.id)
    await put_person(
        machine.engine,
        container.engine_name,
        user=machine.instance.owner_name,
        host_name=machine.instance.name,
        host_secret=work.context.vault.open(sealed),
        host_key=machine.instance.ssh_host_key,
        keys=machine.keys,
    )


async def answers(machine: Machine, timeout: float = BANNER_SECONDS) -> bool:
    """Whether the machine's SSH server answers at its host port."""
    return await machine.engine.wait_for_banner(
        machine.name, machine.forward.listen_address, machine.forward.listen_port, timeout=timeout
    )


async def ensure_forwards(machine: Machine, seen: Observed | None) -> None:
    """Lead the instance's ports to its container, as it was just seen, and no other ones.

    Those that are left over, from a database that was put back for instance, could be somebody
    else's by now. So they go first.
    """
    if seen is None:
        return
    names = {each.name for each in machine.forwards}
    for each in seen.forwards:
        if each.name not in names:
            await machine.engine.remove_forward(machine.name, each.name)
    for forward in machine.forwards:
        if forward not in seen.forwards:
            await machine.engine.set_forward(machine.name, forward)


async def ensure_running(work: Work) -> None:
    """Start the instance's container, lead its ports to it, and bring the keys that open it."""
    machine = await load(work)
    seen = await drivers.start(work, machine.engine, machine.name, wanted=machine.has_nvidia_driver)
    await ensure_forwards(machine, seen)
    await work.remember(keys_version=machine.keys_version)
    await put_keys(
        machine.engine, machine.name, user=machine.instance.owner_name, keys=machine.keys
    )


async def ensure_answers(work: Work) -> None:
    """Wait until SSH answers; if it does not, the machine runs all the same and says so."""
    machine = await load(work)
    if not await answers(machine, timeout=15.0):
        await work.remember(warning="It runs, but its SSH server does not answer.")


async def ensure_stopped(work: Work) -> None:
    machine = await load(work)
    await machine.engine.stop(machine.name)


async def came_to_rest(session: Session, work: Work, state: InstanceState, **values: Any) -> None:
    """Write the state an operation ended in, and the version of the keys it brought."""
    if state is InstanceState.RUNNING and "keys_version" in work.data:
        values["keys_version"] = work.data["keys_version"]
    values = {"error": work.data.get("warning"), "drift": None} | values
    await instances.update_instance(session, work.params["instance"], state=state.value, **values)


async def fell_back(session: Session, work: Work, error: dict[str, Any]) -> None:
    """Write what is so after an operation failed and was undone: what the owner wanted before."""
    instance = await instances.get_instance(session, work.params["instance"])
    if instance is None:
        return
    state = InstanceState(work.data.get("fallback", instance.desired.value))
    await instances.update_instance(
        session, instance.id, state=state.value, error=error.get("message")
    )
    if state is InstanceState.STOPPED:
        # Nobody who has this turn waits for the row of an instance's operation.
        await leases.lock_leases(session)
        await transitions.end_all(
            session, work.context, SYSTEM, EndReason.STOPPED, instance_id=instance.id
        )


async def gather(*steps: Any) -> None:
    """Run parts of a step at once; if one fails, wait for the others before saying so."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
