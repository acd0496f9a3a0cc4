"""A person's SSH keys, brought into one running instance.

| step | does                                             | undo |
|------|--------------------------------------------------|------|
| push | replaces the file that hutch keeps, nothing else |      |
"""

from hutch.domain.instances import InstanceState
from hutch.domain.operations import Kind
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.operations.provision import put_keys
from hutch.store import instances
from hutch.store.db import Session


async def _push(work: Work) -> None:
    async with work.context.db.read() as session:
        instance = await instances.get_instance(session, work.params["instance"])
    # Anything but a running one gets its keys when it starts.
    if instance is None or instance.state is not InstanceState.RUNNING:
        return
    it = await machine.load(work)
    await put_keys(it.engine, it.name, user=it.instance.owner_name, keys=it.keys)
    await work.remember(keys_version=it.keys_version)


async def _done(session: Session, work: Work) -> None:
    if "keys_version" in work.data:
        await instances.update_instance(
            session, work.params["instance"], keys_version=work.data["keys_version"]
        )
    # Keys may have changed once more meanwhile: the next comparison finds that.
    work.context.hints.reconcile.set()


PUSH = Procedure(Kind.KEYS_PUSH, (Step("push", "Bringing the keys", _push),), done=_done)
