"""How many things of one kind go on at once, so that nobody uses the server up."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from hutch.errors import TooManyRequestsError


class Slots:
    """A number of places in all, and how many of them one person may take."""

    def __init__(self, what: str, *, each: int, all_: int) -> None:
        self._what = what
        self._each = each
        self._all = all_
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, user_id: str) -> Generator[None]:
        """Hold a place while the block runs. Raises TooManyRequestsError when there is none."""
        if self._taken[user_id] >= self._each or self._taken.total() >= self._all:
            raise TooManyRequestsError(f"Too many {self._what} at once.", retry_after=1)
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]
