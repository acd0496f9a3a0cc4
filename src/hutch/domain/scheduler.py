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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from hutch.domain.fairness import share_of
from hutch.domain.leases import LeaseState
from hutch.domain.ledger import Ledger
from hutch.domain.projection import NEVER, Opening, Room, build
from hutch.domain.reclaim import PATIENCE, Exit, Offer, Standing, exit_of, is_due, micros
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
    lab = _Lab(situation)
    while True:
        walk = _Walk(lab)
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
    lab = _Lab(situation)
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


class _Lab:
    """A situation, sorted for the walk, with the grants that were made in it."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.now = situation.now
        self.policy = situation.policy
        live = [each for each in situation.requests if each.state is not LeaseState.ENDED]
        self.held = [each for each in live if each.state is not LeaseState.QUEUED]
        self.waiting = [each for each in live if each.state is LeaseState.QUEUED]
        self.expired = {each.id for each in self.held if self._is_over(each)}
        self.ledger = Ledger(self.held, situation.groups, situation.maximum, self.is_leaving)
        self.waiting.sort(key=self._order)
        self.grants: list[Grant] = []
        self._wanting: dict[str, int] = defaultdict(int)
        for each in self.waiting:
            self._wanting[each.node_id] += 1
        self._devices: dict[str, list[Device]] = defaultdict(list)
        for device in situation.devices:
            if device.node_id in self._wanting:
                self._devices[device.node_id].append(device)
        self.holders: dict[str, list[tuple[Request, int]]] = defaultdict(list)
        for each in self.held:
            self._hold(each)

    def _is_over(self, request: Request) -> bool:
        # One that is still on its way into the instance ends as soon as it has arrived.
        return (
            request.state is LeaseState.ACTIVE
            and request.expires_at is not None
            and request.expires_at <= self.now
        )

    def _order(self, request: Request) -> tuple[float, float, datetime, str]:
        """The line, apart from who is entitled: that changes with every grant."""
        usage = self.situation.usage
        own = usage.get(f"user:{request.owner_id}", 0.0)
        share = own
        if request.group_id is not None:
            weight = self.ledger.share(request).weight
            share = share_of(usage.get(f"group:{request.group_id}", 0.0), weight)
        return (share, own, request.requested_at, request.id)

    def _hold(self, request: Request) -> None:
        ends = self.ends(request)
        for device in request.devices:
            self.holders[device].append((request, ends))

    def is_leaving(self, request: Request) -> bool:
        return request.state is LeaseState.DETACHING or request.id in self.expired

    def ends(self, request: Request) -> int:
        """When a lease gives its accelerators back if it stays to its end."""
        if self.is_leaving(request):
            return 0
        if request.expires_at is None:
            return NEVER
        return max(0, micros(request.expires_at - self.now))

    def room(self, node_id: str) -> Room:
        return build(self._devices[node_id], self.holders, self._wanting[node_id])

    def grant(self, granted: Iterable[Request]) -> None:
        """Count what a walk granted as held, and no longer as waiting."""
        ids: set[str] = set()
        for request in granted:
            ids.add(request.id)
            self.held.append(request)
            self.grants.append(Grant(request.id, request.devices))
            self._hold(request)
        self.waiting = [each for each in self.waiting if each.id not in ids]

    def exit(self, holder: Request, owner_id: str) -> Exit | None:
        """How a holder can be made to leave for a lease of somebody who is entitled to it."""
        if (
            holder.owner_id == owner_id
            or self.is_leaving(holder)
            or not self.ledger.is_borrowed(holder)
        ):
            return None
        return exit_of(holder, self.now, self.policy)


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where the walk left a lease that goes on waiting."""

    request: Request
    waiting: Waiting
    position: int
    is_guaranteed: bool
    start: int
    """Microseconds from now; NEVER when nobody can tell."""
    leaving: tuple[Offer, ...]
    """The borrowed leases that make room for it."""


