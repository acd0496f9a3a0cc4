"""The end of an instance and everything on it.

| step       | does                                           | undo                          |
|------------|------------------------------------------------|-------------------------------|
| containers | deletes every container of the instance (pivot)| none: what is gone is gone    |

The rows go in the last transaction, so that the name, the port and the address are free only when
nothing uses them any more.
"""

from hutch.domain.operations import Kind
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.store import containers, instances
from hutch.store.db import Session


async def _delete_containers(work: Work) -> None:
    async with work.context.db.read() as session:
        everything = await containers.of_instance(session, work.params["instance"])
    for container in everything:
        engine = await work.engine(container.node_id)
        await machine.delete_container(engine, container.engine_name, work.params["instance"])


async def _done(session: Session, work: Work) -> None:
    instance_id = work.params["instance"]
    for container in await containers.of_instance(session, instance_id):
        await containers.delete_container(session, container.id)
    await instances.delete_instance(session, instance_id)


DELETE = Procedure(
    Kind.INSTANCE_DELETE,
    (Step("containers", "Deleting the machine", _delete_containers),),
    done=_done,
    # Half of it may be gone already.
    forward_only=True,
)
