"""The line of all who wait, and a walk along it: who starts, who stops where, who makes room."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from hutch.domain.fairness import share_of
from hutch.domain.leases import LeaseState
from hutch.domain.ledger import Ledger
from hutch.domain.projection import NEVER, Holders, Opening, Room
from hutch.domain.reclaim import Exit, Offer, Standing, exit_of, micros
from hutch.domain.situation import Device, Grant, Request, Situation, Waiting


class Lab:
    """A situation, sorted for the walk, with the grants that have been made in it since."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.now = situation.now
        self.policy = situation.policy
        self.held: list[Request] = []
        self.waiting: list[Request] = []
        self.expired: set[str] = set()
        self.ends: dict[str, int] = {}
        """When each lease gives its accelerators back if it stays to its end, in microseconds."""
        for request in situation.requests:
            if request.state is LeaseState.QUEUED:
                self.waiting.append(request)
            elif request.state is not LeaseState.ENDED:
                self.held.append(request)
                self.ends[request.id] = end = self._ends(request)
                # One that is still on its way into the instance ends as soon as it has arrived.
                if not end and request.state is LeaseState.ACTIVE:
                    self.expired.add(request.id)
        self.ledger = Ledger(self.held, situation.groups, situation.maximum, self.is_leaving)
        self.waiting.sort(key=self._order)
        self.grants: list[Grant] = []
        self.changed: set[str] = set()
        """The nodes on which something was granted."""
        self._wanting = Counter(each.node_id for each in self.waiting)
        self._devices: dict[str, list[Device]] = defaultdict(list)
        for device in situation.devices:
            if device.node_id in self._wanting:
                self._devices[device.node_id].append(device)
        self.holders = Holders()
        """Of the nodes on which somebody waits."""
        for each in self.held:
            if each.node_id in self._wanting:
                self.holders.add(each)
        self._exits: dict[str, Exit | None] = {}

    def _ends(self, request: Request) -> int:
        if request.state is LeaseState.DETACHING:
            return 0
        ends = request.expires_at
        if ends is None:
            return NEVER
        return micros(ends - self.now) if ends > self.now else 0

    def _order(self, request: Request) -> tuple[float, float, datetime, str]:
        """The line, apart from who is entitled: that changes with every grant."""
        usage = self.situation.usage
        own = usage.get(f"user:{request.owner_id}", 0.0)
        share = own
        if request.group_id is not None:
            weight = self.ledger.share(request).weight
            share = share_of(usage.get(f"group:{request.group_id}", 0.0), weight)
        return (share, own, request.requested_at, request.id)

    def is_leaving(self, request: Request) -> bool:
        return request.state is LeaseState.DETACHING or request.id in self.expired

    def room(self, node_id: str) -> Room:
        return Room(self._devices[node_id], self.holders, self.ends, self._wanting[node_id])

    def grant(self, granted: Iterable[Request]) -> None:
        """Count what a walk granted as held, and no longer as waiting."""
        self._exits.clear()
        ids: set[str] = set()
        for request in granted:
            ids.add(request.id)
            self.held.append(request)
            self.ends[request.id] = self._ends(request)
            self.grants.append(Grant(request.id, request.devices))
            self.changed.add(request.node_id)
            self.holders.add(request)
        self.waiting = [each for each in self.waiting if each.id not in ids]

    def is_clock_set_back(self) -> bool:
        """Whether something was granted that is not past: then a grant made now may come before
        others, and change what of these is borrowed."""
        requests = self.situation.requests
        return any(each.granted_at and each.granted_at >= self.now for each in requests)

    def exit(self, holder: Request, owner_id: str) -> Exit | None:
        """How a holder can be made to leave for a lease of somebody who is entitled to it."""
        if holder.owner_id == owner_id:
            return None
        if holder.id not in self._exits:
            stays = self.is_leaving(holder) or not self.ledger.is_borrowed(holder)
            self._exits[holder.id] = None if stays else exit_of(holder, self.now, self.policy)
        return self._exits[holder.id]


@dataclass(slots=True)
class Stop:
    """Where a walk left a lease that goes on waiting."""

    request: Request
    is_guaranteed: bool
    own: Waiting | None
    """What of its own holds it up; then it is in no line."""
    position: int
    start: int = NEVER
    """When it starts, in microseconds from now; NEVER when nobody can tell."""
    leaving: tuple[Offer, ...] = ()
    """The borrowed leases that make room for it."""
    is_kept_for: bool = False
    """Whether devices are kept for it."""
    is_in_line: bool = False


