"""When a node that has restarted has come to rest."""

from collections.abc import Callable
from dataclasses import dataclass

SETTLE_SECONDS = 5.0
"""The engine brings back by itself what ran. When it has begun nothing for this long, it is done.
It is also how long an engine's cached list may lag behind before it is believed."""
MOST_SECONDS = 120.0
"""After this long whatever is still down is started, even if something keeps coming and going."""
BLOCKED_SECONDS = 600.0
"""How long a restart stays open for the sake of instances that something else works on."""


@dataclass(slots=True)
class _Restart:
    boot_id: str
    since: float
    running: frozenset[str]
    changed: float


class Settling:
    """What is remembered of nodes that are coming back. Losing it costs a few seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._restarts: dict[str, _Restart] = {}

    def left(self, node_id: str, boot_id: str, running: frozenset[str]) -> float:
        """Seconds until the node counts as settled, given what runs on it now."""
        now = self._clock()
        known = self._restarts.get(node_id)
        if known is None or known.boot_id != boot_id:
            known = self._restarts[node_id] = _Restart(boot_id, now, running, now)
        elif known.running != running:
            known.running, known.changed = running, now
        end = min(known.changed + SETTLE_SECONDS, known.since + MOST_SECONDS)
        return max(0.0, end - now)

    def is_overdue(self, node_id: str) -> bool:
        known = self._restarts.get(node_id)
        return known is not None and self._clock() - known.since > BLOCKED_SECONDS

    def done(self, node_id: str) -> None:
        self._restarts.pop(node_id, None)
