"""Leases in sentences: what one holds, and why another waits."""

from datetime import UTC, datetime

from hutch.cli.words import gpus as words
from hutch.client.answers import Explanation, Lease, Other


def gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    is_teen = number % 100 in {11, 12, 13}
    ending = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def clock(at: str | None) -> str:
    """A time of the API as a sentence says it: today's without the day."""
    if at is None:
        return "?"
    moment = datetime.fromisoformat(at).astimezone(UTC)
    is_today = moment.date() == datetime.now(UTC).date()
    return f"{moment:%H:%M} UTC" if is_today else f"{moment:%Y-%m-%d %H:%M} UTC"


def short(name: str) -> str:
    """An accelerator's name without the PCI domain that nearly all have."""
    node, _, address = name.partition("/")
    return f"{node}/{address.removeprefix('0000:')}"


def machine(lease: Lease) -> str:
    return lease["instance"] or lease["owner"]


def wanted(lease: Lease) -> str:
    """What is asked for: `2 GPUs`, `1 GPU (A100)`."""
    count = gpus(lease["count"])
    return count if lease["model"] is None else f"{count} ({lease['model']})"


def devices(lease: Lease) -> str:
    """What it holds: `2 × NVIDIA A100 (node1/3b:00.0, node1/5e:00.0)`."""
    by_model: dict[str, list[str]] = {}
    for each in lease["accelerators"]:
        by_model.setdefault(each["model"], []).append(short(each["name"]))
    return ", ".join(
        words.DEVICES.format(count=len(names), model=model, names=", ".join(names))
        for model, names in by_model.items()
    )


def line(lease: Lease) -> str:
    """Its place in one line: `2nd in line on node1; starts about 14:20 UTC; waiting for …`."""
    why = lease["explanation"]
    if why is None:
        return words.NOT_SEEN_YET.format(node=lease["node"])
    start = words.NO_START
    if why["projected_start"] is not None:
        start = words.STARTS.format(at=clock(why["projected_start"]))
    place = words.IN_LINE.format(place=ordinal(why["position"]), node=lease["node"])
    return f"{place}; {start}; {_said(words.WAITING, lease, why)}"


def why_it_waits(lease: Lease) -> list[str]:
    """Everything there is to say about a lease's waiting, a sentence or two in each text."""
    told = [
        words.WHY_HEAD.format(
            id=lease["id"],
            gpus=wanted(lease),
            name=machine(lease),
            node=lease["node"],
            at=clock(lease["requested_at"]),
        )
    ]
    why = lease["explanation"]
    if why is None:
        return [*told, words.WHY_LEAVE.format(id=lease["id"])]
    told += [_place(lease, why), _said(words.WHY, lease, why)]
    if why["projected_start"] is None:
        told.append(words.WHY_NO_START)
    else:
        told.append(words.WHY_START.format(at=clock(why["projected_start"])))
    if why["is_guaranteed"]:
        told.append(words.WHY_GUARANTEED.format(group=lease["group"] or ""))
    return [*told, words.WHY_LEAVE.format(id=lease["id"])]


def _place(lease: Lease, why: Explanation) -> str:
    if why["position"] == 1:
        return words.WHY_FIRST.format(node=lease["node"])
    text = words.WHY_BEHIND if why["ahead"] else words.WHY_PLACE
    return text.format(
        place=ordinal(why["position"]),
        node=lease["node"],
        ahead=", ".join(f"{each['owner']} ({gpus(each['count'])})" for each in why["ahead"]),
    )


def _said(texts: dict[str, str], lease: Lease, why: Explanation) -> str:
    """The text for what it waits for. One that a newer server made up is shown as it is."""
    return texts.get(why["waiting"], why["waiting"]).format(
        instance=lease["instance"] or "the machine",
        owner=lease["owner"],
        group=lease["group"] or "",
        node=lease["node"],
        free=why["free"],
        holders=", ".join(_holder(each) for each in why["held_by"]) or words.SOMEBODY,
    )


def _holder(other: Other) -> str:
    return words.HOLDER.format(owner=other["owner"], until=clock(other["expires_at"]))


def ended(lease: Lease) -> str:
    """Why a lease has ended."""
    reason = lease["end_reason"] or ""
    return lease["error"] or words.ENDED.get(reason, reason)
