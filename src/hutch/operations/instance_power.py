"""Starting, stopping and restarting.

| operation | steps                                                                          |
|-----------|--------------------------------------------------------------------------------|
| start     | start: container, port, keys → answer: SSH                                     |
| stop      | stop: shut down, by force after half a minute                                  |
| restart   | stop → start → answer                                                          |

Nothing is undone: a machine that will not start stays stopped, and says why.
"""

from typing import Any

from hutch.domain.instances import InstanceState
from hutch.domain.operations import Kind
from hutch.engine.base import Power
from hutch.operations import machine
from hutch.operations.base import Procedure, Step, Work
from hutch.services import scheduling
from hutch.store import instances
from hutch.store.db import Session


async def _note_power(work: Work) -> None:
    """When it failed, what the person sees must be what is, not what was hoped for."""
    it = await machine.load(work)
    seen = await it.engine.get(it.name)
    runs = seen is not None and seen.power is Power.RUNNING
    await work.remember(fallback=InstanceState.RUNNING if runs else InstanceState.STOPPED)


async def _running(session: Session, work: Work) -> None:
    await machine.came_to_rest(session, work, InstanceState.RUNNING)


async def _stopped(session: Session, work: Work) -> None:
    await machine.came_to_rest(session, work, InstanceState.STOPPED)


async def _failed(session: Session, work: Work, error: dict[str, Any]) -> None:
    await machine.fell_back(session, work, error)
    # Wanting again what cannot be would make every pass of the reconciler try it anew.
    fallback = work.data.get("fallback")
    if fallback is not None:
        await instances.update_instance(session, work.params["instance"], desired=fallback)


_START = (
    Step("start", "Starting", machine.ensure_running, _note_power),
    Step("answer", "Waiting for SSH to answer", machine.ensure_answers, _note_power),
)
START = Procedure(Kind.INSTANCE_START, _START, done=_running, failed=_failed)
STOP = Procedure(
    Kind.INSTANCE_STOP,
    (Step("stop", "Shutting down", machine.ensure_stopped, _note_power),),
    done=_stopped,
    failed=_failed,
)
RESTART = Procedure(
    Kind.INSTANCE_RESTART,
    (Step("stop", "Shutting down", machine.ensure_stopped, _note_power), *_START),
    done=_running,
    failed=_failed,
    after=scheduling.poke,
)
