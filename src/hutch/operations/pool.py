"""Containers made in advance, so that creating an instance need not wait for one.

| operation | step      | does                                   | undo       |
|-----------|-----------|----------------------------------------|------------|
| add       | container | makes and starts it                    | deletes it |
|           | boot      | waits until it has booted              |            |
| remove    | container | deletes it                             | none       |
"""

from dataclasses import replace
from typing import Any

from hutch.domain.instances import Container
from hutch.domain.limits import POOL_DISK
from hutch.domain.operations import Kind
from hutch.engine.base import ContainerSpec
from hutch.operations import drivers, machine
from hutch.operations.base import Procedure, Step, Work
from hutch.store import containers, images, nodes
from hutch.store.db import Session

_BOOT_SECONDS = 120.0


async def _load(work: Work) -> Container | None:
    async with work.context.db.read() as session:
        return await containers.get_container(session, work.params["container"])


async def _add(work: Work) -> None:
    container = await _load(work)
    if container is None:
        return
    async with work.context.db.read() as session:
        image = await images.get_image(session, container.image_id)
        node = await nodes.get_node(session, container.node_id)
    if image is None or node is None:
        raise LookupError("the image or the node of a pool is gone")
    engine = await work.engine(container.node_id)
    spec = ContainerSpec(
        name=container.engine_name,
        image=image.name,
        limits=replace(work.context.settings.default_limits, disk=POOL_DISK),
        address=container.address,
        labels=machine.labels(work, container),
        has_nvidia_driver=node.has_nvidia_driver,
    )
    await drivers.make(work, engine, spec)


async def _boot(work: Work) -> None:
    container = await _load(work)
    if container is None:
        return
    engine = await work.engine(container.node_id)
    # It also answers when a unit failed, which is for whoever made the image to mend.
    await engine.exec(
        container.engine_name,
        ["sh", "-c", "command -v systemctl >/dev/null && systemctl is-system-running --wait"],
        timeout=_BOOT_SECONDS,
    )


async def _remove(work: Work) -> None:
    container = await _load(work)
    if container is None and "engine_name" in work.params:
        # Left over from a crash: its row is gone, and it is named by what the engine calls it.
        engine = await work.engine(work.params["node"])
        await machine.delete_container(engine, work.params["engine_name"], None)
    if container is not None and container.instance_id is None:
        engine = await work.engine(container.node_id)
        await machine.delete_container(engine, container.engine_name, None)


async def _added(session: Session, work: Work) -> None:
    await containers.set_ready(session, work.params["container"])


async def _removed(session: Session, work: Work) -> None:
    container = await containers.get_container(session, work.params["container"])
    if container is not None and container.instance_id is None:
        await containers.delete_container(session, container.id)


async def _not_added(session: Session, work: Work, _error: dict[str, Any]) -> None:
    await _removed(session, work)


ADD = Procedure(
    Kind.POOL_ADD,
    (
        Step("container", "Making a machine in advance", _add, _remove),
        Step("boot", "Waiting until it has booted", _boot),
    ),
    done=_added,
    failed=_not_added,
    cancelled=_removed,
)
REMOVE = Procedure(
    Kind.POOL_REMOVE,
    (Step("container", "Removing a machine of the pool", _remove),),
    done=_removed,
    forward_only=True,
)
