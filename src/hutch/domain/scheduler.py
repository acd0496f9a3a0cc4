"""The scheduler: who gets which accelerators next, as a pure function of what is known.

    decide(situation) -> Plan

Nothing here reads a clock, a database or a device, and the same situation always gives the same
plan, in whatever order its parts come. The semantics are in `docs/explanation/scheduling.md`.

A pass walks along the line of all who wait, the entitled first. Who can start does, unless that
would put off the head of the node's line, or somebody entitled: for these, accelerators are kept
from the moment on at which they can start. A walk that grants anything is followed by another one
from the state that it made, so that what is said of those who wait is true after the grants.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime, timedelta

from hutch.domain.leases import LeaseState
from hutch.domain.line import Lab, Stop, Walk
from hutch.domain.projection import NEVER
from hutch.domain.reclaim import PATIENCE, is_due, micros
from hutch.domain.situation import (
    OWN_LIMITS,
    Device,
    Explanation,
    Grant,
    GroupShare,
    Plan,
    Policy,
    Request,
    Situation,
    Waiting,
)

__all__ = [
    "OWN_LIMITS",
    "Device",
    "Explanation",
    "Grant",
    "GroupShare",
    "Plan",
    "Policy",
    "Request",
    "Situation",
    "Waiting",
    "decide",
    "may_extend",
]
LISTED = 10
"""How many leases an explanation names."""
FORESEEN = micros(timedelta(days=36_500))
"""What begins later than in a hundred years is not foretold."""


def decide(situation: Situation) -> Plan:
    """What to grant, warn, reclaim and end now, and why everyone else waits."""
    lab, walk = Lab(situation), None
    while True:
        walk = Walk(lab, walk)
        walk.go()
        if not walk.granted:
            return _plan(lab, walk)
        lab.grant(walk.granted)


def may_extend(situation: Situation, request_id: str) -> str | None:
    """The id of the waiting lease for which an active one may not be extended; None: it may.

    It may not while somebody waits who could use one of its accelerators and is held up by no
    limit of their own. A guaranteed one yields only to somebody entitled, and nobody to a lease
    that is their own.
    """
    lab = Lab(situation)
    asking = next(each for each in lab.held if each.id == request_id)
    own = [each for each in situation.devices if each.id in asking.devices and each.is_grantable]
    is_borrowed = lab.ledger.is_borrowed(asking)
    explanations = decide(situation).explanations
    rivals = [
        (explanations[each.id].position, each.id)
        for each in lab.waiting
        if each.node_id == asking.node_id
        and each.owner_id != asking.owner_id
        and each.id in explanations
        and explanations[each.id].waiting not in OWN_LIMITS
        and (is_borrowed or explanations[each.id].is_guaranteed)
        and any(device.matches(each.model) for device in own)
    ]
    return min(rivals)[1] if rivals else None


def _plan(lab: Lab, walk: Walk) -> Plan:
    """What is to be done after the last walk, the one that granted nothing more."""
    warning = micros(lab.policy.reclaim_warning)
    warn: dict[str, datetime] = {}
    reclaim: list[str] = []
    told: dict[str, int] = {}
    changes = list(lab.ends.values())
    for id_, (offer, start) in sorted(walk.leaving.items()):
        due = offer.request.reclaim_due
        if due is None and start > warning:
            changes.append(start - warning)
            continue
        if due is None and offer.request.state is not LeaseState.ACTIVE:
            # It is told once it has arrived.
            continue
        if due is None:
            due = warn[id_] = lab.now + timedelta(microseconds=start)
        elif start <= 0 and is_due(offer.request, lab.now):
            reclaim.append(id_)
        told[id_] = max(0, micros(due - lab.now))
        changes += (told[id_], micros(due + PATIENCE - lab.now))
    soonest = min((each for each in changes if 0 < each < NEVER), default=None)
    return Plan(
        grants=tuple(sorted(lab.grants, key=lambda each: each.request_id)),
        expired=tuple(sorted(lab.expired)),
        warn=warn,
        reclaim=tuple(reclaim),
        pardon=tuple(sorted(_pardoned(lab, walk))),
        explanations=_Explainer(lab, walk, told).all(),
        next_at=None if soonest is None else lab.now + timedelta(microseconds=soonest),
    )


def _pardoned(lab: Lab, walk: Walk) -> Iterable[str]:
    for each in lab.held:
        if (
            each.reclaim_due is not None
            and each.id not in walk.leaving
            and not lab.is_leaving(each)
        ):
            yield each.id


class _Explainer:
    """Says of everyone who waits after the grants why."""

    def __init__(self, lab: Lab, walk: Walk, told: Mapping[str, int]) -> None:
        self._lab, self._walk = lab, walk
        self._told = told
        """The leases that were told to make room, and when they do."""
        self._of_owner: dict[tuple[Waiting, str | None], list[Request]] = defaultdict(list)
        self._listed: dict[tuple[Waiting, Hashable], tuple[str, ...]] = {}
        if any(stop.own in (Waiting.PERSON, Waiting.GROUP) for stop in walk.stops):
            for each in lab.held:
                self._of_owner[Waiting.PERSON, each.owner_id].append(each)
                self._of_owner[Waiting.GROUP, each.group_id].append(each)

    def all(self) -> dict[str, Explanation]:
        return {stop.request.id: self._explain(stop) for stop in self._walk.stops}

    def _explain(self, stop: Stop) -> Explanation:
        request = stop.request
        room = self._walk.room(request.node_id)
        busy = room.busy(request)
        free = len(room.match(request.model).numbers) - len(busy)
        waiting = stop.own or self._for_devices(stop, free)
        start = None
        if stop.start < FORESEEN:
            start = self._lab.now + timedelta(microseconds=stop.start)
        line = self._walk.lines[request.node_id]
        return Explanation(
            waiting=waiting,
            position=stop.position,
            ahead=tuple(line[: min(LISTED, stop.position - 1)]),
            free=free,
            held_by=self._held_by(request, waiting, busy),
            projected_start=start,
            is_guaranteed=stop.is_guaranteed,
        )

    def _for_devices(self, stop: Stop, free: int) -> Waiting:
        if free >= stop.request.count:
            return Waiting.TURN
        is_told = any(offer.request.id in self._told for offer in stop.leaving)
        return Waiting.RECLAIM if is_told else Waiting.DEVICES

    def _held_by(self, request: Request, waiting: Waiting, busy: list[str]) -> tuple[str, ...]:
        if waiting is Waiting.PERSON:
            return self._first(waiting, request.owner_id, self._of_owner[waiting, request.owner_id])
        if waiting is Waiting.GROUP:
            return self._first(waiting, request.group_id, self._of_owner[waiting, request.group_id])
        if waiting not in (Waiting.DEVICES, Waiting.RECLAIM):
            return ()
        holders = (each for id_ in busy for each in self._lab.holders.of(id_))
        return self._first(Waiting.DEVICES, tuple(busy), holders)

    def _first(
        self, waiting: Waiting, key: Hashable, holders: Iterable[Request]
    ) -> tuple[str, ...]:
        """The ids of those that end first, remembered, for many wait for the same."""
        listed = self._listed.get((waiting, key))
        if listed is None:
            ends, told = self._lab.ends, self._told
            moments = {(min(ends[e.id], told.get(e.id, NEVER)), e.id) for e in holders}
            listed = tuple(id_ for _, id_ in sorted(moments)[:LISTED])
            self._listed[waiting, key] = listed
        return listed
