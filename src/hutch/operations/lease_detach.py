"""Accelerators, taken back: they go on to nobody before nothing has them open any more.

| step    | does                                                                              |
|---------|-----------------------------------------------------------------------------------|
| holders | has the node's agent shut the devices and name the processes that have them open  |
| ask     | tells the person, asks these to end, waits until they have or the time is up      |
| end     | has the agent end what still has one open                                         |
| remove  | takes the devices from the container                                              |
| verify  | has the agent confirm that nothing has one open; else it ends that as well        |

There is no way back. Nothing else is ever ended, neither another process nor the machine. Where
nobody has them open, nobody waits; where the machine does not run, nobody is asked. Devices that
nobody has open and nobody can open any more are taken out at once, and that is all: so most
releases go.

A silent agent leaves the lease as it is: the accelerators stay its own until the agent speaks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from hutch.domain.accelerators import Process, Revoked, Verb
from hutch.domain.leases import EndReason
from hutch.domain.operations import Kind, OperationState
from hutch.domain.people import SYSTEM
from hutch.engine.base import Power
from hutch.operations import lending
from hutch.operations.base import Done, Procedure, Retry, Step, Work
from hutch.operations.lending import Loan
from hutch.services import agents, announcements, scheduling, transitions
from hutch.store import events, leases, revocations
from hutch.store.db import Session

_ANSWER_SECONDS = 3.0
"""What an agent gets to answer before the operation makes room for others and asks again."""
_FRESH = timedelta(seconds=2)
"""So long what was answered counts without being asked again."""
_SILENT_PAUSE = 2.0
"""Seconds until a silent agent is asked again."""
_LOOK_PAUSE = 0.25
"""Seconds between two looks at something that is on its way."""
_STOPPING = frozenset({Kind.INSTANCE_STOP.value, Kind.INSTANCE_DELETE.value})
_NAMED = 5
"""So many programs are named to people."""


async def _holders(work: Work) -> None:
    loan = await lending.load(work)
    if _is_stopping(loan):
        # What has them open ends with the machine.
        raise Retry(_LOOK_PAUSE, "Waiting until the machine has stopped")
    revoked = await _first_answer(work, loan) or await _order(work, loan, Verb.SHUT)
    if revoked.is_shut and not revoked.processes:
        await _detach(loan)
        raise Done
    await work.remember(processes=_noted(revoked.processes))


async def _ask(work: Work) -> None:
    if not work.data["processes"]:
        return
    loan = await lending.load(work)
    if "told" not in work.data:
        await _tell(work, loan)
    if "asked" not in work.data:
        asked = await _order(work, loan, Verb.ASK)
        await _note(work, "asked", asked.processes)
    waiting_until = datetime.fromisoformat(work.data["asked_at"]) + timedelta(
        seconds=work.context.settings.release_grace_seconds
    )
    left = (await _order(work, loan, Verb.SHUT)).processes
    if left and work.context.now() < waiting_until:
        raise Retry(_LOOK_PAUSE, f"Waiting until {_names(left)} ends")


async def _end(work: Work) -> None:
    loan = await lending.load(work)
    await _note(work, "ended", (await _order(work, loan, Verb.END)).processes)


async def _remove(work: Work) -> None:
    await _detach(await lending.load(work))


async def _detach(loan: Loan) -> None:
    for container in loan.containers:
        await loan.engine.detach(container.engine_name, loan.leaving_devices)


async def _verify(work: Work) -> None:
    loan = await lending.load(work)
    if left := (await _order(work, loan, Verb.SHUT)).processes:
        await _note(work, "ended", (await _order(work, loan, Verb.END)).processes)
        raise Retry(_LOOK_PAUSE, f"Waiting until {_names(left)} is gone")


def _is_stopping(loan: Loan) -> bool:
    work = loan.working
    return work is not None and work.kind in _STOPPING and work.state is not OperationState.STUCK


async def _first_answer(work: Work, loan: Loan) -> Revoked | None:
    """What the agent says to the order that came with the release, if that is still of use: what
    was shut stays shut while the container runs."""
    async with work.context.db.read() as session:
        order = await revocations.latest(session, loan.lease.id)
    if (
        order is None
        or loan.current is None
        or order.created_at < work.operation.created_at
        or abs(work.context.now() - order.created_at) > _FRESH
        or (order.verb, order.container) != (Verb.SHUT, loan.current.engine_name)
        or order.devices != loan.opened
    ):
        return None
    return await agents.await_result(
        work.context, loan.node.id, order.id, timeout=_FRESH.total_seconds()
    )


async def _order(work: Work, loan: Loan, verb: Verb) -> Revoked:
    """What the node's agent says of what is leaving, and of the processes that have it open.

    Raises Retry when it is silent, unless the machine does not run: then there are none.
    """
    container = loan.current
    if container is None or not loan.leaving:
        return Revoked()
    # An order that a power cut takes back is given again.
    async with work.guarded(durable=False) as session:
        order = await agents.order(
            session,
            work.context,
            verb,
            node_id=loan.node.id,
            lease_id=loan.lease.id,
            container=container.engine_name,
            devices=loan.opened,
        )
    answer = await agents.await_result(work.context, loan.node.id, order, timeout=_ANSWER_SECONDS)
    if answer is not None:
        return answer
    seen = await loan.engine.get(container.engine_name)
    if seen is None or seen.power is Power.STOPPED:
        return Revoked()
    raise Retry(
        _SILENT_PAUSE,
        f"Waiting for the agent of {loan.node.name}: until it speaks nobody knows who uses these",
    )


async def _tell(work: Work, loan: Loan) -> None:
    """Say to the person what is about to happen to which of their programs."""
    grace = work.context.settings.release_grace_seconds
    text = (
        f"{_listed(work.data['processes'])} in {loan.lease.instance_name}: you use accelerators "
        f"that go back now. What has not ended in {grace:g} seconds is ended."
    )
    evidence = {**(loan.lease.evidence or {}), "processes": work.data["processes"]}
    async with work.guarded(told=True) as session:
        await leases.update_lease(session, loan.lease.id, evidence=evidence)
        await announcements.tell(session, work.context, loan.lease, "lease.ending", text)
    work.context.hints.work.set()
    # It takes a while: who waits for them is told what for.
    scheduling.poke(work.context)


async def _note(work: Work, what: str, processes: Sequence[Process]) -> None:
    """Write down what was done to which processes, in the operation and in the audit."""
    now = work.context.now()
    known: list[dict[str, Any]] = work.data.get(what, [])
    data: dict[str, Any] = {what: known + _noted(processes), f"{what}_at": now.isoformat()}
    async with work.guarded(**data) as session:
        if processes:
            await _tell_audit(session, work, _EVENTS[what], processes)


_EVENTS = {"asked": "lease.ask", "ended": "lease.kill"}


async def _tell_audit(
    session: Session, work: Work, action: str, processes: Sequence[Process]
) -> None:
    await events.record(
        session,
        SYSTEM,
        work.context.now(),
        action,
        ("lease", work.params["lease"], str(work.params["label"])),
        owner_id=work.operation.owner_id,
        operation=work.operation.id,
        processes=_noted(processes),
    )


def _noted(processes: Iterable[Process]) -> list[dict[str, Any]]:
    return [asdict(each) for each in processes]


def _names(processes: Iterable[Process]) -> str:
    return _listed(_noted(processes))


def _listed(processes: Iterable[dict[str, Any]]) -> str:
    """The programs, each once."""
    names = sorted({each["command"] for each in processes})
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


async def _done(session: Session, work: Work) -> None:
    lease = await leases.get_lease(session, work.params["lease"])
    if lease is None:
        return
    if ended := work.data.get("ended"):
        text = f"{_listed(ended)} had not ended and was ended, because its accelerators went back."
        await announcements.tell(session, work.context, lease, "lease.killed", text)
    if lease.end_reason is EndReason.FAILED:
        await transitions.fail(session, work.context, lease.id, lease.error or "")
    else:
        await transitions.finish(session, work.context, lease.id)


DETACH = Procedure(
    Kind.LEASE_DETACH,
    (
        Step("holders", "Looking who uses it", _holders),
        Step("ask", "Asking what uses it to end", _ask),
        Step("end", "Ending what still uses it", _end),
        Step("remove", "Detaching", _remove),
        Step("verify", "Making sure that nothing uses it", _verify),
    ),
    done=_done,
    after=scheduling.poke,
    forward_only=True,
)
