"""Trying again what did not help, less and less often."""

from collections.abc import Callable, Iterable

FIRST_PAUSE = 15.0
"""Seconds until what did not help is tried again; doubled each time."""
LONGEST_PAUSE = 3600.0


class Pauses:
    """What was tried, by name. Losing it costs one try more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tried: dict[str, tuple[int, float]] = {}
        """How often, and when it may be tried next."""

    def keep(self, names: Iterable[str]) -> None:
        """Forget everything but these: the rest has been dealt with."""
        kept = set(names)
        self._tried = {name: value for name, value in self._tried.items() if name in kept}

    def is_due(self, name: str) -> bool:
        return self._tried.get(name, (0, self._clock()))[1] <= self._clock()

    def tried(self, name: str) -> None:
        times = self._tried.get(name, (0, 0.0))[0]
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(times, 16))
        self._tried[name] = (times + 1, self._clock() + pause)
