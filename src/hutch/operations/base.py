"""What an operation is made of: steps that may be repeated, and how they are undone."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from hutch.domain.operations import Kind, Operation
from hutch.engine.base import Engine
from hutch.errors import HutchError
from hutch.services.context import Context
from hutch.store import nodes, operations
from hutch.store.db import Session


class Retry(Exception):  # noqa: N818 - an instruction to the runner, not an error
    """Come back to this step later; nothing is wrong."""

    def __init__(self, delay: float, message: str = "") -> None:
        super().__init__(message)
        self.delay = delay
        """Seconds."""
        self.message = message


class Done(Exception):  # noqa: N818 - an instruction to the runner
    """The steps that are left have nothing to do any more."""


class Failed(Exception):  # noqa: N818 - an instruction to the runner
    """It cannot be done: undo what was begun, and tell the person this."""

    def __init__(self, error: HutchError) -> None:
        super().__init__(error.message)
        self.error = error


class LeaseLostError(Exception):
    """Another server has taken this operation over: stop at once and touch nothing."""


class Work:
    """One operation in the hands of a runner."""

    def __init__(self, context: Context, operation: Operation) -> None:
        self.context = context
        self.operation = operation

    @property
    def params(self) -> Mapping[str, Any]:
        return self.operation.params

    @property
    def data(self) -> Mapping[str, Any]:
        return self.operation.data

    async def save(self, *, durable: bool = True, **values: Any) -> None:
        """Save columns of the operation, or raise LeaseLostError."""
        async with self.context.db.write(durable=durable) as session:
            await self._save_in(session, values)

    async def remember(self, **data: Any) -> None:
        """Save what a step decided, before it acts on it."""
        await self.save(data={**self.operation.data, **data})

    @asynccontextmanager
    async def guarded(self, *, durable: bool = True, **data: Any) -> AsyncGenerator[Session]:
        """A transaction that is committed only while the lease is held.

        `data` is remembered in the same transaction; more can be given to `remember_in`.
        """
        async with self.context.db.write(durable=durable) as session:
            await self._save_in(session, {"data": {**self.operation.data, **data}})
            yield session

    async def remember_in(self, session: Session, **data: Any) -> None:
        """As `remember`, in an open `guarded` transaction."""
        await self._save_in(session, {"data": {**self.operation.data, **data}})

    async def _save_in(self, session: Session, values: dict[str, Any]) -> None:
        if not await operations.save(session, self.operation, **values):
            raise LeaseLostError
        self.operation = replace(self.operation, **values)

    async def engine(self, node_id: str) -> Engine:
        """The engine of a node."""
        async with self.context.db.read() as session:
            node = await nodes.get_node(session, node_id)
        if node is None:
            raise LookupError(f"node {node_id} is gone")
        return self.context.engines.of(node)


Act = Callable[[Work], Awaitable[None]]
Ending = Callable[[Session, Work], Awaitable[None]]
Hint = Callable[[Context], object]
FailedEnding = Callable[[Session, Work, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    """Saved with the operation: never renamed while operations that name it may be live."""
    message: str
    """What people read while it runs."""
    do: Act
    """Make it so. Repeating it is harmless."""
    undo: Act | None = None
    """Make it as it was, whether `do` had happened, had half happened, or had not."""
    pivot: bool = False
    """From this step on there is no way back, only forward."""


async def _nothing(_session: Session, _work: Work) -> None:
    return None


def _no_hint(_context: Context) -> None:
    return None


async def _nothing_failed(_session: Session, _work: Work, _error: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Procedure:
    """A kind of operation: its steps, and what is written in the transaction that ends it."""

    kind: Kind
    steps: tuple[Step, ...]
    done: Ending = _nothing
    failed: FailedEnding = _nothing_failed
    cancelled: Ending = _nothing
    after: Hint = _no_hint
    """Called once its end has been committed, however it ended. Losing it costs time alone."""
    forward_only: bool = False
    """There is no way back from the first step on: errors are tried again, then it is stuck."""

    def index(self, step: str) -> int:
        """The position of a step; the first for an operation that has not begun."""
        if not step:
            return 0
        for index, known in enumerate(self.steps):
            if known.name == step:
                return index
        raise LookupError(f"{self.kind} has no step {step!r}")

    def is_past_pivot(self, index: int) -> bool:
        """Whether an operation that has begun step `index` can no longer be undone.

        The pivot itself counts: when it fails, nobody knows whether it had happened.
        """
        return self.forward_only or any(step.pivot for step in self.steps[: index + 1])
