"""New limits for an instance, at once where it runs.

| step   | does                    | undo                    |
|--------|-------------------------|-------------------------|
| limits | sets the new limits     | sets the old ones again |
"""

from contextlib import suppress
from typing import Any

from hutch.domain.limits import Limits
from hutch.domain.operations import Kind
from hutch.errors import EngineNotFoundError
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.store import instances
from hutch.store.db import Session


async def _set_new(work: Work) -> None:
    it = await machine.load(work)
    await it.engine.set_limits(it.name, Limits(**work.params["new"]))


async def _set_old(work: Work) -> None:
    # Without a container there is nothing to put back.
    with suppress(EngineNotFoundError):
        it = await machine.load(work)
        await it.engine.set_limits(it.name, Limits(**work.params["old"]))


async def _done(session: Session, work: Work) -> None:
    instance_id = work.params["instance"]
    await instances.set_limits(session, instance_id, Limits(**work.params["new"]))
    await instances.update_instance(session, instance_id, error=None)


async def _failed(session: Session, work: Work, error: dict[str, Any]) -> None:
    instance_id = work.params["instance"]
    await instances.set_limits(session, instance_id, Limits(**work.params["old"]))
    await instances.update_instance(session, instance_id, error=error.get("message"))


CONFIGURE = Procedure(
    Kind.INSTANCE_CONFIGURE,
    (Step("limits", "Changing the limits", _set_new, _set_old),),
    done=_done,
    failed=_failed,
)
