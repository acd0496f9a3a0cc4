"""What the agents of nodes read from their accelerators, gathered and written now and then."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from hutch.domain.accelerators import Accelerator, Health, Reading
from hutch.domain.nodes import Node
from hutch.services.accelerators import note_health, note_return
from hutch.services.context import Context
from hutch.store import accelerators, nodes
from hutch.store.accelerators import Holder, Sample
from hutch.store.db import Session

LONGEST_SPAN = 60.0
"""Seconds that one reading may stand for at most: an agent that hung did not compute meanwhile."""


@dataclass(slots=True)
class _Span:
    """Readings of one accelerator since its last sample."""

    latest: Reading
    is_news: bool = True
    """Whether `latest` has not been written down yet."""
    seconds: float = 0.0
    told: float = 0.0
    """The seconds of which the utilisation is known."""
    computed: float = 0.0
    """The integral of the utilisation over those."""
    peak: float = 0.0
    memory: int | None = None
    busy: float = 0.0
    """Busy seconds that have not been booked yet."""

    def add(self, reading: Reading, seconds: float, threshold: float) -> None:
        self.latest = reading
        self.is_news = True
        self.seconds += seconds
        if reading.memory_used is not None:
            self.memory = max(self.memory or 0, reading.memory_used)
        if reading.utilisation is not None:
            self.told += seconds
            self.computed += reading.utilisation * seconds
            self.peak = max(self.peak, reading.utilisation)
            if reading.utilisation >= threshold:
                self.busy += seconds

    def as_sample(self, accelerator_id: str, at: datetime) -> Sample:
        return Sample(
            accelerator_id=accelerator_id,
            at=at,
            seconds=self.seconds,
            utilisation=self.computed / self.told if self.told else None,
            peak=self.peak if self.told else None,
            memory_used=self.memory,
            temperature=self.latest.temperature,
            power=self.latest.power,
            processes=[asdict(each) for each in self.latest.processes],
        )

    def begin_anew(self) -> None:
        self.seconds = self.told = self.computed = self.peak = 0.0
        self.memory = None


class Recorder:
    """What one connection of an agent has told since it was last written down."""

    def __init__(self, context: Context, node: Node, connection: str) -> None:
        self._context = context
        self._node = node
        self._connection = connection
        self._spans: dict[str, _Span] = {}
        """By address."""

    def add(self, readings: Iterable[Reading], seconds: float) -> None:
        """Readings that stand for the `seconds` since those before."""
        threshold = self._context.settings.idle_threshold_percent / 100
        seconds = min(max(seconds, 0.0), LONGEST_SPAN)
        for reading in readings:
            span = self._spans.setdefault(reading.address, _Span(reading))
            span.add(reading, seconds, threshold)

    def outdate(self) -> None:
        """What has come so far is older than what the node has told to have since."""
        for span in self._spans.values():
            span.is_news = False

    async def flush(self, *, last: bool = False) -> bool:
        """Write down what has come, in one short transaction.

        False when another connection counts by now, and nothing is kept. `last`: samples of spans
        that are not full yet are written as well.
        """
        now = self._context.now()
        # Every second of every node: what a power cut takes of it, nobody misses.
        async with self._context.db.write(durable=False) as session:
            node = await nodes.touch_agent(session, self._node.id, self._connection, now)
            if node is None:
                return False
            changed = await note_return(session, self._context, node)
            known = {
                each.id: each
                for each in await accelerators.list_accelerators(session, node_id=node.id)
                # What is missing is found again by being found: a reading may be of another card.
                if each.found.address in self._spans and each.found.health is not Health.MISSING
            }
            spans = {key: self._spans[each.found.address] for key, each in known.items()}
            news = {key: span.latest for key, span in spans.items() if span.is_news}
            await accelerators.set_readings(session, news, now)
            for key, latest in news.items():
                changed |= await _set_health(session, known[key], latest, now)
            await self._book(session, known, spans, now)
            full = {
                key: span
                for key, span in spans.items()
                if span.seconds >= self._context.settings.sample_seconds
                or (last and span.seconds > 0)
            }
            await accelerators.add_samples(
                session, [span.as_sample(key, now) for key, span in full.items()]
            )
        # Only now: what a transaction that failed did not keep is written by the next one.
        for span in full.values():
            span.begin_anew()
        for span in self._spans.values():
            span.busy, span.is_news = 0.0, False
        if changed:
            self._context.hints.reconcile.set()
        return True

    async def _book(
        self,
        session: Session,
        known: dict[str, Accelerator],
        spans: dict[str, _Span],
        now: datetime,
    ) -> None:
        """Add the busy seconds to whoever holds the accelerators."""
        if not any(span.busy for span in spans.values()):
            return
        seconds: dict[str, float] = {}
        for holder in await accelerators.list_holders(session, self._node.id):
            span = spans.get(holder.accelerator_id)
            if span is not None and span.busy:
                if known[holder.accelerator_id].sharers > 1 and not _computes(holder, span.latest):
                    continue
                seconds[holder.holding_id] = span.busy
        await accelerators.add_busy(session, seconds, now.date().isoformat())


def _computes(holder: Holder, reading: Reading) -> bool:
    """Whether it may be this sharer that computes: nobody can tell when no process is known."""
    inside = {each.container for each in reading.processes}
    return not inside or holder.container in inside


async def _set_health(
    session: Session, known: Accelerator, reading: Reading, now: datetime
) -> bool:
    """Take a reading's word for how an accelerator is; whether that is news."""
    before = known.found
    health, reason = reading.health, reading.reason
    if health is Health.UNKNOWN or (before.health, before.reason) == (health, reason):
        return False
    await accelerators.update_accelerator(session, known.id, health=health.value, reason=reason)
    await note_health(session, known, health, reason, now)
    return True
