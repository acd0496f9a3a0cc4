"""`hutch gpu`: the lab's accelerators, and a person's leases of them."""

from typing import Annotated

import typer

from hutch.cli import exits, explaining, messages, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.options import Json, minutes
from hutch.cli.queueing import until_attached, until_back
from hutch.cli.terminal import Cell, Styled, Terminal
from hutch.cli.words import gpus as words
from hutch.client.answers import Accelerator, Holder, Lease
from hutch.client.client import Client
from hutch.errors import NotFoundError

On = Annotated[str | None, typer.Option("--on", metavar="NAME", help=words.ON, show_default=False)]
OnHeld = Annotated[
    str | None, typer.Option("--on", metavar="NAME", help=words.ON_HELD, show_default=False)
]
LeaseId = Annotated[
    str | None, typer.Argument(metavar="[LEASE]", help=words.LEASE, show_default=False)
]
Everyones = Annotated[bool, typer.Option("--all", "-a", help=words.EVERYONES)]
Gpu = Annotated[str, typer.Argument(metavar="GPU", help=words.GPU, show_default=False)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("list", list_all),
        ("take", take),
        ("release", release),
        ("extend", extend),
        ("queue", queue),
        ("why", why),
        ("history", history),
        ("withdraw", withdraw),
        ("restore", restore),
        ("share", share),
    ):
        group.command(name, help=words.HELP[f"gpu {name}"])(command)
    app.add_typer(
        group, name="gpu", help=words.HELP["gpu"], rich_help_panel=messages.PANEL_INSTANCES
    )


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_accelerators()
        mine = [] if as_json else client.list_leases()
    if as_json:
        terminal.answer(found)
        return
    if found:
        terminal.table(words.OF_GPUS, [_row(each) for each in found])
    else:
        terminal.note(words.NO_GPU)
    for lease in reversed(mine):
        terminal.note(lease_line(lease))


def _row(each: Accelerator) -> list[Cell]:
    until = sorted(holder["until"] or "" for holder in each["holders"])
    reading = each["reading"]
    used = None if reading is None else reading["utilisation"]
    return [
        explaining.short(each["name"]),
        each["model"],
        wording.size(each["memory"]) if each["memory"] else words.NOT_TOLD,
        _holders(each),
        wording.moment(until[-1]) if until else words.NOT_TOLD,
        words.NOT_TOLD if used is None else wording.share_bar(used),
        _state(each),
    ]


def _holders(each: Accelerator) -> Cell:
    holders = each["holders"]
    if not holders:
        return Styled(words.FREE, "green") if _is_in_service(each) else words.NOT_TOLD
    named = ", ".join(_holder(holder) for holder in holders)
    if each["sharers"] > 1:
        named = words.AND_MORE.format(holders=named, held=len(holders), sharers=each["sharers"])
    return Styled(named, "bold") if any(holder["is_mine"] for holder in holders) else named


def _holder(holder: Holder) -> str:
    if holder["is_mine"]:
        return words.YOU_ON.format(name=holder["instance"]) if holder["instance"] else words.YOU
    if holder["instance"]:
        return words.OWNER_ON.format(owner=holder["owner"], name=holder["instance"])
    return holder["owner"]


def _is_in_service(each: Accelerator) -> bool:
    return each["withdrawn"] is None and each["health"] == "ok"


def _state(each: Accelerator) -> Styled:
    if each["withdrawn"] is not None:
        return Styled(words.OUT_OF_SERVICE.format(reason=each["withdrawn"]), "yellow")
    if each["health"] == "ok":
        return Styled(each["health"], "green")
    text = words.UNWELL.format(**each) if each["reason"] else each["health"]
    return Styled(text, "yellow" if each["health"] == "unknown" else "red")


def lease_line(lease: Lease) -> str:
    """What of one's own the table does not say."""
    if lease["state"] == "queued":
        return words.YOURS_WAITING.format(id=lease["id"], line=explaining.line(lease))
    told = words.YOURS.format(
        id=lease["id"],
        gpus=explaining.gpus(lease["count"]),
        name=explaining.machine(lease),
        until=explaining.clock(lease["expires_at"]),
    )
    announced = lease["announcement"]
    if announced is not None:
        text = words.ANNOUNCED.get(announced["reason"], "")
        told += " " + text.format(due=explaining.clock(announced["due"]), id=lease["id"])
    return told.rstrip()


