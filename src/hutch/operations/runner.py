"""Carries operations out, one step at a time, so that a crash at any line loses nothing.

An operation belongs to the runner that holds its lease. Before every step the row says which step
comes; after the step, one conditional update says which is next. Whoever finds the row after a
crash repeats the step that was being done, which is harmless because every step means "make it so".

    claim ──> do step ──> save next ──> … ──> done
                │ Failed, or asked to cancel
                └──> undo this step ──> undo the one before ──> … ──> failed | cancelled
                │ engine silent, Retry           │ unforeseen, again and again
                └──> same step, later            └──> stuck, until an administrator retries it
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from typing import Any

import structlog

from hutch.domain.operations import Operation, OperationState
from hutch.domain.people import Actor, Role
from hutch.errors import (
    DatabaseUnavailableError,
    EngineConflictError,
    EngineUnavailableError,
    HutchError,
    InternalError,
)
from hutch.operations.base import Done, Failed, LeaseLostError, Procedure, Retry, Step, Work
from hutch.operations.registry import PROCEDURES
from hutch.services.context import Context
from hutch.store import events, operations

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""How soon work that another server added, or left behind, is noticed."""
LONGEST_DELAY = 60.0
"""Seconds between two attempts, at most."""


class _CancelledInTimeError(Exception):
    """Somebody wants the opposite of what has just been done, and it can still be undone."""


