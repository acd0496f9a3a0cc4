"""Operations as people see them, and the one way to start one."""

import asyncio
from contextlib import suppress
from typing import Any

from hutch.domain.ids import new_id
from hutch.domain.operations import ENDED, LIVE, Kind, Operation, OperationState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action, can
from hutch.errors import NotFoundError, WrongStateError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.store import events, operations
from hutch.store.db import Session

ANOTHER_SERVER_SECONDS = 0.5
"""How soon a change made by another server is seen by someone who waits here."""


async def enqueue(
    session: Session,
    context: Context,
    actor: Actor,
    kind: Kind,
    target: str,
    *,
    owner_id: str | None,
    label: str,
    params: dict[str, Any] | None = None,
    message: str = "Waiting to begin",
) -> Operation:
    """Add an operation in an open transaction; `label` is what people call its target.

    Raises BusyError when the target has a live one. Call `context.hints.work.set()` once the
    transaction has been committed.
    """
    now = context.now()
    operation = Operation(
        id=new_id(),
        kind=kind.value,
        target=target,
        owner_id=owner_id,
        params={**(params or {}), "label": label},
        data={},
        state=OperationState.PENDING,
        step="",
        undoing=False,
        cancel_requested=False,
        attempts=0,
        run_at=now,
        lease_token=None,
        lease_until=None,
        progress=0.0,
        message=message,
        error=None,
        created_by=actor.name,
        request_id=actor.request_id,
        created_at=now,
        finished_at=None,
    )
    await operations.add_operation(session, operation)
    return operation


async def show(context: Context, actor: Actor, operation_id: str) -> Operation:
    async with context.db.read() as session:
        operation = await operations.get_operation(session, operation_id)
    if operation is None or not _may_watch(actor, operation):
        raise NotFoundError("operation", operation_id)
    return operation


def _may_watch(actor: Actor, operation: Operation) -> bool:
    """Whose it is, and who began it on what another shares with them."""
    # What belongs to nobody (the pool, a node) is the administrators'.
    mine = can(actor, Action.OPERATION_READ, operation.owner_id or "lab")
    return mine or (operation.created_by == actor.name and can(actor, Action.OPERATION_READ))


async def wait(
    context: Context, actor: Actor, operation_id: str, *, timeout: float, seen: str = ""
) -> Operation:
    """The operation once it has ended or no longer reads as `seen`, or after `timeout` seconds.

    `seen` is what `version` gave for the state that the caller knows. Raises
    TooManyRequestsError when the actor waits for too many already.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    with context.waits.take(actor.user_id), context.hints.watching(operation_id) as changed:
        while True:
            changed.clear()
            operation = await show(context, actor, operation_id)
            left = deadline - loop.time()
            if operation.state in ENDED or (seen and version(operation) != seen) or left <= 0:
                return operation
            # Not wait_for: Python 3.11 can lose a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, ANOTHER_SERVER_SECONDS)):
                    await changed.wait()


def version(operation: Operation) -> str:
    """A short text that changes whenever something about the operation that people see does."""
    flags = f"{int(operation.undoing)}{int(operation.cancel_requested)}"
    return f"{operation.state}.{operation.step}.{operation.attempts}.{flags}"


async def list_all(
    context: Context, actor: Actor, *, everyone: bool = False, live: bool = False, limit: int = 50
) -> list[Operation]:
    """Newest first: one's own, or everyone's for an administrator."""
    require(actor, Action.OPERATION_READ)
    owner_id = None if everyone and actor.is_admin else actor.user_id
    async with context.db.read() as session:
        return await operations.list_operations(
            session, owner_id=owner_id, limit=limit, states=LIVE if live else None
        )


async def retry(context: Context, actor: Actor, operation_id: str) -> Operation:
    """Let a stuck operation run again."""
    operation = await show(context, actor, operation_id)
    require(actor, Action.OPERATION_RETRY, operation.owner_id)
    now = context.now()
    async with context.db.write() as session:
        if not await operations.retry_stuck(session, operation_id, now):
            raise WrongStateError(
                f"The operation is {operation.state}; only a stuck one can be retried.",
                hint="`hutch operation show` tells what it is doing.",
                state=operation.state,
            )
        await events.record(
            session,
            actor,
            now,
            "operation.retry",
            ("operation", operation.id, operation.kind),
            owner_id=operation.owner_id,
        )
    context.hints.work.set()
    return await show(context, actor, operation_id)
