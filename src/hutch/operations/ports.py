"""Ports.

| operation | step    | does                                      | undo           |
|-----------|---------|-------------------------------------------|----------------|
| add       | forward | leads the host port to the instance       | takes it away  |
| remove    | forward | takes it away                             | none           |

The number was given, and saved, in the transaction that granted the port. It is free again only
when nothing leads there any more.
"""

from contextlib import suppress
from typing import Any

from hutch.domain.operations import Kind
from hutch.domain.ports import PortState
from hutch.errors import EngineNotFoundError
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.store import ports
from hutch.store.db import Session


def _name(work: Work) -> str:
    return machine.forward_name(work.params["port"])


async def _lead(work: Work) -> None:
    it = await machine.load(work)
    for forward in it.forwards:
        if forward.name == _name(work):
            await it.engine.set_forward(it.name, forward)


async def _take_away(work: Work) -> None:
    # With its container the forward is gone as well.
    with suppress(EngineNotFoundError):
        it = await machine.load(work)
        await it.engine.remove_forward(it.name, _name(work))


async def _opened(session: Session, work: Work) -> None:
    await ports.update_port(session, work.params["port"], state=PortState.OPEN.value)
    # When it ends may be sooner than anyone would look.
    work.context.hints.reconcile.set()


async def _closed(session: Session, work: Work) -> None:
    await ports.delete_port(session, work.params["port"])


async def _not_opened(session: Session, work: Work, _error: dict[str, Any]) -> None:
    await ports.delete_port(session, work.params["port"])


ADD = Procedure(
    Kind.PORT_ADD,
    (Step("forward", "Leading the port to it", _lead, _take_away),),
    done=_opened,
    failed=_not_opened,
    cancelled=_closed,
)
REMOVE = Procedure(
    Kind.PORT_REMOVE,
    (Step("forward", "Taking the port away", _take_away),),
    done=_closed,
    # It may be gone already: there is nothing to go back to.
    forward_only=True,
)
