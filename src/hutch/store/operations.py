"""Operations: claimed under a lease, saved only by who holds it."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.ids import new_id
from hutch.domain.operations import ENDED, LIVE, Operation, OperationState
from hutch.errors import BusyError
from hutch.store.db import Session, columns
from hutch.store.tables import operations

LONGEST_WAIT = timedelta(minutes=30)
"""No retry is put off further. A later `run_at` means that the clock was set back: it is due."""

MOST_SKEW = timedelta(minutes=5)
"""A lease that ends later than it could by this much was given before a clock was set back.

Servers that share a database must agree on the time to within a third of a lease.
"""

_RUNNABLE = (OperationState.PENDING.value, OperationState.RUNNING.value)


def _operation(row: Any) -> Operation:
    return Operation(**columns(row, state=OperationState(row.state)))


async def add_operation(session: Session, operation: Operation) -> None:
    """Insert an operation. Raises BusyError, naming the live one, when the target has one."""
    live = await live_operation(session, operation.target)
    if live is not None:
        raise BusyError(operation.target.partition(":")[0].capitalize(), live.id, live.kind)
    values = {name: getattr(operation, name) for name in Operation.__slots__}
    try:
        # A savepoint: the caller may go on in this transaction, which PostgreSQL would end.
        async with session.begin_nested():
            await session.execute(
                operations.insert().values(values | {"state": operation.state.value})
            )
    except IntegrityError as error:
        # Another server's transaction was faster; its operation is not visible in this one.
        raise BusyError(operation.target.partition(":")[0].capitalize(), "", "work") from error


async def live_operation(session: Session, target: str) -> Operation | None:
    query = select(operations).where(
        operations.c.target == target, operations.c.state.in_([state.value for state in LIVE])
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _operation(row)


async def get_operation(session: Session, operation_id: str) -> Operation | None:
    query = select(operations).where(operations.c.id == operation_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _operation(row)


async def list_operations(
    session: Session,
    *,
    limit: int,
    owner_id: str | None = None,
    target: str | None = None,
    states: frozenset[OperationState] | None = None,
) -> list[Operation]:
    """Newest first."""
    query = select(operations).order_by(operations.c.created_at.desc(), operations.c.id)
    if owner_id is not None:
        query = query.where(operations.c.owner_id == owner_id)
    if target is not None:
        query = query.where(operations.c.target == target)
    if states is not None:
        query = query.where(operations.c.state.in_([state.value for state in states]))
    return [_operation(row) for row in await session.execute(query.limit(limit))]


async def live_targets(session: Session) -> set[str]:
    """Everything that has a live operation."""
    query = select(operations.c.target).where(
        operations.c.state.in_([state.value for state in LIVE])
    )
    return set((await session.execute(query)).scalars())


async def claim(
    session: Session,
    now: datetime,
    lease: timedelta,
    *,
    busy: frozenset[str] = frozenset(),
    crowding: frozenset[str] = frozenset(),
) -> Operation | None:
    """Take the operation that has been due for longest, under a new lease token.

    `busy` names those which this process is already working on: when the clock jumps, their
    leases may look expired, and must not be taken from oneself. `crowding` names people whose
    operations have to wait for others'. A lease that ends too far in the
    future was given before the clock was set back, and counts as expired.
    """
    due = (
        select(operations.c.id)
        .where(
            operations.c.state.in_(_RUNNABLE),
            or_(operations.c.run_at <= now, operations.c.run_at > now + LONGEST_WAIT),
            or_(
                operations.c.lease_token.is_(None),
                operations.c.lease_until < now,
                operations.c.lease_until > now + lease + MOST_SKEW,
            ),
            operations.c.id.not_in(busy),
            or_(operations.c.owner_id.is_(None), operations.c.owner_id.not_in(crowding)),
        )
        .order_by(operations.c.run_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (
        await session.execute(
            update(operations)
            .where(operations.c.id == due.scalar_subquery())
            .values(
                state=OperationState.RUNNING.value, lease_token=new_id(), lease_until=now + lease
            )
            .returning(*operations.c)
        )
    ).one_or_none()
    return None if row is None else _operation(row)


async def next_due(session: Session, busy: frozenset[str]) -> datetime | None:
    """When the next operation that nobody works on becomes due, as far as is known."""
    # Counted over all of them: what other servers hold must not hide what nobody has begun.
    due = case(
        (operations.c.lease_until > operations.c.run_at, operations.c.lease_until),
        else_=operations.c.run_at,
    )
    query = select(func.min(due)).where(
        operations.c.state.in_(_RUNNABLE), operations.c.id.not_in(busy)
    )
    return (await session.execute(query)).scalar_one()


async def save(session: Session, operation: Operation, **values: Any) -> bool:
    """Save columns of an operation if its lease is still held; False means: stop at once."""
    query = update(operations).where(
        operations.c.id == operation.id, operations.c.lease_token == operation.lease_token
    )
    return (await session.execute(query.values(**values))).rowcount == 1


async def request_cancel(session: Session, operation_id: str) -> bool:
    """Ask an operation to stop and undo what it has begun; False when it has ended meanwhile."""
    query = update(operations).where(
        operations.c.id == operation_id, operations.c.state.in_(_RUNNABLE)
    )
    return (await session.execute(query.values(cancel_requested=True))).rowcount == 1


async def cancel_requested(session: Session, operation_id: str) -> bool:
    query = select(operations.c.cancel_requested).where(operations.c.id == operation_id)
    return bool((await session.execute(query)).scalar_one_or_none())


async def end_stuck(session: Session, operation_id: str, now: datetime) -> bool:
    """Give up a stuck operation in favour of another one; False when it was not stuck."""
    query = (
        update(operations)
        .where(operations.c.id == operation_id, operations.c.state == OperationState.STUCK.value)
        .values(state=OperationState.CANCELLED.value, finished_at=now)
    )
    return (await session.execute(query)).rowcount == 1


async def retry_stuck(session: Session, operation_id: str, now: datetime) -> bool:
    """Let a stuck operation run again; False when it was not stuck."""
    query = (
        update(operations)
        .where(operations.c.id == operation_id, operations.c.state == OperationState.STUCK.value)
        .values(
            state=OperationState.PENDING.value,
            attempts=0,
            run_at=now,
            lease_token=None,
            lease_until=None,
        )
    )
    return (await session.execute(query)).rowcount == 1


async def delete_ended(session: Session, before: datetime) -> int:
    query = delete(operations).where(
        operations.c.state.in_([state.value for state in ENDED]),
        operations.c.finished_at < before,
    )
    return (await session.execute(query)).rowcount