class Runner:
    """Works on up to `settings.operations_at_once` operations at the same time."""

    def __init__(self, context: Context, procedures: Mapping[str, Procedure] | None = None) -> None:
        self._context = context
        self._procedures = PROCEDURES if procedures is None else procedures
        self._lease = timedelta(seconds=context.settings.operation_lease_seconds)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str | None] = {}
        self._closing = False

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What carries out the operations in hand, a task each."""
        return list(self._running.values())

    async def run(self) -> None:
        """Work until cancelled; operations in hand are then released after their present step."""
        try:
            while not self._closing:
                self._context.hints.work.clear()
                pause = POLL_SECONDS
                try:
                    pause = await self._fill()
                except DatabaseUnavailableError as error:
                    log.warning("database unavailable", reason=error.message)
                except Exception:
                    log.exception("looking for operations failed")
                # Not wait_for: Python 3.11 can lose a cancellation that comes with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._context.hints.work.wait()
        finally:
            self._closing = True

    async def drain(self, timeout: float) -> None:
        """Begin nothing new, let every step in hand finish, and let go of the rest.

        After `timeout` seconds, steps are broken off where they are; the next server repeats them.
        """
        self._closing = True
        self._context.hints.work.set()
        tasks = list(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _fill(self) -> float:
        """Claim what is due while there is room; how long to sleep, in seconds."""
        while not self._closing and len(self._running) < self._context.settings.operations_at_once:
            busy = frozenset(self._running)
            async with self._context.db.read() as session:
                due = await operations.next_due(session, busy)
            now = self._context.now()
            if due is None:
                return POLL_SECONDS
            far = due > now + operations.LONGEST_WAIT
            if due > now and not far:
                return min(POLL_SECONDS, (due - now).total_seconds())
            # Should a power cut take it back, then nobody has claimed it: the next server does.
            async with self._context.db.write(durable=False) as session:
                operation = await operations.claim(
                    session, now, self._lease, busy=busy, crowding=self._crowding()
                )
            if operation is None:
                return POLL_SECONDS
            task = asyncio.create_task(self._carry_out(operation), name=operation.id)
            self._running[operation.id] = task
            self._owners[operation.id] = operation.owner_id
            task.add_done_callback(lambda _, key=operation.id: self._let_go(key))
        return POLL_SECONDS

    def _crowding(self) -> frozenset[str]:
        """People whose operations already take half of the places: the rest is for others."""
        most = max(1, self._context.settings.operations_at_once // 2)
        counted = Counter(owner for owner in self._owners.values() if owner is not None)
        return frozenset(owner for owner, count in counted.items() if count >= most)

    def _let_go(self, operation_id: str) -> None:
        self._running.pop(operation_id, None)
        self._owners.pop(operation_id, None)
        self._context.hints.work.set()

    async def _carry_out(self, operation: Operation) -> None:
        work = Work(self._context, operation)
        with structlog.contextvars.bound_contextvars(
            operation=operation.id, kind=operation.kind, request_id=operation.request_id
        ):
            heart = asyncio.create_task(self._beat(work, asyncio.current_task()))
            try:
                await self._advance(work)
            except LeaseLostError:
                log.warning("operation taken over by another server")
            except asyncio.CancelledError:
                log.info("operation broken off", step=work.operation.step)
            except DatabaseUnavailableError as error:
                # The lease runs out by itself, and whoever finds the row repeats the step.
                log.warning("operation left where it is", reason=error.message)
            except Exception:
                log.exception("operation left where it is")
            finally:
                heart.cancel()
                self._tell(operation)

    def _tell(self, operation: Operation) -> None:
        """Wake whoever watches an operation, or what it works on."""
        self._context.hints.changed(operation.id)
        self._context.hints.changed(operation.target.partition(":")[2])

    async def _beat(self, work: Work, task: asyncio.Task[None] | None) -> None:
        """Renew the lease while a step runs; break the step off when it was lost.

        It is also lost when it could not be renewed for as long as it lasts: another server that
        still reaches the database has taken the operation over by then.
        """
        seconds = self._lease.total_seconds()
        renewed = time.monotonic()
        while time.monotonic() - renewed < seconds:
            await asyncio.sleep(seconds / 3)
            try:
                async with self._context.db.write(durable=False) as session:
                    until = self._context.now() + self._lease
                    if not await operations.save(session, work.operation, lease_until=until):
                        break
                renewed = time.monotonic()
            except Exception as error:
                log.warning("lease not renewed", reason=str(error))
        if task is not None:
            task.cancel()

    async def _advance(self, work: Work) -> None:
        """Do steps, or undo them, until the operation ends or has to wait."""
        procedure = self._procedures.get(work.operation.kind)
        if procedure is None:
            await self._stick(work, InternalError(f"Unknown kind {work.operation.kind!r}."))
            return
        while not self._closing:
            index = procedure.index(work.operation.step)
            step = procedure.steps[index]
            if not work.operation.undoing and await self._must_cancel(work, procedure, index):
                await work.save(
                    undoing=True,
                    step=step.name,
                    attempts=0,
                    error=None,
                    message="Cancelling",
                )
                self._tell(work.operation)
            try:
                if work.operation.undoing:
                    ended = await self._undo(work, procedure, index)
                else:
                    ended = await self._do(work, procedure, index)
            except (LeaseLostError, DatabaseUnavailableError, asyncio.CancelledError):
                raise
            except Exception as error:
                ended = await self._handle(work, procedure, index, step, error)
            self._tell(work.operation)
            if ended:
                return
        await work.save(lease_token=None, lease_until=None, state=OperationState.PENDING.value)

    async def _must_cancel(self, work: Work, procedure: Procedure, index: int) -> bool:
        if procedure.is_past_pivot(index):
            return False
        async with self._context.db.read() as session:
            return await operations.cancel_requested(session, work.operation.id)

    async def _do(self, work: Work, procedure: Procedure, index: int) -> bool:
        step = procedure.steps[index]
        # The first step's message was saved with the row; later ones with the step before.
        if work.operation.step and work.operation.message != step.message:
            await work.save(message=step.message, durable=False)
            self._tell(work.operation)
        is_last = index + 1 == len(procedure.steps)
        try:
            await step.do(work)
        except Done:
            is_last = True
        if is_last:
            try:
                await self._end(work, procedure, OperationState.DONE)
            except _CancelledInTimeError:
                return False
            return True
        following = procedure.steps[index + 1]
        await work.save(
            step=following.name,
            message=following.message,
            progress=(index + 1) / len(procedure.steps),
            attempts=0,
        )
        return False

    async def _undo(self, work: Work, procedure: Procedure, index: int) -> bool:
        step = procedure.steps[index]
        if step.undo is not None:
            await step.undo(work)
        if index == 0:
            async with self._context.db.read() as session:
                cancelled = await operations.cancel_requested(session, work.operation.id)
            state = OperationState.CANCELLED if cancelled else OperationState.FAILED
            await self._end(work, procedure, state)
            return True
        await work.save(step=procedure.steps[index - 1].name, attempts=0)
        return False

    async def _end(self, work: Work, procedure: Procedure, state: OperationState) -> None:
        """The last transaction: what the operation leaves behind, and that it has ended.

        Raises _CancelledInTimeError when it was asked to stop during its last step, and can.
        """
        now = self._context.now()
        operation = work.operation
        async with self._context.db.write() as session:
            values: dict[str, Any] = {
                "state": state.value,
                "finished_at": now,
                "progress": 1.0 if state is OperationState.DONE else operation.progress,
                "message": _ENDINGS[state],
            }
            if not await operations.save(session, operation, **values):
                raise LeaseLostError
            # The row is locked by now: a request to cancel was in time, or it comes too late.
            if (
                state is OperationState.DONE
                and not procedure.is_past_pivot(len(procedure.steps))
                and await operations.cancel_requested(session, operation.id)
            ):
                raise _CancelledInTimeError
            if state is OperationState.DONE:
                await procedure.done(session, work)
            elif state is OperationState.FAILED:
                await procedure.failed(session, work, operation.error or {})
            else:
                await procedure.cancelled(session, work)
            noun, _, target_id = operation.target.partition(":")
            await events.record(
                session,
                Actor("", operation.created_by, Role.MEMBER, request_id=operation.request_id),
                now,
                operation.kind.replace("_", ".", 1),
                (noun, target_id, str(operation.params["label"])),
                owner_id=operation.owner_id,
                result=_RESULTS[state],
                operation=operation.id,
                **({"error": operation.error} if operation.error else {}),
            )
        procedure.after(self._context)
        log.info("operation ended", state=state.value, error=operation.error)

    async def _handle(
        self, work: Work, procedure: Procedure, index: int, step: Step, error: Exception
    ) -> bool:
        """Decide what an error means; True when the operation rests or has ended."""
        operation = work.operation
        if isinstance(error, Retry):
            await self._later(work, error.delay, error.message or operation.message)
            return True
        if isinstance(error, EngineUnavailableError):
            log.warning("engine unavailable", step=step.name, reason=error.message)
            # A tenth of its age: at once for a hiccup, seldom for a node that is away for days.
            age = (self._context.now() - operation.created_at).total_seconds()
            delay = min(LONGEST_DELAY, max(0.25, age / 10))
            await self._later(work, delay, "Waiting for the node to answer")
            return True
        may_undo = not operation.undoing and not procedure.is_past_pivot(index)
        reason = _told(error)
        verdict = judge(
            error, may_undo, operation.attempts + 1, self._context.settings.operation_attempts
        )
        log.warning(
            "step went wrong",
            step=step.name,
            reason=reason.message,
            verdict=verdict.value,
            exc_info=error if isinstance(reason, InternalError) else None,
        )
        if verdict is Verdict.UNDO:
            await work.save(
                undoing=True, step=step.name, attempts=0, error=reason.as_dict(), message="Undoing"
            )
            return False
        if verdict is Verdict.STICK:
            await self._stick(work, reason)
            return True
        delay = min(LONGEST_DELAY, 0.25 * 2 ** min(operation.attempts, 16))
        await self._later(work, delay, operation.message, attempts=operation.attempts + 1)
        return True

    async def _later(
        self, work: Work, delay: float, message: str, *, attempts: int | None = None
    ) -> None:
        await work.save(
            attempts=work.operation.attempts if attempts is None else attempts,
            run_at=self._context.now() + timedelta(seconds=delay),
            message=message,
            lease_token=None,
            lease_until=None,
        )

    async def _stick(self, work: Work, reason: HutchError) -> None:
        log.error("operation is stuck", step=work.operation.step, reason=reason.message)
        await work.save(
            state=OperationState.STUCK.value,
            error=reason.as_dict(),
            message="Stuck: an administrator has to look",
            lease_token=None,
            lease_until=None,
        )


class Verdict(Enum):
    """What becomes of an operation whose step went wrong."""

    AGAIN = "again"
    UNDO = "undo"
    STICK = "stick"


def judge(error: Exception, may_undo: bool, attempt: int, most: int) -> Verdict:
    """What an error means, the `attempt`-th in a row at this step.

    | error                | while undo is possible       | when it is not               |
    |----------------------|------------------------------|------------------------------|
    | refused (ours)       | undo at once                 | again for about an hour      |
    | engine busy          | again for minutes, then undo | again for about an hour      |
    | nobody foresaw it    | again `most` times, then it waits for an administrator      ||
    """
    if not isinstance(error, (Failed, HutchError)):
        return Verdict.AGAIN if attempt < most else Verdict.STICK
    if not may_undo:
        return Verdict.AGAIN if attempt < most * 12 else Verdict.STICK
    if isinstance(error, EngineConflictError) and attempt < most * 2:
        return Verdict.AGAIN
    return Verdict.UNDO


_ENDINGS = {
    OperationState.DONE: "Done",
    OperationState.FAILED: "Failed, and undone",
    OperationState.CANCELLED: "Cancelled",
}
_RESULTS = {
    OperationState.DONE: "ok",
    OperationState.FAILED: "failed",
    OperationState.CANCELLED: "cancelled",
}


def _told(error: Exception) -> HutchError:
    """What people read of an error: ours as it is, others without their inner life."""
    if isinstance(error, Failed):
        return error.error
    if isinstance(error, HutchError):
        return error
    return InternalError(
        f"Something unforeseen happened ({type(error).__name__}).",
        hint="The server's log has the whole story under this operation's id.",
    )
