"""A new instance.

| step      | does                                                       | undo                 |
|-----------|------------------------------------------------------------|----------------------|
| container | makes and starts it, or fits one of the pool to the person | deletes it           |
| provision | account, host name, host key, SSH keys                     | (goes with the disk) |
| answer    | waits until SSH answers at the host port                   |                      |

The name, the host port, the address and the container's name were all decided, and saved, in the
transaction that granted the instance.
"""

from typing import Any

from hutch.domain.instances import InstanceState
from hutch.domain.operations import Kind
from hutch.engine.base import Power
from hutch.errors import EngineError
from hutch.operations import drivers, machine
from hutch.operations.base import Failed, Procedure, Step, Work
from hutch.store import containers, instances
from hutch.store.db import Session


async def _ensure_container(work: Work) -> None:
    it = await machine.load(work)
    if it.container is None:
        raise LookupError("an instance in creation has no container")
    await work.remember(keys_version=it.keys_version)
    if not work.params["pooled"]:
        spec = await machine.spec(work, it, it.container, it.forwards)
        await drivers.make(work, it.engine, spec)
        return
    seen = await it.engine.get(it.name)
    if seen is None or machine.is_somebody_elses(seen, it.instance.id):
        raise Failed(
            EngineError(
                "The machine that was kept ready is not there, or is no longer free.",
                hint="Delete this instance and create it once more.",
            )
        )
    if seen.power is not Power.RUNNING:
        await drivers.start(work, it.engine, it.name, wanted=it.has_nvidia_driver)
    # It runs: what is left is small, and goes on side by side.
    await machine.gather(
        it.engine.prepare(
            it.name,
            limits=it.instance.limits,
            forward=it.forward,
            labels=machine.labels(work, it.container),
        ),
        machine.provision(work, it, it.container),
    )


async def _remove_container(work: Work) -> None:
    it = await machine.load(work)
    if it.container is not None:
        await machine.delete_container(it.engine, it.container.engine_name, it.instance.id)


async def _provision(work: Work) -> None:
    if work.params["pooled"]:
        return
    it = await machine.load(work)
    if it.container is not None:
        await machine.provision(work, it, it.container)


async def _answer(work: Work) -> None:
    it = await machine.load(work)
    if not await machine.answers(it):
        raise Failed(
            EngineError(
                f"{it.instance.name} was made, but its SSH server did not answer within "
                f"{machine.BANNER_SECONDS:.0f} s, so it was removed again.",
                hint="The image may lack an SSH server; an administrator can look at the node.",
            )
        )


async def _done(session: Session, work: Work) -> None:
    await machine.came_to_rest(session, work, InstanceState.RUNNING)


async def _failed(session: Session, work: Work, error: dict[str, Any]) -> None:
    instance_id = work.params["instance"]
    await _forget_container(session, instance_id)
    await instances.update_instance(
        session, instance_id, state=InstanceState.FAILED.value, error=error.get("message")
    )


async def _cancelled(session: Session, work: Work) -> None:
    await _forget_container(session, work.params["instance"])
    await instances.delete_instance(session, work.params["instance"])


async def _forget_container(session: Session, instance_id: str) -> None:
    container = await containers.current(session, instance_id)
    if container is not None:
        await containers.delete_container(session, container.id)


CREATE = Procedure(
    Kind.INSTANCE_CREATE,
    (
        Step("container", "Making the machine", _ensure_container, _remove_container),
        Step("provision", "Setting up your account", _provision),
        Step("answer", "Waiting for SSH to answer", _answer),
    ),
    done=_done,
    failed=_failed,
    cancelled=_cancelled,
)