class Walk:
    """One walk along the line, with what it grants and where everyone else stops.

    On a node on which nothing has been granted in this pass, and to which everyone comes with the
    same rights and limits as in the walk before, everything is as it was then.
    """

    def __init__(self, lab: Lab, before: "Walk | None" = None) -> None:
        self._lab = lab
        self._ledger = lab.ledger
        self._warning = micros(lab.policy.reclaim_warning)
        self.rooms: dict[str, Room] = {}
        self.lines: dict[str, list[str]] = defaultdict(list)
        """Those who wait for the devices of a node, in their order."""
        self.granted: list[Request] = []
        self.stops: list[Stop] = []
        self.leaving: dict[str, tuple[Offer, int]] = {}
        """The borrowed leases that make room, with the moment at which that is needed."""
        self._stops_on: dict[str, list[Stop]] = defaultdict(list)
        self._needs: dict[tuple[str, str, str], int] = {}
        self._before: dict[str, list[Stop]] = {}
        if before is not None and not lab.is_clock_set_back():
            self._before = dict(before._stops_on)
            self.rooms = dict(before.rooms)
            for node_id in lab.changed:
                self._before.pop(node_id, None)
                self.rooms.pop(node_id, None)

    def go(self) -> None:
        self._ledger.keep_nothing()
        later: list[Request] = []
        for request in self._lab.waiting:
            if self._ledger.is_within_guarantee(request):
                self._visit(request, is_guaranteed=True)
            else:
                later.append(request)
        for request in later:
            self._visit(request, is_guaranteed=False)

    def room(self, node_id: str) -> Room:
        room = self.rooms.get(node_id)
        if room is None:
            room = self.rooms[node_id] = self._lab.room(node_id)
        return room

    def _visit(self, request: Request, *, is_guaranteed: bool) -> None:
        own = self._own_limit(request, is_guaranteed=is_guaranteed)
        stop = self._stop_as_before(request, own, is_guaranteed=is_guaranteed)
        if stop is None:
            place = len(self.lines[request.node_id]) + 1
            stop = Stop(request, is_guaranteed, own, place)
            if own is None:
                picked = self.room(request.node_id).pick(request)
                if picked is None:
                    self._line_up(stop)
                elif not self._takes_from_earlier(request):
                    self._grant(request, picked)
                    return
        self._note(stop)

    def _own_limit(self, request: Request, *, is_guaranteed: bool) -> Waiting | None:
        if not request.can_start:
            return Waiting.INSTANCE
        if limit := self._ledger.limit_of(request):
            return limit
        if len(self.room(request.node_id).match(request.model).numbers) < request.count:
            return Waiting.NO_SUCH_DEVICE
        if not is_guaranteed and self._ledger.kept(request):
            return Waiting.GUARANTEE
        return None

    def _stop_as_before(
        self, request: Request, own: Waiting | None, *, is_guaranteed: bool
    ) -> Stop | None:
        """Where it stopped in the walk before, if nothing that this depends on has changed."""
        node_id = request.node_id
        before = self._before.get(node_id)
        if before is None:
            return None
        stop = before[len(self._stops_on[node_id])]
        if (
            stop.request is request
            and stop.own is own
            and stop.is_guaranteed == is_guaranteed
            and (stop.is_in_line or own is not None or self._takes_from_earlier(request))
        ):
            return stop
        # From here on it is another line: put it up again as far as it was the same.
        del self._before[node_id]
        self.rooms.pop(node_id, None)
        for each in self._stops_on[node_id]:
            if each.is_in_line:
                self._open(each.request, is_guaranteed=each.is_guaranteed, keep=each.is_kept_for)
        return None

    def _grant(self, request: Request, picked: list[tuple[int, int]]) -> None:
        room = self.room(request.node_id)
        granted = replace(
            request,
            state=LeaseState.ATTACHING,
            granted_at=self._lab.now,
            expires_at=self._lab.now + request.duration,
            devices=tuple(room.devices[device].id for device, _ in picked),
        )
        room.take(picked, granted)
        self._ledger.add(granted)
        self.granted.append(granted)

    def _line_up(self, stop: Stop) -> None:
        """Have a lease wait in line. For the head, and for everyone entitled, devices are kept."""
        request, room = stop.request, self.room(stop.request.node_id)
        keep = stop.is_guaranteed or not room.match(request.model).models <= room.kept_models
        opening = self._open(request, is_guaranteed=stop.is_guaranteed, keep=keep)
        stop.start, stop.leaving = opening.start, opening.leaving
        stop.is_kept_for, stop.is_in_line = keep, True

    def _open(self, request: Request, *, is_guaranteed: bool, keep: bool) -> Opening:
        leave = partial(self._lab.exit, owner_id=request.owner_id) if is_guaranteed else None
        return self.room(request.node_id).open_for(request, leave, keep=keep)

    def _note(self, stop: Stop) -> None:
        """Remember what a stop means to those who come later."""
        self.stops.append(stop)
        self._stops_on[stop.request.node_id].append(stop)
        if stop.is_in_line:
            self.lines[stop.request.node_id].append(stop.request.id)
        if stop.is_kept_for:
            self._note_needs(stop)
        if stop.is_guaranteed and self._is_underway(stop):
            self._ledger.keep(stop.request)
        for offer in stop.leaving:
            self.leaving[offer.request.id] = (offer, stop.start)

    def _is_underway(self, stop: Stop) -> bool:
        """Whether whatever a lease within its guarantee waits for is leaving, or told to."""
        return stop.start <= self._warning and all(
            offer.standing is not Standing.UNREACHED for offer in stop.leaving
        )

    def _note_needs(self, stop: Stop) -> None:
        """Remember what a lease for which devices are kept needs of what its person and its group
        may hold, so that nobody behind it on this node uses that up."""
        request = stop.request
        self._need("person", request, request.owner_id, request.count)
        if request.group_id is not None:
            self._need("limit", request, request.group_id, request.count)
            if stop.is_guaranteed:
                count = self._ledger.kept(request) + request.count
                self._need("guarantee", request, request.group_id, count)

    def _need(self, what: str, request: Request, id_: str, count: int) -> None:
        key = (what, request.node_id, id_)
        if count > self._needs.get(key, 0):
            self._needs[key] = count

    def _takes_from_earlier(self, request: Request) -> bool:
        """Whether somebody before it on this node, for whom devices are kept, could no longer
        start for want of what their person or their group may hold."""
        group, ledger = request.group_id or "", self._ledger
        return (
            self._is_needed("person", request, request.owner_id, ledger.left_to_person(request))
            or self._is_needed("limit", request, group, ledger.left_to_group(request))
            or self._is_needed("guarantee", request, group, ledger.left_of_guarantee(request))
        )

    def _is_needed(self, what: str, request: Request, id_: str, left: int) -> bool:
        needed = self._needs.get((what, request.node_id, id_), 0)
        return needed > 0 and needed + request.count > left
