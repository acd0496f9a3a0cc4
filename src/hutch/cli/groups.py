"""`hutch group`: people who share a guarantee, a limit and a weight for accelerators."""

from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Idle, IdleBelow, IdleWarning, Json, Yes, idle_wish
from hutch.cli.terminal import Cell, Styled, Terminal
from hutch.cli.words import groups as words
from hutch.client.answers import Group, Member
from hutch.client.client import Client
from hutch.client.lab import Shares

GroupName = Annotated[
    str, typer.Argument(metavar="GROUP", help=words.GROUP_NAME, show_default=False)
]
PersonName = Annotated[str, typer.Argument(metavar="PERSON", help=words.PERSON, show_default=False)]
Guarantee = Annotated[
    int | None,
    typer.Option("--guarantee", metavar="N", help=words.GUARANTEE, show_default=False),
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="N|none", help=words.LIMIT, show_default=False),
]
Weight = Annotated[
    float | None, typer.Option("--weight", metavar="W", help=words.WEIGHT, show_default=False)
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("list", list_all),
        ("show", show),
        ("add", add),
        ("set", configure),
        ("remove", remove),
        ("add-member", add_member),
        ("remove-member", remove_member),
        ("set-manager", set_manager),
    ):
        group.command(name, help=words.HELP[f"group {name}"])(command)
    app.add_typer(group, name="group", help=words.HELP["group"], rich_help_panel=messages.PANEL_LAB)


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_groups()
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(words.NO_GROUP)
    else:
        terminal.table(words.OF_GROUPS, [_row(group) for group in found])


def _row(group: Group) -> list[Cell]:
    return [
        group["name"],
        str(group["guarantee"]),
        _limit(group),
        f"{group['weight']:g}",
        str(group["held"]),
        str(group["waiting"]),
        str(len(group["members"])),
        wording.idle(group["idle"]),
    ]


def _limit(group: Group) -> str:
    return words.NONE if group["limit"] is None else str(group["limit"])


def show(name: GroupName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        group = client.show_group(name)
    if as_json:
        terminal.answer(group)
        return
    terminal.fields(
        [
            ("name", Styled(group["name"], "bold")),
            ("guarantee", str(group["guarantee"])),
            ("limit", _limit(group)),
            ("weight", f"{group['weight']:g}"),
            ("held", str(group["held"])),
            ("waiting", str(group["waiting"])),
            ("idle", wording.idle(group["idle"])),
            ("added", wording.moment_utc(group["created_at"])),
        ]
    )
    terminal.say("")
    if group["members"]:
        terminal.table(words.OF_MEMBERS, [_member(each) for each in group["members"]])
    else:
        terminal.note(words.NO_MEMBER.format(name=name))


def _member(member: Member) -> list[Cell]:
    role = words.MANAGER if member["is_manager"] else words.MEMBER
    return [member["user"], role, str(member["held"]), str(member["maximum"])]


def add(
    name: GroupName,
    guarantee: Guarantee = None,
    limit: Limit = None,
    weight: Weight = None,
    idle: Idle = None,
    idle_below: IdleBelow = None,
    idle_warning: IdleWarning = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    shares = _shares(guarantee, limit, weight, idle, idle_below, idle_warning)
    with connect() as client:
        _tell(terminal, client.add_group(name, shares), words.ADDED)
        if guarantee:
            _note_too_much(terminal, client)


def configure(
    name: GroupName,
    guarantee: Guarantee = None,
    limit: Limit = None,
    weight: Weight = None,
    idle: Idle = None,
    idle_below: IdleBelow = None,
    idle_warning: IdleWarning = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    shares = _shares(guarantee, limit, weight, idle, idle_below, idle_warning)
    if not shares:
        options = "--guarantee, --limit, --weight, --idle, --idle-below, --idle-warning"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    with connect() as client:
        group = client.configure_group(name, shares)
        _tell(terminal, group, words.CHANGED)
        if guarantee:
            _note_too_much(terminal, client)
    allowed = group["limit"]
    if allowed is not None and group["held"] > allowed:
        terminal.note(words.OVER_LIMIT.format(name=name, held=group["held"], limit=allowed))


def _note_too_much(terminal: Terminal, client: Client) -> None:
    """Say so when more is guaranteed than there is: somebody will wait for what they count on."""
    promised = sum(each["guarantee"] for each in client.list_groups())
    cards = client.list_accelerators()
    there = sum(each["sharers"] for each in cards if each["withdrawn"] is None)
    if promised > there:
        terminal.note(words.TOO_MUCH.format(promised=promised, there=there))


def _shares(
    guarantee: int | None,
    limit: str | None,
    weight: float | None,
    idle: str | None,
    idle_below: float | None,
    idle_warning: str | None,
) -> Shares:
    """What was given, and no more."""
    shares: Shares = {}
    if guarantee is not None:
        shares["guarantee"] = guarantee
    if limit is not None:
        shares["limit"] = None if limit == words.NONE else _number(limit)
    if weight is not None:
        shares["weight"] = weight
    if idle is not None or idle_below is not None or idle_warning is not None:
        shares["idle"] = idle_wish(idle, idle_below, idle_warning)
    return shares


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise exits.UsageError(words.BAD_LIMIT) from None


def _tell(terminal: Terminal, group: Group, text: str, **named: str) -> None:
    if terminal.as_json:
        terminal.answer(group)
    else:
        terminal.say(text.format(name=group["name"], **named))


def remove(name: GroupName, yes: Yes = False, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        group = client.show_group(name)
        question = words.ASK_REMOVE.format(name=name, members=len(group["members"]))
        terminal.confirm(question, yes=yes)
        client.remove_group(name)
    _tell(terminal, group, words.REMOVED)


def add_member(name: GroupName, person: PersonName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        _tell(terminal, client.add_member(name, person), words.MEMBER_ADDED, user=person)


def remove_member(name: GroupName, person: PersonName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        client.remove_member(name, person)
        # Whoever took themself out of it does not see it any more.
        left: Group | None = next((g for g in client.list_groups() if g["name"] == name), None)
    if as_json:
        terminal.answer(left)
    else:
        terminal.say(words.MEMBER_REMOVED.format(user=person, name=name))


def set_manager(
    name: GroupName,
    person: PersonName,
    off: Annotated[bool, typer.Option("--off", help=words.NO_LONGER)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        group = client.set_manager(name, person, is_manager=not off)
    _tell(terminal, group, words.IS_NO_MANAGER if off else words.IS_MANAGER, user=person)