def lab_line(cards: list[Accelerator], waiting: list[Lease]) -> str:
    """How many there are, how many of them anybody could have, and whether somebody waits."""
    free = sum(_is_in_service(each) and len(each["holders"]) < each["sharers"] for each in cards)
    return words.IN_ALL.format(
        gpus=explaining.gpus(len(cards)),
        free=free,
        waiting=words.IN_LINE_NOW.format(count=len(waiting)) if waiting else words.NO_LINE,
    )


def take(
    count: Annotated[int, typer.Argument(metavar="N", help=words.GPU_COUNT, show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="TEXT", help=words.OF_MODEL, show_default=False),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help=words.FOR, show_default=False)
    ] = None,
    on: On = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help=words.NO_WAIT)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    how_long = None if for_ is None else int(minutes(for_))
    with connect() as client:
        instance = None if on is None else resolve(client, on)
        lease = client.take(count, instance=instance, model=model, minutes=how_long)
        if not no_wait:
            lease = until_attached(terminal, client, lease)
    if as_json:
        terminal.answer(lease)
    elif lease["state"] == "queued":
        line = explaining.line(lease)
        terminal.say(words.WAITS.format(gpus=explaining.wanted(lease), line=line))
        terminal.say(words.SEE_WHY.format(id=lease["id"]))
        terminal.say(words.LEAVE_LINE.format(id=lease["id"]))
    else:
        _tell_taken(terminal, lease)


def _tell_taken(terminal: Terminal, lease: Lease) -> None:
    is_there = lease["state"] == "active"
    text = words.ATTACHED if is_there else words.ON_THE_WAY
    name = explaining.machine(lease)
    terminal.say(
        text.format(
            devices=explaining.devices(lease),
            name=name,
            until=explaining.clock(lease["expires_at"]),
        ),
        "green" if is_there else "",
    )
    if is_there:
        terminal.say(words.LOOK_INSIDE.format(name=name))
        terminal.say(words.MORE_TIME.format(id=lease["id"]))
        terminal.say(words.GIVE_BACK.format(id=lease["id"]))


def release(
    lease: LeaseId = None,
    on: OnHeld = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help=words.NO_WAIT_RELEASE)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        instance = None if on is None else resolve(client, on)
        released = client.release(lease=lease, instance=instance)
        if not no_wait:
            released = [until_back(terminal, client, each) for each in released]
    if as_json:
        terminal.answer(released)
        return
    for each in released:
        text = words.RELEASING if each["state"] == "detaching" else words.RELEASED
        if each["granted_at"] is None:
            text = words.LEFT_LINE
        terminal.say(
            text.format(gpus=explaining.gpus(each["count"]), name=explaining.machine(each))
        )


def extend(
    lease: Annotated[
        str | None, typer.Argument(metavar="[LEASE]", help=words.ONE_LEASE, show_default=False)
    ] = None,
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help=words.FOR_LONGER, show_default=False)
    ] = "1h",
    on: OnHeld = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    longer = int(minutes(for_))
    with connect() as client:
        instance = None if on is None else resolve(client, on)
        extended = client.extend(longer, lease=lease, instance=instance)
    if as_json:
        terminal.answer(extended)
    else:
        terminal.say(
            words.EXTENDED.format(
                gpus=explaining.gpus(extended["count"]),
                name=explaining.machine(extended),
                until=explaining.clock(extended["expires_at"]),
            )
        )