class _Walk:
    """One walk along the line, with what it grants and where everyone else stops."""

    def __init__(self, lab: _Lab) -> None:
        self._lab = lab
        self._ledger = lab.ledger
        self._ledger.keep_nothing()
        self._warning = micros(lab.policy.reclaim_warning)
        self.rooms: dict[str, Room] = {}
        self.granted: list[Request] = []
        self.stops: list[_Stop] = []
        self.leaving: dict[str, tuple[Offer, int]] = {}
        """The borrowed leases that make room, with the moment at which that is needed."""
        self._needs: dict[tuple[str, str, str], int] = defaultdict(int)

    def go(self) -> None:
        later: list[Request] = []
        for request in self._lab.waiting:
            if self._ledger.is_within_guarantee(request):
                self._visit(request, is_guaranteed=True)
            else:
                later.append(request)
        for request in later:
            self._visit(request, is_guaranteed=False)

    def _visit(self, request: Request, *, is_guaranteed: bool) -> None:
        room = self.room(request.node_id)
        if own := self._own_limit(request, room, is_guaranteed=is_guaranteed):
            self._stop(request, room, own, is_guaranteed=is_guaranteed)
            return
        duration = micros(request.duration)
        picked = room.pick(request, duration)
        if picked is None:
            self._line_up(request, room, duration, is_guaranteed=is_guaranteed)
        elif self._takes_from_earlier(request):
            self._stop(request, room, Waiting.TURN, is_guaranteed=is_guaranteed)
        else:
            granted = replace(
                request,
                state=LeaseState.ATTACHING,
                granted_at=self._lab.now,
                expires_at=self._lab.now + request.duration,
                devices=tuple(bay.device.id for bay, _ in picked),
            )
            room.take(picked, granted, duration)
            self._ledger.add(granted)
            self.granted.append(granted)

    def room(self, node_id: str) -> Room:
        if node_id not in self.rooms:
            self.rooms[node_id] = self._lab.room(node_id)
        return self.rooms[node_id]

    def _own_limit(self, request: Request, room: Room, *, is_guaranteed: bool) -> Waiting | None:
        if not request.can_start:
            return Waiting.INSTANCE
        if limit := self._ledger.limit_of(request):
            return limit
        if len(room.match(request.model).bays) < request.count:
            return Waiting.NO_SUCH_DEVICE
        if not is_guaranteed and self._ledger.kept(request):
            return Waiting.GUARANTEE
        return None

    def _stop(self, request: Request, room: Room, waiting: Waiting, *, is_guaranteed: bool) -> None:
        place = len(room.line) + 1
        self.stops.append(_Stop(request, waiting, place, is_guaranteed, NEVER, ()))

    def _line_up(self, request: Request, room: Room, duration: int, *, is_guaranteed: bool) -> None:
        """Have a lease wait in line. For the head, and for everyone entitled, devices are kept."""
        keep = is_guaranteed or not room.match(request.model).models <= room.kept_models
        leave = partial(self._lab.exit, owner_id=request.owner_id) if is_guaranteed else None
        opening = room.open_for(request, duration, leave, keep=keep)
        room.line.append(request.id)
        stop = _Stop(
            request, Waiting.DEVICES, len(room.line), is_guaranteed, opening.start, opening.leaving
        )
        self.stops.append(stop)
        if keep:
            self._note_needs(request, is_guaranteed=is_guaranteed)
        if is_guaranteed and self._is_underway(opening):
            self._ledger.keep(request)
        for offer in opening.leaving:
            self.leaving[offer.request.id] = (offer, opening.start)

    def _is_underway(self, opening: Opening) -> bool:
        """Whether whatever a lease within its guarantee waits for is leaving, or told to."""
        return opening.start <= self._warning and all(
            offer.standing is not Standing.UNREACHED for offer in opening.leaving
        )

    def _note_needs(self, request: Request, *, is_guaranteed: bool) -> None:
        """Remember what a lease for which devices are kept needs of what its person and its group
        may hold, so that nobody behind it on this node uses that up."""
        needs = {("person", request.owner_id): request.count}
        if request.group_id is not None:
            needs["limit", request.group_id] = request.count
            if is_guaranteed:
                kept = self._ledger.kept(request)
                needs["guarantee", request.group_id] = kept + request.count
        for (kind, id_), count in needs.items():
            key = (kind, request.node_id, id_)
            self._needs[key] = max(self._needs[key], count)

    def _takes_from_earlier(self, request: Request) -> bool:
        """Whether somebody before it on this node, for whom devices are kept, could no longer
        start for want of what their person or their group may hold."""
        node_id, group_id = request.node_id, request.group_id or ""
        return any(
            needed > 0 and needed + request.count > left
            for needed, left in (
                (
                    self._needs["person", node_id, request.owner_id],
                    self._ledger.left_to_person(request),
                ),
                (self._needs["limit", node_id, group_id], self._ledger.left_to_group(request)),
                (
                    self._needs["guarantee", node_id, group_id],
                    self._ledger.left_of_guarantee(request),
                ),
            )
        )


