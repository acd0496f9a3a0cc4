"""Accelerators, brought into the instance that was granted them.

| step   | does                                                         | undo            |
|--------|--------------------------------------------------------------|-----------------|
| attach | gives the container all the devices in one go, while it runs | by lease_detach |

A grant that comes to nothing, or is taken back meanwhile, goes the whole way out: nobody else gets
the accelerators before it is certain that nothing in the instance has one open. The same operation
brings back devices that a container has lost.
"""

from typing import Any

from hutch.domain.instances import InstanceState
from hutch.domain.leases import EndReason, LeaseState
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import SYSTEM
from hutch.errors import WrongStateError
from hutch.operations import lending
from hutch.operations.base import Failed, Procedure, Retry, Step, Work
from hutch.services import scheduling, transitions
from hutch.services.lending import ENTITLED
from hutch.store import leases
from hutch.store.db import Session

_MOVING = frozenset(
    {
        InstanceState.STARTING,
        InstanceState.RESTARTING,
        InstanceState.REBUILDING,
        InstanceState.RESTORING,
    }
)
"""It will run when this is over."""
_ACTIVE = frozenset({LeaseState.ACTIVE})
_AGAIN = 0.5
"""Seconds."""


async def _attach(work: Work) -> None:
    loan = await lending.load(work)
    instance, container = loan.instance, loan.current
    if loan.lease.state not in ENTITLED:
        return
    if instance is None or container is None or not _will_run(loan):
        name = loan.lease.instance_name
        raise Failed(
            WrongStateError(
                f"{name} does not run any more, so the accelerators did not get in.",
                hint=f"`hutch start {name}`, then take them again.",
            )
        )
    if instance.state is not InstanceState.RUNNING and not work.params.get("again"):
        raise Retry(_AGAIN, f"Waiting until {instance.name} runs")
    await loan.engine.attach(container.engine_name, loan.devices)


def _will_run(loan: lending.Loan) -> bool:
    if loan.instance is None or loan.instance.state is InstanceState.RUNNING:
        return loan.instance is not None
    stuck = loan.working is None or loan.working.state is OperationState.STUCK
    return loan.instance.state in _MOVING and not stuck


async def _attached(session: Session, work: Work) -> None:
    lease_id = work.params["lease"]
    if await transitions.activate(session, work.context, lease_id):
        return
    if not await leases.move(session, lease_id, _ACTIVE, LeaseState.ACTIVE, error=None):
        await _take_back(session, work)


async def _failed(session: Session, work: Work, error: dict[str, Any]) -> None:
    lease_id, message = work.params["lease"], error.get("message")
    await leases.move(
        session,
        lease_id,
        {LeaseState.ATTACHING},
        LeaseState.DETACHING,
        end_reason=EndReason.FAILED.value,
        error=message,
    )
    # One that was active before stays so: the reconciler tries again to bring the devices back.
    if not await leases.move(session, lease_id, _ACTIVE, LeaseState.ACTIVE, error=message):
        await _take_back(session, work)


async def _take_back(session: Session, work: Work) -> None:
    """Have a lease that is over by now brought out, with whatever of it came in."""
    lease = await leases.get_lease(session, work.params["lease"])
    if lease is not None and lease.state is LeaseState.DETACHING:
        await transitions.ensure_detaching(session, work.context, SYSTEM, lease)


ATTACH = Procedure(
    Kind.LEASE_ATTACH,
    (Step("attach", "Attaching", _attach),),
    done=_attached,
    failed=_failed,
    cancelled=_take_back,
    after=scheduling.poke,
)
