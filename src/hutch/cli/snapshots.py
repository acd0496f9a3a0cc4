"""`hutch snapshot`: points in time of an instance's disk."""

from typing import Annotated

import typer

from hutch.cli import messages, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.instances import complete
from hutch.cli.options import InstanceName, Json, NoWait, Yes
from hutch.cli.terminal import Terminal, state

SnapshotName = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help=messages.SNAPSHOT_NAME, show_default=False)
]


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_INSTANCES
    group = typer.Typer()
    for name, command in (
        ("create", create),
        ("list", list_all),
        ("restore", restore),
        ("delete", delete),
    ):
        group.command(name, help=messages.HELP[f"snapshot {name}"])(command)
    app.add_typer(
        group,
        name="snapshot",
        help=messages.HELP["snapshot"],
        rich_help_panel=panel,
    )
    app.command("restore", help=messages.HELP["restore"], rich_help_panel=panel)(restore)


def create(
    name: InstanceName, snapshot: SnapshotName, no_wait: NoWait = False, as_json: Json = False
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        begun = client.create_snapshot(resolve(client, name), snapshot)
        doing = messages.SNAPSHOTTING.format(name=name, snapshot=snapshot)
        done = messages.SNAPSHOT_TAKEN.format(name=name, snapshot=snapshot)
        complete(terminal, client, begun, doing, done, no_wait)


def list_all(name: InstanceName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_snapshots(resolve(client, name))
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_SNAPSHOT.format(name=name))
    else:
        terminal.table(
            messages.OF_SNAPSHOTS,
            [
                [one["name"], state(one["state"]), one["kind"], wording.moment(one["created_at"])]
                for one in found
            ],
        )


def restore(
    name: InstanceName,
    snapshot: SnapshotName,
    yes: Yes = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        if not yes:
            taken = [
                one["created_at"] for one in client.list_snapshots(ref) if one["name"] == snapshot
            ]
            # Without a snapshot of that name there is nothing to ask: the server says so.
            if taken:
                at = wording.moment_utc(taken[0])
                question = messages.ASK_RESTORE.format(name=name, snapshot=snapshot, at=at)
                terminal.confirm(question, yes=yes)
        begun = client.restore_snapshot(ref, snapshot)
        doing = messages.SNAPSHOT_RESTORING.format(name=name, snapshot=snapshot)
        done = messages.SNAPSHOT_RESTORED.format(name=name, snapshot=snapshot)
        complete(terminal, client, begun, doing, done, no_wait)


def delete(
    name: InstanceName,
    snapshot: SnapshotName,
    yes: Yes = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    terminal.confirm(messages.ASK_DELETE_SNAPSHOT.format(name=name, snapshot=snapshot), yes=yes)
    with connect() as client:
        begun = client.delete_snapshot(resolve(client, name), snapshot)
        doing = messages.SNAPSHOT_DELETING.format(name=name, snapshot=snapshot)
        done = messages.SNAPSHOT_DELETED.format(name=name, snapshot=snapshot)
        complete(terminal, client, begun, doing, done, no_wait)
