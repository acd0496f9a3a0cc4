"""How much of a gateway one address, one person and everyone together may take.

People's connections and failed logins are counted by all processes of a gateway together (`Board`).
What only keeps one process from being overrun is counted by each for itself: connections that
arrive, and those that have not logged in. Of these each holds a place that can be lost: when there
are too many the oldest goes, of the address that has most, so that who logs in at once always gets
through, however many others say nothing.
"""

import ipaddress
import time
from collections.abc import Callable
from typing import Protocol

from hutch.gateway.board import FAILURES, PEOPLE, SINCE, Board
from hutch.settings import Settings

WAITING_PER_ADDRESS = 64
"""Connections of one address that have not logged in."""
_ARRIVALS_PER_MINUTE = 1200
"""Connections that one address may begin in a minute: setting one up costs milliseconds."""
_MOST_ADDRESSES = 100_000
_EVERYONE = ""
"""What the connections of all people are counted under."""


class Waiting(Protocol):
    """A connection that has not logged in."""

    address: str

    def abort(self) -> None: ...


class Tally:
    """Counts by name, forgotten `seconds` after the first of them."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    def add(self, name: str) -> None:
        now = self._clock()
        if len(self._counts) >= _MOST_ADDRESSES:
            self._forget(now)
        since, count = self._counts.get(name, (now, 0))
        if now - since >= self._seconds:
            since, count = now, 0
        self._counts[name] = since, count + 1

    def wait(self, name: str) -> int:
        """Seconds until a name that was counted too often may come again; 0: now."""
        since, count = self._counts.get(name, (0.0, 0))
        left = since + self._seconds - self._clock()
        return int(left) + 1 if count >= self._most and left > 0 else 0

    def _forget(self, now: float) -> None:
        fresh = {k: v for k, v in self._counts.items() if now - v[0] < self._seconds}
        # So many addresses at once are no people: nobody is counted rather than memory filled.
        self._counts = fresh if len(fresh) < _MOST_ADDRESSES else {}


class Failures:
    """Failed logins of addresses, forgotten `seconds` after the first that a process has seen."""

    def __init__(self, most: int, seconds: int, board: Board, clock: Callable[[], float]) -> None:
        self._most = most
        self._seconds = seconds
        self._board = board
        self._clock = clock

    def add(self, name: str) -> None:
        now = int(self._clock())
        counts, begins = (self._board.places(table, name) for table in (FAILURES, SINCE))
        for count, begin in zip(counts, begins, strict=True):
            if now - self._board.own(begin) >= self._seconds:
                self._board.put(begin, now)
                self._board.put(count, 0)
            self._board.put(count, self._board.own(count) + 1)

    def wait(self, name: str) -> int:
        """Seconds until an address that has failed too often may come again; 0: now."""
        now = self._clock()
        counts, begins = (self._board.places(table, name) for table in (FAILURES, SINCE))
        waits: list[int] = []
        for count, begin in zip(counts, begins, strict=True):
            seen = zip(self._board.column(count), self._board.column(begin), strict=True)
            fresh = [(many, since) for many, since in seen if now - since < self._seconds]
            if sum(many for many, _ in fresh) < self._most:
                return 0
            waits.append(int(max(since for _, since in fresh) + self._seconds - now) + 1)
        return min(waits)


class Limits:
    """Admits connections, logins and failures, or says in a sentence why not."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        board: Board | None = None,
    ) -> None:
        self._settings = settings
        self._arrivals = Tally(_ARRIVALS_PER_MINUTE, 60, clock)
        self._board = board or Board.alone()
        self._failures = Failures(
            settings.gateway_failures, settings.login_window_seconds, self._board, clock
        )
        self._waiting: dict[str, dict[Waiting, None]] = {}
        self._waiting_count = 0

    @property
    def waiting(self) -> int:
        """Connections that have not logged in."""
        return self._waiting_count

    def admit(self, address: str) -> str:
        """Count a connection that arrives; why it is turned away, or nothing."""
        wait = self._failures.wait(address) or self._arrivals.wait(address)
        self._arrivals.add(address)
        return f"Too many attempts from {address}. Try again in {wait} s." if wait else ""

    def begin(self, connection: Waiting) -> None:
        """Give a connection a place until it has logged in, for which another may lose its own."""
        mine = self._waiting.get(connection.address, {})
        if len(mine) >= WAITING_PER_ADDRESS:
            self._evict(mine)
        elif self._waiting_count >= self._settings.gateway_waiting:
            self._evict(max(self._waiting.values(), key=len))
        self._waiting.setdefault(connection.address, {})[connection] = None
        self._waiting_count += 1

    def _evict(self, among: dict[Waiting, None]) -> None:
        oldest = next(iter(among))
        self.end(oldest)
        oldest.abort()

    def end(self, connection: Waiting) -> None:
        """A connection has logged in or gone. It may be told twice."""
        mine = self._waiting.get(connection.address, {})
        if connection in mine:
            del mine[connection]
            self._waiting_count -= 1
            if not mine:
                del self._waiting[connection.address]

    def fail(self, address: str) -> None:
        """Count a connection that tried to log in and could not."""
        self._failures.add(address)

    def enter(self, user_id: str) -> str:
        """Count a login; why it is one too many (then it is not counted), or nothing."""
        mine = self._board.total(PEOPLE, user_id)
        most = self._settings.gateway_connections_per_person
        if mine >= most:
            return f"You have {mine} connections to this gateway, and may have {most}."
        if self._board.total(PEOPLE, _EVERYONE) >= self._settings.gateway_connections:
            return "This gateway has as many connections as it may. Try again in a moment."
        for name in (user_id, _EVERYONE):
            self._board.add(PEOPLE, name, 1)
        return ""

    def leave(self, user_id: str) -> None:
        """A connection that had entered is gone."""
        for name in (user_id, _EVERYONE):
            self._board.add(PEOPLE, name, -1)


def unit(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
