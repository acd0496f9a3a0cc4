"""What changed when a node told which accelerators it has now.

A card is the same card while its UUID is, also at another address: addresses change when a card is
added. What has no UUID is known by its address. An accelerator that somebody holds is never made
into another one, since the engine has given its address away: what contradicts it waits until it
is let go.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hutch.domain.accelerators import Accelerator, FoundAccelerator, Health


@dataclass(slots=True)
class Inventory:
    """What is to be written of a node."""

    new: list[FoundAccelerator] = field(default_factory=list[FoundAccelerator])
    same: list[tuple[Accelerator, FoundAccelerator]] = field(
        default_factory=list[tuple[Accelerator, FoundAccelerator]]
    )
    """As it is known and as it was found: its address, its health or nothing may have changed."""
    replaced: list[tuple[Accelerator, FoundAccelerator]] = field(
        default_factory=list[tuple[Accelerator, FoundAccelerator]]
    )
    """Another card is where this one was, and nobody holds it: the place goes on under its id."""
    missing: list[tuple[Accelerator, str]] = field(default_factory=list[tuple[Accelerator, str]])
    """With the reason."""
    displaced: list[Accelerator] = field(default_factory=list[Accelerator])
    """Those of the missing whose address a known card has taken: they have none any more."""


def compare(
    known: Sequence[Accelerator], found: Iterable[FoundAccelerator], held: Collection[str]
) -> Inventory:
    """What changed. `found` names each address once; `held` are the ids that somebody holds."""
    result = Inventory()
    by_address = {each.address: each for each in found}
    left = [each for each in known if each.id not in held]
    for each in known:
        if each.id in held:
            _keep(each, by_address, result)
    taken = {each.found.uuid for each in known if each.id in held and each.found.uuid}
    free = [each for each in by_address.values() if each.uuid not in taken]
    left, free = _match_by_uuid(left, free, result)
    left, free = _match_by_address(left, free, result)
    result.new += free
    occupied = {seen.address for _, seen in (*result.same, *result.replaced)}
    for each in left:
        result.missing.append((each, "The node no longer finds it."))
        if each.found.address in occupied:
            result.displaced.append(each)
    return result


def _keep(each: Accelerator, by_address: dict[str, FoundAccelerator], result: Inventory) -> None:
    """A held one: well only if its very card is at its address, which nothing else may take."""
    seen = by_address.pop(each.found.address, None)
    if seen is None:
        result.missing.append((each, "The node no longer finds it."))
    elif seen.uuid and each.found.uuid and seen.uuid != each.found.uuid:
        result.missing.append((each, "Another card is in its place since."))
    else:
        result.same.append((each, _with_uuid(seen, each)))


def _match_by_uuid(
    known: list[Accelerator], found: list[FoundAccelerator], result: Inventory
) -> tuple[list[Accelerator], list[FoundAccelerator]]:
    by_uuid = {each.found.uuid: each for each in known if each.found.uuid}
    free: list[FoundAccelerator] = []
    for seen in found:
        each = by_uuid.pop(seen.uuid, None) if seen.uuid else None
        if each is None:
            free.append(seen)
        else:
            result.same.append((each, seen))
            known = [other for other in known if other.id != each.id]
    return known, free


def _match_by_address(
    known: list[Accelerator], found: list[FoundAccelerator], result: Inventory
) -> tuple[list[Accelerator], list[FoundAccelerator]]:
    by_address = {each.found.address: each for each in known}
    free: list[FoundAccelerator] = []
    for seen in found:
        each = by_address.pop(seen.address, None)
        if each is None:
            free.append(seen)
        elif seen.uuid and each.found.uuid and seen.uuid != each.found.uuid:
            result.replaced.append((each, seen))
        else:
            result.same.append((each, _with_uuid(seen, each)))
    return list(by_address.values()), free


def _with_uuid(seen: FoundAccelerator, each: Accelerator) -> FoundAccelerator:
    """A driver that does not answer yet tells no UUID: the card is still the same."""
    return seen if seen.uuid else replace(seen, uuid=each.found.uuid)


def is_worse(before: Health, now: Health) -> bool:
    """Whether an accelerator that was well, or of which nothing was known, is broken now."""
    return now in _BROKEN and before not in _BROKEN


def is_better(before: Health, now: Health) -> bool:
    """Whether a broken accelerator is well again."""
    return before in _BROKEN and now is Health.OK


_BROKEN = frozenset({Health.FAILED, Health.MISSING})
