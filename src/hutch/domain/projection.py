"""A node's accelerators over time: what is free, what comes free when, and for whom it is kept.

Time is counted in whole microseconds from now on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hutch.domain.reclaim import Exit, Leave, Offer, choose
from hutch.domain.situation import Device, Request

NEVER = 2**62
"""Later than anything that is known."""


@dataclass(slots=True)
class Slot:
    """A place on a device: the whole of an exclusive one."""

    ends: int
    """When it comes free if whoever has it stays to the end, and those for whom it is kept."""
    holder: Request | None = None
    """Who holds it, for as long as they might be asked to leave."""
    is_free: bool = False
    """Whether it can be had in this moment."""
    kept_from: int = NEVER
    """From then on it is kept for somebody who waits."""


@dataclass(slots=True)
class Bay:
    """A device, with as many slots as leases may hold it, or want to."""

    device: Device
    slots: list[Slot]
    instances: dict[str, int]
    """The instances that have it, and until when: none is given the same device twice."""
    load: int
    """How many hold it."""
    kept: dict[str, int] = field(default_factory=dict[str, int])
    """The instances for which a slot is kept, and from when on."""

    def is_free_for(self, instance_id: str) -> bool:
        return self.load < self.device.sharers and instance_id not in self.instances


@dataclass(frozen=True, slots=True)
class Opening:
    """When a waiting lease can start, and which borrowed leases leave for it by then."""

    start: int
    leaving: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class _Match:
    """The bays that suit a model."""

    bays: list[Bay]
    models: frozenset[str]


@dataclass(slots=True)
class Room:
    """The devices of a node that may be granted, and the line of those who wait for them."""

    bays: list[Bay]
    line: list[str] = field(default_factory=list[str])
    """The leases that wait for these devices, in their order."""
    kept_models: set[str] = field(default_factory=set[str])
    """The models of which something is kept for somebody."""
    _matches: dict[str | None, _Match] = field(default_factory=dict[str | None, _Match])

    def match(self, model: str | None) -> _Match:
        if model not in self._matches:
            bays = [bay for bay in self.bays if bay.device.matches(model)]
            self._matches[model] = _Match(bays, frozenset(bay.device.model for bay in bays))
        return self._matches[model]

    def free_for(self, request: Request) -> int:
        """How many devices it could be given now, were nobody else waiting."""
        bays = self.match(request.model).bays
        return sum(bay.is_free_for(request.instance_id) for bay in bays)

    def busy_for(self, request: Request) -> tuple[str, ...]:
        """The devices that it could not be given, because others hold them or it does itself."""
        bays = self.match(request.model).bays
        return tuple(bay.device.id for bay in bays if not bay.is_free_for(request.instance_id))

    def pick(self, request: Request, duration: int) -> list[tuple[Bay, Slot]] | None:
        """Free slots for the whole of `duration`, one on each of as many devices as it wants.

        None when there are too few that are not kept for somebody before it has left again.
        Those kept for somebody later come first, so that they do not lie idle until then; then
        those that fewest hold.
        """
        found: list[tuple[int, int, str, Bay, Slot]] = []
        for bay in self.match(request.model).bays:
            instance = request.instance_id
            if not bay.is_free_for(instance) or bay.kept.get(instance, NEVER) < duration:
                continue
            usable = [slot for slot in bay.slots if slot.is_free and slot.kept_from >= duration]
            if usable:
                slot = min(usable, key=lambda each: each.kept_from)
                found.append((slot.kept_from, bay.load, bay.device.id, bay, slot))
        if len(found) < request.count:
            return None
        found.sort(key=lambda each: each[:3])
        return [(bay, slot) for *_, bay, slot in found[: request.count]]

    def take(self, picked: Sequence[tuple[Bay, Slot]], request: Request, duration: int) -> None:
        """Have a lease that starts now hold what was picked for it."""
        for bay, slot in picked:
            slot.is_free, slot.holder, slot.ends = False, request, max(slot.ends, duration)
            bay.instances[request.instance_id] = duration
            bay.load += 1

    def open_for(
        self, request: Request, duration: int, leave: Leave | None, *, keep: bool
    ) -> Opening:
        """When a lease that cannot start now can, after those before it in the line.

        `leave` is asked about each holder how it could be made to leave, None: not at all; without
        it nobody makes room. The devices are taken out of what those behind it count on, and with
        `keep` also kept from whoever would go first and stay for longer than until then.
        """
        instance, bays = request.instance_id, self.match(request.model).bays
        start = sorted(_ends(bay, instance, leave) for bay in bays)[request.count - 1]
        late = [bay for bay in bays if leave and _ends(bay, instance, None) > start]
        missing = request.count - (len(bays) - len(late))
        leaving: list[Offer] = []
        if leave is not None and missing > 0:
            leaving = choose(missing, _offers(late, instance, leave, start))
            self._vacate({offer.request.id for offer in leaving}, start)
        # The last to come free, so that those behind it find the others free for longer.
        by_end = sorted(
            (ends, not bay.is_free_for(instance), place)
            for place, bay in enumerate(bays)
            if (ends := _ends(bay, instance, None)) <= start
        )
        for *_, place in by_end[-request.count :]:
            _line_up(bays[place], start, duration, instance if keep else None)
        if keep:
            self.kept_models |= self.match(request.model).models
        return Opening(start, tuple(leaving))

    def _vacate(self, leaving: set[str], at: int) -> None:
        for bay in self.bays:
            for slot in bay.slots:
                if slot.holder is not None and slot.holder.id in leaving:
                    slot.ends, slot.holder = min(slot.ends, at), None


def _ends(bay: Bay, instance_id: str, leave: Leave | None) -> int:
    """When a slot of a device comes free for an instance."""
    ends = min(slot.ends if leave is None else _leaves(slot, leave) for slot in bay.slots)
    return max(ends, bay.instances.get(instance_id, 0)) if bay.device.sharers > 1 else ends


def _leaves(slot: Slot, leave: Leave) -> int:
    exit_ = None if slot.holder is None else leave(slot.holder)
    return slot.ends if exit_ is None else min(slot.ends, exit_.at)


def _offers(bays: Iterable[Bay], instance_id: str, leave: Leave, by: int) -> list[Offer]:
    """What each borrowed lease would bring if it had left by a moment."""
    devices: dict[str, set[str]] = {}
    exits: dict[str, tuple[Request, Exit]] = {}
    for bay in bays:
        if bay.device.sharers > 1 and bay.instances.get(instance_id, 0) > by:
            continue
        for slot in bay.slots:
            exit_ = None if slot.holder is None else leave(slot.holder)
            if slot.holder is not None and exit_ is not None and exit_.at <= by:
                devices.setdefault(slot.holder.id, set()).add(bay.device.id)
                exits[slot.holder.id] = (slot.holder, exit_)
    return [
        Offer(request, exit_.standing, frozenset(devices[id_]))
        for id_, (request, exit_) in exits.items()
    ]


def _line_up(bay: Bay, start: int, duration: int, kept_for: str | None) -> None:
    """Take the slot of a device that comes free last before a moment out of the account, and keep
    it for an instance from then on."""
    slot = max((each for each in bay.slots if each.ends <= start), key=lambda each: each.ends)
    slot.ends, slot.holder = start + duration, None
    if kept_for is not None:
        slot.kept_from = min(slot.kept_from, start)
        bay.kept[kept_for] = min(bay.kept.get(kept_for, NEVER), start)


def build(
    devices: Iterable[Device], holders: Mapping[str, Sequence[tuple[Request, int]]], most: int
) -> Room:
    """The room of a node: those of its devices that may be granted, with who holds them and until
    when. On no device more than `most` slots are free: as many as want one."""
    return Room(
        [
            _bay(device, sorted(holders.get(device.id, ()), key=_by_end), most)
            for device in sorted(devices, key=lambda each: each.id)
            if device.is_grantable
        ]
    )


def _bay(device: Device, held: Sequence[tuple[Request, int]], most: int) -> Bay:
    free = device.sharers - len(held)
    # Where more hold it than may, the first to end make nobody any room.
    slots = [Slot(ends, request) for request, ends in held[max(0, -free) :]]
    slots += [Slot(0, is_free=True) for _ in range(min(free, most))]
    return Bay(device, slots, {each.instance_id: ends for each, ends in held}, len(held))


def _by_end(held: tuple[Request, int]) -> tuple[int, str]:
    return (held[1], held[0].id)
