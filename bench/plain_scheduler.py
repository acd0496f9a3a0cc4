"""The scheduler's rules written down as plainly as possible, without a thought for speed.

Whatever is asked is counted anew from all leases, each time. Tests hold the real scheduler to what
this grants and says; the benchmark shows what the difference is worth. Which borrowed leases make
room is the one thing that both leave to `hutch.domain.reclaim`, which has tests of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hutch.domain.leases import LeaseState
from hutch.domain.reclaim import Exit, Offer, Standing, choose, exit_of
from hutch.domain.situation import Device, GroupShare, Request, Situation, Waiting

_NEVER = datetime.max.replace(tzinfo=UTC)
_NOBODY = GroupShare(0, None, 1.0)


@dataclass
class Place:
    """One share of a device, as the line sees it."""

    device: Device
    holder: Request | None
    ends: datetime
    is_free: bool
    kept_from: datetime = _NEVER
    kept_for: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """The instances for which it is kept, and from when on."""


@dataclass
class Verdict:
    """What became of a waiting lease."""

    is_guaranteed: bool
    devices: tuple[str, ...] = ()
    waiting: Waiting | None = None
    position: int = 0
    start: datetime | None = None
    leaving: list[Offer] = field(default_factory=list[Offer])


class PlainScheduler:
    """One situation; `decide` gives what becomes of every waiting lease."""

    def __init__(self, situation: Situation) -> None:
        self.now = situation.now
        self.situation = situation
        self.requests = list(situation.requests)
        self.verdicts: dict[str, Verdict] = {}
        self.places: list[Place] = []
        self.kept: list[tuple[Request, bool, int]] = []
        """For whom devices are kept in this walk, whether they are guaranteed, and what of the
        guarantee was kept for others before them."""
        self.underway: list[Request] = []
        self.leaving: dict[str, datetime] = {}
        """When those who make room have done so."""
        self.first_walk: list[str] = []
        """The ids of those who wait, in the order in which they come by first."""

    def decide(self) -> dict[str, Verdict]:
        while self.walk():
            pass
        return self.verdicts

    # -- what is so ------------------------------------------------------------------------------

    def held(self) -> list[Request]:
        gone = (LeaseState.QUEUED, LeaseState.ENDED)
        return [each for each in self.requests if each.state not in gone]

    def share(self, request: Request) -> GroupShare:
        return self.situation.groups.get(request.group_id or "", _NOBODY)

    def of_person(self, request: Request) -> int:
        return sum(each.count for each in self.held() if each.owner_id == request.owner_id)

    def of_group(self, request: Request) -> int:
        if request.group_id is None:
            return 0
        return sum(each.count for each in self.held() if each.group_id == request.group_id)

    def underway_in_group(self, request: Request) -> int:
        return sum(each.count for each in self.underway if each.group_id == request.group_id)

    def is_guaranteed(self, request: Request) -> bool:
        if request.group_id is None:
            return False
        others = self.of_group(request) + self.underway_in_group(request)
        return others + request.count <= self.share(request).guarantee

    def is_borrowed(self, request: Request) -> bool:
        if request.group_id is None:
            return True
        total = 0
        for each in sorted(
            (each for each in self.held() if each.group_id == request.group_id),
            key=lambda each: (each.granted_at or self.now, each.requested_at, each.id),
        ):
            total += 0 if self.is_leaving(each) else each.count
            if each.id == request.id:
                break
        return total > self.share(request).guarantee

    def is_leaving(self, request: Request) -> bool:
        is_over = request.expires_at is not None and request.expires_at <= self.now
        return request.state is LeaseState.DETACHING or (
            request.state is LeaseState.ACTIVE and is_over
        )

    def ends(self, request: Request) -> datetime:
        if self.is_leaving(request):
            return self.now
        return max(self.now, request.expires_at or _NEVER)

    def order(self, request: Request) -> tuple[float, float, datetime, str]:
        own = self.situation.usage.get(f"user:{request.owner_id}", 0.0)
        share = own
        if request.group_id is not None:
            used = self.situation.usage.get(f"group:{request.group_id}", 0.0)
            share = used / self.share(request).weight
        return (share, own, request.requested_at, request.id)

    def wanted(self, request: Request) -> list[Device]:
        """Every device in service that would do."""
        return [
            each
            for each in self.situation.devices
            if each.node_id == request.node_id
            and each.is_grantable
            and (request.model or "").lower() in each.model.lower()
        ]

    def has(self, request: Request, device: Device) -> bool:
        """Whether its instance has a device already."""
        return self.has_until(request, device) is not None

    def has_until(self, request: Request, device: Device) -> datetime | None:
        own = [
            min(self.ends(each), self.leaving.get(each.id, _NEVER))
            for each in self.held()
            if each.instance_id == request.instance_id and device.id in each.devices
        ]
        return max(own, default=None)

    def free(self, request: Request) -> list[Device]:
        return [
            device
            for device in self.wanted(request)
            if sum(device.id in each.devices for each in self.held()) < device.sharers
            and not self.has(request, device)
        ]

    # -- the walk --------------------------------------------------------------------------------

    def walk(self) -> bool:
        """Along the line once; whether anything was granted."""
        self.lay_out()
        self.kept, self.underway, self.leaving = [], [], {}
        waiting = [each for each in self.requests if each.state is LeaseState.QUEUED]
        waiting.sort(key=self.order)
        granted = False
        lines: dict[str, int] = {}
        while entitled := [each for each in waiting if self.is_guaranteed(each)]:
            granted |= self.visit(entitled[0], True, lines)
            waiting.remove(entitled[0])
        for each in waiting:
            granted |= self.visit(each, False, lines)
        return granted

    def lay_out(self) -> None:
        self.places = []
        most = len(self.requests)
        for device in self.situation.devices:
            if not device.is_grantable:
                continue
            holders = [each for each in self.held() if device.id in each.devices]
            holders.sort(key=lambda each: (self.ends(each), each.id))
            for each in holders[max(0, len(holders) - device.sharers) :]:
                self.places.append(Place(device, each, self.ends(each), is_free=False))
            for _ in range(min(most, device.sharers - len(holders))):
                self.places.append(Place(device, None, self.now, is_free=True))

    def visit(self, request: Request, is_guaranteed: bool, lines: dict[str, int]) -> bool:
        verdict = Verdict(is_guaranteed)
        if request.id not in self.verdicts:
            self.first_walk.append(request.id)
        self.verdicts[request.id] = verdict
        verdict.position = lines.get(request.node_id, 0) + 1
        verdict.waiting = self.own_limit(request, is_guaranteed)
        if verdict.waiting is not None:
            return False
        usable = self.usable(request)
        if len(usable) < request.count:
            lines[request.node_id] = verdict.position
            self.line_up(request, verdict)
            return False
        if self.uses_up(request):
            verdict.waiting = Waiting.TURN
            return False
        usable.sort(key=lambda each: (each.kept_from, self.load(each.device), each.device.id))
        verdict.devices = tuple(each.device.id for each in usable[: request.count])
        self.grant(request, verdict.devices, usable[: request.count])
        return True

    def own_limit(self, request: Request, is_guaranteed: bool) -> Waiting | None:
        share = self.share(request)
        if not request.can_start:
            return Waiting.INSTANCE
        if self.of_person(request) + request.count > self.situation.maximum.get(
            request.owner_id, 0
        ):
            return Waiting.PERSON
        if share.limit is not None and self.of_group(request) + request.count > share.limit:
            return Waiting.GROUP
        if len(self.wanted(request)) < request.count:
            return Waiting.NO_SUCH_DEVICE
        if not is_guaranteed and request.group_id and self.underway_in_group(request):
            return Waiting.GUARANTEE
        return None

    def usable(self, request: Request) -> list[Place]:
        """A free place on each device that nobody needs before it has left again."""
        found: list[Place] = []
        for device in self.free(request):
            places = [
                each
                for each in self.places
                if each.device.id == device.id
                and each.is_free
                and each.kept_from >= self.now + request.duration
            ]
            # It would have the device itself when another lease of it is to have that.
            is_kept = any(
                each.device.id == device.id
                and each.kept_for.get(request.instance_id, _NEVER) < self.now + request.duration
                for each in self.places
            )
            if places and not is_kept:
                found.append(min(places, key=lambda each: each.kept_from))
        return found

    def load(self, device: Device) -> int:
        return sum(device.id in each.devices for each in self.held())

    def uses_up(self, request: Request) -> bool:
        share = self.share(request)
        for other, is_guaranteed, before in self.kept:
            if other.node_id != request.node_id:
                continue
            both = request.count + other.count
            if other.owner_id == request.owner_id and (
                self.of_person(request) + both > self.situation.maximum.get(request.owner_id, 0)
            ):
                return True
            if other.group_id is None or other.group_id != request.group_id:
                continue
            if share.limit is not None and self.of_group(request) + both > share.limit:
                return True
            if is_guaranteed and self.of_group(request) + before + both > share.guarantee:
                return True
        return False

    def grant(self, request: Request, devices: tuple[str, ...], places: list[Place]) -> None:
        held = replace(
            request,
            state=LeaseState.ATTACHING,
            granted_at=self.now,
            expires_at=self.now + request.duration,
            devices=devices,
        )
        self.requests[self.requests.index(request)] = held
        for place in places:
            place.is_free, place.holder = False, held
            place.ends = max(place.ends, self.now + request.duration)

    # -- waiting ---------------------------------------------------------------------------------

    def line_up(self, request: Request, verdict: Verdict) -> None:
        wanted = self.wanted(request)
        models = {each.model for each in wanted}
        kept_models = {
            device.model
            for other, *_ in self.kept
            if other.node_id == request.node_id
            for device in self.wanted(other)
        }
        keep = verdict.is_guaranteed or not models <= kept_models
        early = {each.id: self.opens(request, each, verdict.is_guaranteed) for each in wanted}
        late = {each.id: self.opens(request, each, False) for each in wanted}
        verdict.start = start = sorted(early.values())[request.count - 1]
        missing = request.count - sum(moment <= start for moment in late.values())
        if missing > 0:
            verdict.leaving = choose(missing, self.offers(request, wanted, late, start))
            self.leaving |= {each.request.id: start for each in verdict.leaving}
            for place in self.places:
                if place.holder is not None and place.holder.id in self.leaving:
                    place.holder, place.ends = None, min(place.ends, start)
            late = {each.id: self.opens(request, each, False) for each in wanted}
        free = {each.id for each in self.free(request)}
        in_time = sorted(
            (each for each in wanted if late[each.id] <= start),
            key=lambda each: (late[each.id], each.id not in free, each.id),
        )[-request.count :]
        for device in in_time:
            self.keep(device, start, request, keep)
        if keep:
            self.kept.append((request, verdict.is_guaranteed, self.underway_in_group(request)))
        soon = self.now + self.situation.policy.reclaim_warning
        unreached = any(each.standing is Standing.UNREACHED for each in verdict.leaving)
        if verdict.is_guaranteed and start <= soon and not unreached:
            self.underway.append(request)
        self.say(request, verdict)

    def leave(self, request: Request, holder: Request | None) -> Exit | None:
        if holder is None or holder.owner_id == request.owner_id or self.is_leaving(holder):
            return None
        if not self.is_borrowed(holder):
            return None
        return exit_of(holder, self.now, self.situation.policy)

    def opens(self, request: Request, device: Device, with_room_made: bool) -> datetime:
        """When a place on a device comes free for an instance."""
        moments = [_NEVER]
        for place in self.places:
            if place.device.id == device.id:
                moments.append(place.ends)
                exit_ = self.leave(request, place.holder) if with_room_made else None
                if exit_ is not None:
                    moments.append(self.now + timedelta(microseconds=exit_.at))
        own = self.has_until(request, device)
        return max(min(moments), own) if own and device.sharers > 1 else min(moments)

    def offers(
        self,
        request: Request,
        wanted: list[Device],
        late: dict[str, datetime],
        start: datetime,
    ) -> list[Offer]:
        offers: list[Offer] = []
        for holder in self.held():
            exit_ = self.leave(request, holder)
            if exit_ is None or self.now + timedelta(microseconds=exit_.at) > start:
                continue
            devices = frozenset(
                each.id
                for each in wanted
                if late[each.id] > start
                and (each.sharers == 1 or (self.has_until(request, each) or self.now) <= start)
                and any(
                    place.device.id == each.id and place.holder and place.holder.id == holder.id
                    for place in self.places
                )
            )
            if devices:
                offers.append(Offer(holder, exit_.standing, devices))
        return offers

    def keep(self, device: Device, start: datetime, request: Request, keep: bool) -> None:
        places = [
            each for each in self.places if each.device.id == device.id and each.ends <= start
        ]
        place = max(places, key=lambda each: each.ends)
        place.ends, place.holder = _later(start, request.duration), None
        if keep:
            place.kept_from = min(place.kept_from, start)
            place.kept_for.setdefault(request.instance_id, start)

    def say(self, request: Request, verdict: Verdict) -> None:
        """Why it waits, as long as nothing more is granted."""
        soon = self.now + self.situation.policy.reclaim_warning
        told = any(
            each.request.reclaim_due is not None
            or (each.request.state is LeaseState.ACTIVE and (verdict.start or _NEVER) <= soon)
            for each in verdict.leaving
        )
        if len(self.free(request)) >= request.count:
            verdict.waiting = Waiting.TURN
        else:
            verdict.waiting = Waiting.RECLAIM if told else Waiting.DEVICES


def _later(moment: datetime, span: timedelta) -> datetime:
    return _NEVER if moment > _NEVER - span else moment + span
