"""`hutch user`: people, as administrators keep them."""

from enum import StrEnum
from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.account import read_password
from hutch.cli.connection import connect
from hutch.cli.options import Json, PasswordStdin, Yes
from hutch.cli.terminal import Cell, Styled, Terminal, state
from hutch.client.answers import User

UserName = Annotated[
    str, typer.Argument(metavar="USER", help=messages.USER_NAME, show_default=False)
]


class RoleName(StrEnum):
    ADMIN = "admin"
    MEMBER = "member"


Role = Annotated[
    RoleName | None,
    typer.Option("--role", metavar="admin|member", help=messages.ROLE, show_default=False),
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (
        ("add", add),
        ("list", list_all),
        ("show", show),
        ("set", configure),
        ("disable", disable),
        ("enable", enable),
        ("reset-password", reset_password),
    ):
        group.command(name, help=messages.HELP[f"user {name}"])(command)
    app.add_typer(
        group, name="user", help=messages.HELP["user"], rich_help_panel=messages.PANEL_LAB
    )


def add(
    name: UserName,
    role: Role = None,
    password_stdin: PasswordStdin = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    given = read_password("", "hutch user add NAME", from_stdin=True) if password_stdin else None
    with connect() as client:
        made = client.add_user(name, role=role.value if role else None, password=given)
    if as_json:
        terminal.answer(made)
    elif given is not None:
        terminal.note(messages.USER_ADDED.format(**_named(made["user"])))
    else:
        terminal.note(messages.USER_ADDED_WITH_PASSWORD.format(**_named(made["user"])))
        terminal.say(made["password"])


def _named(user: User) -> dict[str, str]:
    return {"name": user["name"], "role": user["role"]}


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_users()
    if as_json:
        terminal.answer(found)
    else:
        terminal.table(messages.OF_USERS, [_row(user) for user in found])


def _row(user: User) -> list[Cell]:
    held, quota = user["held"], user["quota"]
    return [
        user["name"],
        user["role"],
        _state(user),
        wording.used_of(held["instances"], quota["instances"], is_size=False),
        wording.used_of(held["cpus"], quota["cpus"], is_size=False),
        wording.used_of(held["memory"], quota["memory"], is_size=True),
        wording.used_of(held["disk"], quota["disk"], is_size=True),
        wording.used_of(held["accelerators"], quota["accelerators"], is_size=False),
    ]


def _state(user: User) -> Styled:
    return state(messages.DISABLED if user["disabled_at"] else messages.ACTIVE)


def show(name: UserName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        user = client.show_user(name)
    if as_json:
        terminal.answer(user)
        return
    terminal.fields(
        [
            ("name", Styled(user["name"], "bold")),
            ("role", user["role"]),
            ("state", _state(user)),
            ("id", user["id"]),
            ("added", wording.moment_utc(user["created_at"])),
        ]
    )
    terminal.say("")
    terminal.table(messages.OF_QUOTA, wording.quota_rows(user["held"], user["quota"]))


def configure(
    name: UserName,
    role: Role = None,
    instances: Annotated[
        int | None, typer.Option("--instances", metavar="N", help=messages.MOST_INSTANCES)
    ] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", metavar="N", help=messages.MOST_CPUS)
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help=messages.MOST_MEMORY)
    ] = None,
    disk: Annotated[
        str | None, typer.Option("--disk", metavar="SIZE", help=messages.MOST_DISK)
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", help=messages.MOST_GPUS)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if role is None and all(value is None for value in (instances, cpus, memory, disk, gpus)):
        options = "--role, --instances, --cpus, --memory, --disk, --gpus"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    with connect() as client:
        user = client.configure_user(
            name,
            role=role.value if role else None,
            instances=instances,
            cpus=cpus,
            memory=memory,
            disk=disk,
            accelerators=gpus,
        )
    _tell(terminal, user, messages.USER_CHANGED)


def _tell(terminal: Terminal, user: User, text: str) -> None:
    if terminal.as_json:
        terminal.answer(user)
    else:
        terminal.say(text.format(name=user["name"]))


def disable(name: UserName, yes: Yes = False, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        if not yes:
            held = client.show_user(name)["held"]["instances"]
            terminal.confirm(messages.ASK_DISABLE.format(name=name, instances=held), yes=yes)
        _tell(terminal, client.disable_user(name), messages.USER_DISABLED)


def enable(name: UserName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        _tell(terminal, client.enable_user(name), messages.USER_ENABLED)


def reset_password(name: UserName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        made = client.reset_password(name)
    if as_json:
        terminal.answer(made)
    else:
        terminal.note(messages.PASSWORD_RESET.format(name=name))
        terminal.say(made["password"])
