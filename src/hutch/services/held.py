"""What goes on in this process on somebody's behalf, and ends when it may no longer go on."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from hutch.domain.instances import InstanceState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import HutchError

LOOK_SECONDS = 1.0

log = structlog.get_logger("hutch.claims")


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody is busy with an instance."""

    actor: Actor
    instance_id: str
    action: Action
    states: frozenset[InstanceState]
    """Those in which it may go on."""


Reasons = Callable[[Collection[Claim]], Awaitable[dict[Claim, HutchError]]]


@dataclass(eq=False, slots=True)
class _Work:
    claim: Claim
    task: "asyncio.Task[object]"
    lost: HutchError | None = field(default=None)


class Held:
    """All that goes on in this process."""

    def __init__(self) -> None:
        self._held: set[_Work] = set()
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def holding(self, claim: Claim, reasons: Reasons) -> AsyncGenerator[None]:
        """As `claims.holding`; `reasons` says which claims hold no longer, each with why."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is no coroutine outside a task
        held = _Work(claim, task)
        self._held.add(held)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(reasons))
        try:
            yield
        except asyncio.CancelledError:
            if held.lost is not None and task.uncancel() == 0:
                raise held.lost from None
            raise
        finally:
            self._held.discard(held)

    async def _look(self, reasons: Reasons) -> None:
        while self._held:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(reasons)
            except HutchError as error:
                # A database that does not answer ends nobody's work.
                log.warning("Who may go on cannot be looked up", reason=error.message)
            except Exception:
                log.exception("Looking up who may go on failed")

    async def look(self, reasons: Reasons) -> None:
        """End what may no longer go on."""
        held = [each for each in self._held if each.lost is None]
        lost = await reasons({each.claim for each in held})
        for each in held:
            reason = lost.get(each.claim)
            if reason is not None and each in self._held:
                log.info("ended", person=each.claim.actor.name, reason=reason.message)
                each.lost = reason
                each.task.cancel()