def queue(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_queue()
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(words.NOBODY_WAITS)
    else:
        terminal.table(words.OF_QUEUE, [_place(lease) for lease in found])


def _place(lease: Lease) -> list[Cell]:
    why = lease["explanation"]
    return [
        lease["node"],
        words.NOT_TOLD if why is None else str(why["position"]),
        lease["owner"],
        str(lease["count"]),
        lease["model"] or words.NOT_TOLD,
        wording.moment(lease["requested_at"]),
        wording.moment(None if why is None else why["projected_start"]),
        words.NOT_TOLD if why is None else why["waiting"].replace("_", " "),
    ]


def why(
    lease: Annotated[
        str | None, typer.Argument(metavar="[LEASE]", help=words.ONE_LEASE, show_default=False)
    ] = None,
    on: OnHeld = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = _asked_about(client, lease, on)
    if as_json:
        terminal.answer(found)
        return
    if not found:
        terminal.note(words.NOTHING_WAITED_FOR)
    for number, each in enumerate(found):
        if number:
            terminal.say("")
        for text in _explained(each):
            terminal.say(text)


def _asked_about(client: Client, lease: str | None, on: str | None) -> list[Lease]:
    """The lease that is named, or those that wait: of an instance, or of the asker."""
    if lease is not None:
        return [client.show_lease(lease)]
    instance = None if on is None else resolve(client, on)
    mine = client.list_leases(instance=instance)
    return [each for each in reversed(mine) if each["state"] == "queued"]


def _explained(lease: Lease) -> list[str]:
    if lease["state"] == "queued":
        return explaining.why_it_waits(lease)
    if lease["state"] == "ended":
        return [words.WHY_ENDED.format(id=lease["id"], reason=explaining.ended(lease))]
    return [
        words.WHY_ACTIVE.format(
            id=lease["id"],
            state=lease["state"],
            devices=explaining.devices(lease),
            name=explaining.machine(lease),
            until=explaining.clock(lease["expires_at"]),
        )
    ]


def history(
    everyone: Everyones = False,
    before: Annotated[
        str | None, typer.Option("--before", metavar="LEASE", help=words.BEFORE)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help=messages.AT_MOST)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_history(everyone=everyone, before=before, limit=limit)
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(words.NO_HISTORY)
    else:
        terminal.table(words.OF_HISTORY, [_past(lease) for lease in found])


def _past(lease: Lease) -> list[Cell]:
    return [
        lease["id"],
        lease["owner"],
        lease["instance"] or words.NOT_TOLD,
        lease["node"],
        str(lease["count"]),
        wording.moment(lease["requested_at"]),
        wording.moment(lease["granted_at"]),
        wording.moment(lease["ended_at"]),
        explaining.ended(lease),
    ]


def withdraw(
    gpu: Gpu,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help=words.REASON, show_default=False)
    ],
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        changed = client.withdraw_accelerator(_known(client, gpu)["id"], reason)
    _tell(terminal, changed, words.WITHDRAWN)


def restore(gpu: Gpu, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        changed = client.restore_accelerator(_known(client, gpu)["id"])
    _tell(terminal, changed, words.RESTORED)


def share(
    sharers: Annotated[
        int, typer.Option("--with", metavar="N", help=words.WITH, show_default=False)
    ],
    gpu: Annotated[
        str | None, typer.Argument(metavar="[GPU]", help=words.GPU, show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help=words.ALL)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if every is (gpu is not None):
        raise exits.UsageError(words.ONE_OR_ALL)
    with connect() as client:
        found = client.list_accelerators() if gpu is None else [_known(client, gpu)]
        changed = [client.share_accelerator(each["id"], sharers) for each in found]
    if as_json:
        terminal.answer(changed if gpu is None else changed[0])
        return
    for each in changed:
        _tell(terminal, each, words.SHARED if each["sharers"] > 1 else words.EXCLUSIVE)
    if not changed:
        terminal.note(words.NO_GPU)


def _known(client: Client, ref: str) -> Accelerator:
    """The accelerator that a person names: by id, `node/address` or address, in full or short.

    Raises NotFoundError when there is none, or more than one.
    """
    found = [each for each in client.list_accelerators() if ref in _names(each)]
    if len(found) == 1:
        return found[0]
    raise NotFoundError("accelerator", ref, hint=words.SEE_GPUS)


def _names(each: Accelerator) -> set[str]:
    names = {each["name"], explaining.short(each["name"])}
    return names | {each["id"]} | {name.partition("/")[2] for name in names}


def _tell(terminal: Terminal, changed: Accelerator, text: str) -> None:
    if terminal.as_json:
        terminal.answer(changed)
    else:
        terminal.say(
            text.format(name=explaining.short(changed["name"]), sharers=changed["sharers"])
        )