def _plan(lab: _Lab, walk: _Walk) -> Plan:
    """What is to be done after the last walk, the one that granted nothing more."""
    warning = micros(lab.policy.reclaim_warning)
    warn: dict[str, datetime] = {}
    reclaim: list[str] = []
    told: dict[str, int] = {}
    changes = [lab.ends(each) for each in lab.held]
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


def _pardoned(lab: _Lab, walk: _Walk) -> Iterable[str]:
    for each in lab.held:
        if (
            each.reclaim_due is not None
            and each.id not in walk.leaving
            and not lab.is_leaving(each)
        ):
            yield each.id


class _Explainer:
    """Says of everyone who waits after the grants why."""

    def __init__(self, lab: _Lab, walk: _Walk, told: Mapping[str, int]) -> None:
        self._lab, self._walk = lab, walk
        self._told = told
        """The leases that were told to make room, and when they do."""
        self._listed: dict[tuple[Waiting, Hashable], tuple[str, ...]] = {}

    def all(self) -> dict[str, Explanation]:
        return {stop.request.id: self._explain(stop) for stop in self._walk.stops}

    def _explain(self, stop: _Stop) -> Explanation:
        request, room = stop.request, self._walk.room(stop.request.node_id)
        free = room.free_for(request)
        waiting = stop.waiting
        if waiting is Waiting.DEVICES and free >= request.count:
            waiting = Waiting.TURN
        elif any(offer.request.id in self._told for offer in stop.leaving):
            waiting = Waiting.RECLAIM
        start = None
        if stop.start < FORESEEN:
            start = self._lab.now + timedelta(microseconds=stop.start)
        return Explanation(
            waiting=waiting,
            position=stop.position,
            ahead=tuple(room.line[: min(LISTED, stop.position - 1)]),
            free=free,
            held_by=self._held_by(request, waiting, room),
            projected_start=start,
            is_guaranteed=stop.is_guaranteed,
        )

    def _held_by(self, request: Request, waiting: Waiting, room: Room) -> tuple[str, ...]:
        ledger = self._lab.ledger
        if waiting is Waiting.PERSON:
            return self._first(waiting, request.owner_id, ledger.of_person(request))
        if waiting is Waiting.GROUP:
            return self._first(waiting, request.group_id, ledger.of_group(request))
        if waiting not in (Waiting.DEVICES, Waiting.RECLAIM):
            return ()
        busy = room.busy_for(request)
        holders = (each for id_ in busy for each, _ in self._lab.holders[id_])
        return self._first(Waiting.DEVICES, busy, holders)

    def _first(
        self, waiting: Waiting, key: Hashable, holders: Iterable[Request]
    ) -> tuple[str, ...]:
        """The ids of those that end first, remembered, for many wait for the same."""
        if (waiting, key) not in self._listed:
            told = self._told
            ends = {each.id: self._lab.ends(each) for each in holders}
            ends |= {id_: min(end, told[id_]) for id_, end in ends.items() if id_ in told}
            first = sorted(ends, key=lambda id_: (ends[id_], id_))[:LISTED]
            self._listed[waiting, key] = tuple(first)
        return self._listed[waiting, key]
