"""`hutch quota`: what a person may hold at most."""

from typing import Annotated

import typer

from hutch.cli import exits, messages, wording
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal
from hutch.cli.words import groups as words
from hutch.client.answers import Group, Me, Member, User
from hutch.client.client import Client
from hutch.errors import ForbiddenError

Person = Annotated[str, typer.Argument(metavar="PERSON", help=words.PERSON, show_default=False)]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("show", show), ("set", configure)):
        group.command(name, help=words.HELP[f"quota {name}"])(command)
    app.add_typer(group, name="quota", help=words.HELP["quota"], rich_help_panel=messages.PANEL_LAB)


def show(
    person: Annotated[
        str | None, typer.Argument(metavar="[PERSON]", help=words.WHOSE_QUOTA, show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found: Me | User = client.me()
        if person is not None and person != found["name"]:
            found = client.show_user(person)
    if as_json:
        terminal.answer(found)
    else:
        terminal.table(messages.OF_QUOTA, wording.quota_rows(found["held"], found["quota"]))


def configure(
    person: Person,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", help=words.GPUS, show_default=False)
    ] = None,
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
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    of_machines = (instances, cpus, memory, disk)
    if gpus is None and all(value is None for value in of_machines):
        options = "--gpus, --instances, --cpus, --memory, --disk"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    with connect() as client:
        if client.me()["role"] == "admin":
            user = client.configure_user(
                person,
                instances=instances,
                cpus=cpus,
                memory=memory,
                disk=disk,
                accelerators=gpus,
            )
            held, allowed = user["held"]["accelerators"], user["quota"]["accelerators"]
            answer: User | Group = user
        else:
            if gpus is None or any(value is not None for value in of_machines):
                raise ForbiddenError(words.MANAGER_SETS_GPUS, hint=words.ASK_ADMINISTRATOR)
            answer = _set_in_own_group(client, person, gpus)
            member = _member(answer, person)
            held, allowed = member["held"], member["maximum"]
    if as_json:
        terminal.answer(answer)
        return
    terminal.say(words.QUOTA_CHANGED.format(name=person))
    if held > allowed:
        terminal.note(words.OVER_QUOTA.format(name=person, held=held, allowed=allowed))


def _set_in_own_group(client: Client, person: str, gpus: int) -> Group:
    """Set it as the manager of the one group that the asker is in."""
    for group in client.list_groups():
        return client.set_member_quota(group["name"], person, gpus)
    raise ForbiddenError(words.NOT_MANAGED.format(name=person), hint=words.ASK_ADMINISTRATOR)


def _member(group: Group, person: str) -> Member:
    return next(each for each in group["members"] if each["user"] == person)
