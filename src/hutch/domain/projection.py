"""A node's accelerators over time: what is free, what comes free when, and for whom it is kept.

Time is counted in whole microseconds from now on.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from hutch.domain.reclaim import Leave, Offer, choose, micros
from hutch.domain.situation import Device, Request, suits

NEVER = 2**62
"""Later than anything that is known."""
_by_id = attrgetter("id")


class Holders:
    """Who holds each device."""

    def __init__(self) -> None:
        self.first: dict[str, Request] = {}
        self.sharing: dict[str, list[Request]] = {}
        """All of them, where there are several."""

    def add(self, request: Request) -> None:
        for device in request.devices:
            first = self.first.setdefault(device, request)
            if first is not request:
                self.sharing.setdefault(device, [first]).append(request)

    def of(self, device_id: str) -> Sequence[Request]:
        if device_id in self.sharing:
            return self.sharing[device_id]
        first = self.first.get(device_id)
        return () if first is None else (first,)


@dataclass(frozen=True, slots=True)
class Match:
    """The devices of a room that suit a model, by their numbers, and their models."""

    numbers: Sequence[int]
    models: frozenset[str]


@dataclass(frozen=True, slots=True)
class Opening:
    """When a waiting lease can start, and which borrowed leases leave for it by then."""

    start: int
    leaving: tuple[Offer, ...]


class Room:
    """The devices of a node that may be granted, with the slots on them: one on an exclusive one,
    on a shared one as many as leases may hold it.

    Devices and slots are numbers here, and what is known of them stands in arrays: of the small
    objects that they could be, a pass would make more than everything else that it does costs.
    """

    __slots__ = (
        "_ends", "_holders", "_instances", "_is_free", "_is_shared", "_kept_for", "_kept_from",
        "_loads", "_matches", "_models", "_slots", "devices", "kept_models",
    )  # fmt: skip

    def __init__(
        self,
        devices: Iterable[Device],
        holders: Holders,
        ends: Mapping[str, int],
        most: int,
    ) -> None:
        """`ends`: when each lease ends, by its id. `most`: as many leases want a slot at most."""
        self.devices = sorted((each for each in devices if each.is_grantable), key=_by_id)
        self.kept_models: frozenset[str] = frozenset()
        """The models of which something is kept for somebody."""
        self._models = frozenset(each.model for each in self.devices)
        self._matches: dict[str | None, Match] = {}
        self._is_shared = any(
            each.sharers > 1 or each.id in holders.sharing for each in self.devices
        )
        self._slots: Sequence[Sequence[int]] = ()
        """Of each device; in a room of exclusive ones each slot has its device's number."""
        self._holders: list[Request | None]
        """Who holds a slot, for as long as they might be asked to leave."""
        self._instances: dict[tuple[int, str], int] = {}
        """Of shared devices: the instances that have them, and until when. None is given the same
        device twice."""
        self._kept_for: dict[tuple[int, str], int] = {}
        """Of shared devices: the instances for which a slot is kept, and from when on."""
        if self._is_shared:
            self._holders = self._fill_shared(holders, ends, most)
        else:
            self._holders = [holders.first.get(each.id) for each in self.devices]
            self._loads = bytearray(each is not None for each in self._holders)
        self._ends = array("q", [0 if e is None else ends[e.id] for e in self._holders])
        """When a slot comes free if whoever has it stays to the end, and those for whom it is
        kept."""
        self._is_free = bytearray(each is None for each in self._holders)
        """Whether a slot can be had in this moment."""
        self._kept_from = array("q", [NEVER]) * len(self._holders)
        """From when on a slot is kept for somebody who waits."""

    def _fill_shared(
        self, holders: Holders, ends: Mapping[str, int], most: int
    ) -> list[Request | None]:
        slots: list[Request | None] = []
        places: list[range] = []
        self._loads = array("q")
        for number, device in enumerate(self.devices):
            held = sorted(holders.of(device.id), key=lambda each: (ends[each.id], each.id))
            free = device.sharers - len(held)
            first = len(slots)
            # Where more hold it than may, the first to end make nobody any room.
            slots += held[max(0, -free) :]
            slots += [None] * min(free, most)
            places.append(range(first, len(slots)))
            self._loads.append(len(held))
            for each in held:
                self._instances[number, each.instance_id] = ends[each.id]
        self._slots = places
        return slots

    def match(self, model: str | None) -> Match:
        match = self._matches.get(model)
        if match is None:
            models = self._models
            numbers: Sequence[int] = range(len(self.devices))
            if model is not None:
                models = frozenset(each for each in models if suits(each, model))
            if models != self._models:
                numbers = [n for n in numbers if self.devices[n].model in models]
            match = self._matches[model] = Match(numbers, models)
        return match

    def is_available(self, device: int, instance_id: str) -> bool:
        """Whether an instance could be given a device now, were nobody else waiting."""
        if not self._is_shared:
            return not self._loads[device]
        has_room = self._loads[device] < self.devices[device].sharers
        return has_room and (device, instance_id) not in self._instances

    def busy(self, request: Request) -> list[str]:
        """The devices that suit a lease, and that it could not be given, because others hold them,
        or it does itself."""
        instance = request.instance_id
        return [
            self.devices[number].id
            for number in self.match(request.model).numbers
            if not self.is_available(number, instance)
        ]

    def pick(self, request: Request) -> list[tuple[int, int]] | None:
        """Free slots for all of its duration, each with its device, on as many devices as it wants.

        None when there are too few that are not kept for somebody before it has left again.
        Those kept for somebody later come first, so that they do not lie idle until then; then
        those that fewest hold.
        """
        duration, instance = micros(request.duration), request.instance_id
        found: list[tuple[int, int, int, int]] = []
        for device in self.match(request.model).numbers:
            if not self.is_available(device, instance):
                continue
            if self._kept_for.get((device, instance), NEVER) < duration:
                continue
            usable = [
                (self._kept_from[slot], self._loads[device], device, slot)
                for slot in self._slots_of(device)
                if self._is_free[slot] and self._kept_from[slot] >= duration
            ]
            if usable:
                found.append(min(usable))
        if len(found) < request.count:
            return None
        return [(device, slot) for *_, device, slot in sorted(found)[: request.count]]

    def take(self, picked: Sequence[tuple[int, int]], request: Request) -> None:
        """Have a lease that starts now hold what was picked for it."""
        duration = micros(request.duration)
        for device, slot in picked:
            self._is_free[slot], self._holders[slot] = False, request
            self._ends[slot] = max(self._ends[slot], duration)
            self._loads[device] += 1
            if self._is_shared:
                self._instances[device, request.instance_id] = duration

    def open_for(self, request: Request, leave: Leave | None, *, keep: bool) -> Opening:
        """When a lease that cannot start now can, after those before it in the line.

        `leave` is asked about each holder how it could be made to leave, None: not at all; without
        it nobody makes room. The devices are taken out of what those behind it count on, and with
        `keep` also kept from whoever would go first and stay for longer than until then.
        """
        match, instance = self.match(request.model), request.instance_id
        devices = match.numbers
        ends = self._ends_of(devices, instance)
        leaving: list[Offer] = []
        if leave is None:
            start = sorted(ends)[request.count - 1]
        else:
            early = self._leaves_of(devices, instance, leave)
            start = sorted(early)[request.count - 1]
            late = [device for device, end in zip(devices, ends, strict=True) if end > start]
            missing = request.count - (len(devices) - len(late))
            if missing > 0:
                leaving = choose(missing, self._offers(late, instance, leave, start))
                self._vacate({offer.request.id for offer in leaving}, start)
                ends = self._ends_of(devices, instance)
        # The last to come free, so that those behind it find the others free for longer.
        by_end = sorted(
            (end, not self.is_available(device, instance), device)
            for device, end in zip(devices, ends, strict=True)
            if end <= start
        )
        until = min(NEVER, start + micros(request.duration))
        for *_, device in by_end[-request.count :]:
            self._line_up(device, start, until, instance if keep else None)
        if keep:
            self.kept_models |= match.models
        return Opening(start, tuple(leaving))

    def _slots_of(self, device: int) -> Sequence[int]:
        return self._slots[device] if self._is_shared else (device,)

    def _ends_of(self, devices: Sequence[int], instance_id: str) -> list[int]:
        """When a slot on each of these devices comes free for an instance."""
        ends = self._ends
        if not self._is_shared:
            return [ends[device] for device in devices]
        return [
            max(
                min(ends[slot] for slot in self._slots[device]),
                self._instances.get((device, instance_id), 0),
            )
            for device in devices
        ]

    def _leaves_of(self, devices: Sequence[int], instance_id: str, leave: Leave) -> list[int]:
        """The same, if whoever can be made to leave does so at the earliest."""
        if not self._is_shared:
            return [self._leaves(device, leave) for device in devices]
        return [
            max(
                min(self._leaves(slot, leave) for slot in self._slots[device]),
                self._instances.get((device, instance_id), 0),
            )
            for device in devices
        ]

    def _leaves(self, slot: int, leave: Leave) -> int:
        holder, end = self._holders[slot], self._ends[slot]
        if holder is None or not end or (exit_ := leave(holder)) is None or exit_.at >= end:
            return end
        return exit_.at

    def _line_up(self, device: int, start: int, until: int, instance_id: str | None) -> None:
        """Take the slot of a device that comes free last before a moment out of the account until
        a later one, and keep it for an instance, if for any."""
        slot = device
        if self._is_shared:
            in_time = [each for each in self._slots[device] if self._ends[each] <= start]
            slot = max(in_time, key=lambda each: self._ends[each])
        self._ends[slot], self._holders[slot] = until, None
        if instance_id is not None:
            self._kept_from[slot] = min(self._kept_from[slot], start)
            if self._is_shared:
                key = (device, instance_id)
                self._kept_for[key] = min(self._kept_for.get(key, NEVER), start)

    def _vacate(self, leaving: set[str], at: int) -> None:
        for slot, holder in enumerate(self._holders):
            if holder is not None and holder.id in leaving:
                self._ends[slot], self._holders[slot] = min(self._ends[slot], at), None
                if self._is_shared:
                    device = next(n for n, slots in enumerate(self._slots) if slot in slots)
                    self._instances[device, holder.instance_id] = at

    def _offers(
        self, devices: Iterable[int], instance_id: str, leave: Leave, by: int
    ) -> list[Offer]:
        """What each borrowed lease would bring if it had left by a moment."""
        found: dict[str, tuple[Request, set[str]]] = {}
        for device in devices:
            if self._instances.get((device, instance_id), 0) > by:
                continue
            for slot in self._slots_of(device):
                holder = self._holders[slot]
                if holder is not None and self._leaves(slot, leave) <= by:
                    _, brought = found.setdefault(holder.id, (holder, set()))
                    brought.add(self.devices[device].id)
        exits = ((holder, leave(holder), brought) for holder, brought in found.values())
        return [
            Offer(holder, exit_.standing, frozenset(brought))
            for holder, exit_, brought in exits
            if exit_ is not None
        ]
