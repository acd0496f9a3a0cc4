"""Who holds how many accelerators, how many more they may hold, and what of it is borrowed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from hutch.domain.situation import GroupShare, Request, Waiting

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
NO_GROUP = GroupShare(guarantee=0, limit=None, weight=1.0)
"""What somebody without a group has, or of a group that is gone."""
_NO_LIMIT = 2**62


class Ledger:
    """The counts of people and groups over all nodes, kept up as grants are made.

    What is being taken away still counts: it is held until it has left.
    """

    def __init__(
        self,
        held: Iterable[Request],
        groups: Mapping[str, GroupShare],
        maximum: Mapping[str, int],
        is_leaving: Callable[[Request], bool],
    ) -> None:
        self._groups = groups
        self._is_leaving = is_leaving
        self._maximum = maximum
        self._persons: dict[str, int] = defaultdict(int)
        self._held: dict[str, int] = defaultdict(int)
        self._kept: dict[str, int] = defaultdict(int)
        self._of_groups: dict[str, list[Request]] = defaultdict(list)
        self._guaranteed: dict[str, set[str]] = {}
        persons, of_group, of_groups = self._persons, self._held, self._of_groups
        for request in held:  # as `add` does
            persons[request.owner_id] += request.count
            if (group := request.group_id) is not None:
                of_group[group] += request.count
                of_groups[group].append(request)

    def add(self, request: Request) -> None:
        """Count a lease that holds accelerators."""
        self._persons[request.owner_id] += request.count
        if request.group_id is not None:
            self._held[request.group_id] += request.count
            self._of_groups[request.group_id].append(request)
            self._guaranteed.pop(request.group_id, None)

    def share(self, request: Request) -> GroupShare:
        if request.group_id is None:
            return NO_GROUP
        return self._groups.get(request.group_id, NO_GROUP)

    def left_to_person(self, request: Request) -> int:
        """How many more its owner may hold; below 0 where the maximum was lowered. Of a person
        about whom nothing is known: none."""
        return self._maximum.get(request.owner_id, 0) - self._persons[request.owner_id]

    def left_to_group(self, request: Request) -> int:
        """How many more its group may hold."""
        limit = self.share(request).limit
        return _NO_LIMIT if limit is None else limit - self._held[request.group_id or ""]

    def left_of_guarantee(self, request: Request) -> int:
        """How much of its group's guarantee is not held yet."""
        return self.share(request).guarantee - self._held[request.group_id or ""]

    def limit_of(self, request: Request) -> Waiting | None:
        """Which limit of its own holds a lease up, if any does."""
        if request.count > self.left_to_person(request):
            return Waiting.PERSON
        if request.count > self.left_to_group(request):
            return Waiting.GROUP
        return None

    def is_within_guarantee(self, request: Request) -> bool:
        """Whether its group is entitled to a waiting lease: with it the group would still hold
        no more than its guarantee, and what is kept of that for leases before it."""
        return request.count <= self.left_of_guarantee(request) - self.kept(request)

    def keep(self, request: Request) -> None:
        """Keep a part of the group's guarantee for a lease for which room is being made."""
        if request.group_id is not None:
            self._kept[request.group_id] += request.count

    def kept(self, request: Request) -> int:
        """How much of its group's guarantee is kept for leases for which room is being made."""
        return 0 if request.group_id is None else self._kept[request.group_id]

    def keep_nothing(self) -> None:
        self._kept.clear()

    def is_borrowed(self, request: Request) -> bool:
        """Whether a lease that holds accelerators has them beyond its group's guarantee.

        In the order in which they were granted, a group's leases are guaranteed for as long as
        they come to no more than its guarantee together; those after that are borrowed. What is on
        its way out is left out of that: those after it are not to be told that they have to leave
        when in a moment they are guaranteed.
        """
        group = request.group_id
        if group is None:
            return True
        if group not in self._guaranteed:
            self._guaranteed[group] = self._first_within(self.share(request).guarantee, group)
        return request.id not in self._guaranteed[group]

    def _first_within(self, guarantee: int, group: str) -> set[str]:
        if guarantee <= 0:
            return set()
        staying = [each for each in self._of_groups[group] if not self._is_leaving(each)]
        guaranteed = {each.id for each in staying}
        beyond = sum(each.count for each in staying) - guarantee
        if beyond > 0:
            # From the last granted back: what is left then is within the guarantee.
            for each in sorted(staying, key=_by_grant, reverse=True):
                if beyond <= 0:
                    break
                guaranteed.discard(each.id)
                beyond -= each.count
        return guaranteed


def _by_grant(request: Request) -> tuple[datetime, datetime, str]:
    return (request.granted_at or _BEFORE_ALL, request.requested_at, request.id)
