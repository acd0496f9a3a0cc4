"""`hutch create`, `list`, `show` and the rest of what a person asks of their machine."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from hutch.cli import exits, messages, remote, ssh_files, wording
from hutch.cli.connection import connect, resolve
from hutch.cli.options import Cpus, Disk, InstanceName, Json, Memory, NoWait, Yes
from hutch.cli.terminal import Cell, Styled, Terminal, state
from hutch.cli.waiting import finish
from hutch.client.answers import Begun, Instance, InstanceBegun, Operation, Share, Usage
from hutch.client.client import Client
from hutch.errors import EngineError, UnavailableError, WrongStateError


def add_to(app: typer.Typer) -> None:
    panel = messages.PANEL_INSTANCES
    for name, command in (
        ("create", create),
        ("list", list_all),
        ("show", show),
        ("start", start),
        ("stop", stop),
        ("restart", restart),
        ("rebuild", rebuild),
        ("set", configure),
        ("delete", delete),
    ):
        app.command(name, help=messages.HELP[name], rich_help_panel=panel)(command)


def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=messages.NEW_NAME, show_default=False)
    ],
    image: Annotated[
        str | None, typer.Option("--image", metavar="IMAGE", help=messages.FROM_IMAGE)
    ] = None,
    cpus: Cpus = None,
    memory: Memory = None,
    disk: Disk = None,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help=messages.ON_NODE)
    ] = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        begun = client.create_instance(
            name, image=image, cpus=cpus, memory=memory, disk=disk, node=node
        )
        title = messages.CREATING.format(name=name)
        if no_wait:
            _leave(terminal, begun, begun["operation"], title)
        else:
            instance_id = begun["instance"]["id"]
            ended = finish(terminal, client, begun["operation"], title)
            instance = client.show_instance(instance_id)
            _tell_created(terminal, {"instance": instance, "operation": ended})
        ssh_files.follow(client)
        if not as_json and not client.list_keys():
            terminal.note(messages.NO_KEY)


def _tell_created(terminal: Terminal, made: InstanceBegun) -> None:
    if terminal.as_json:
        terminal.answer(made)
        return
    instance = made["instance"]
    name = instance["name"]
    terminal.say(messages.CREATED.format(name=name), "green")
    if remote.gateway() is None:
        terminal.say(messages.LOG_IN.format(name=name))
        terminal.say(messages.OR_WITH_SSH.format(command=_ssh_command(instance)))
    else:
        terminal.say(messages.LOG_IN_THROUGH.format(command=_ssh_command(instance)))
        terminal.say(messages.OR_CONFIGURE.format(name=name))


def _ssh_command(instance: Instance) -> str:
    place = remote.gateway()
    if place is not None:
        # Who comes by ssh has a key that the gateway knows, and the gateway knows the way.
        return f"ssh -J {place} {instance['ssh']['user']}@{instance['name']}"
    # Reading and writing keys is not needed to list instances, nor to start one.
    from hutch.cli.logins import printable_command

    return printable_command(instance)


def list_all(
    everyone: Annotated[bool, typer.Option("--all", "-a", help=messages.EVERYONES)] = False,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="USER", help=messages.ONE_PERSONS)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_instances(everyone=everyone, owner=owner)
    if as_json:
        terminal.answer(found)
        return
    if found:
        tell_all(terminal, found, with_owner=everyone or owner is not None)
    else:
        terminal.note(_none_yet(everyone, owner))


def tell_all(terminal: Terminal, found: Sequence[Instance], *, with_owner: bool) -> None:
    """A table of instances, and what is wrong with any of them."""
    terminal.table(messages.OF_INSTANCES, [_row(instance, with_owner) for instance in found])
    for instance in found:
        _tell_troubles(terminal, instance, _ref(instance, with_owner))


def _none_yet(everyone: bool, owner: str | None) -> str:
    if owner is not None:
        return messages.NO_INSTANCE_OF_OWNER.format(owner=owner)
    return messages.NO_INSTANCE_OF_ANYONE if everyone else messages.NO_INSTANCE


def _ref(instance: Instance, with_owner: bool) -> str:
    """What the reader of the list can give to the other commands."""
    shown = with_owner or instance["share"] is not None
    return f"{instance['owner']}/{instance['name']}" if shown else instance["name"]


def _row(instance: Instance, with_owner: bool) -> list[Cell]:
    return [
        _ref(instance, with_owner),
        _state(instance),
        str(instance["cpus"]),
        wording.size(instance["memory"]),
        wording.size(instance["disk"]),
        instance["image"],
        instance["node"],
        wording.ssh_place(instance["ssh"]),
    ]


def _state(instance: Instance) -> Styled:
    if instance["drift"]:
        return Styled(messages.WITH_DRIFT.format(state=instance["state"]), "red")
    return state(instance["state"])


def _tell_troubles(terminal: Terminal, instance: Instance, ref: str) -> None:
    drift = instance["drift"]
    if drift:
        since = wording.moment_utc(drift["since"])
        # The message says what to do.
        terminal.note(messages.DRIFT.format(name=ref, since=since, message=drift["message"]))
    if instance["error"]:
        # Anything but a creation that failed leaves a machine behind, which nobody should remove.
        failed = instance["state"] == "failed"
        text = messages.FAILED_INSTANCE if failed else messages.TROUBLED_INSTANCE
        terminal.note(text.format(name=ref, error=instance["error"]))


def show(name: InstanceName, as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        instance = client.show_instance(resolve(client, name))
        usage = _usage(client, instance)
        shares, ports = client.list_shares(instance["id"]), client.list_ports(instance["id"])
    if as_json:
        terminal.answer({**instance, "usage": usage, "shares": shares, "ports": ports})
        return
    leading: list[tuple[str, Cell]] = [("port", wording.port(each)) for each in ports]
    terminal.fields([*_fields(instance, usage), *leading, *_sharing(instance, shares)])
    _tell_troubles(terminal, instance, name)


def _usage(client: Client, instance: Instance) -> Usage | None:
    """What it uses; None where nobody can tell, which is no reason to show nothing at all."""
    if instance["state"] not in {"running", "stopped"}:
        return None
    try:
        return client.show_usage(instance["id"])
    except (UnavailableError, EngineError, WrongStateError):
        return None


def _fields(instance: Instance, usage: Usage | None) -> list[tuple[str, Cell]]:
    memory, disk = wording.size(instance["memory"]), wording.size(instance["disk"])
    cpus, processes = str(instance["cpus"]), str(instance["processes"])
    if usage is not None:
        memory = wording.used_of(**usage["memory"], is_size=True)
        disk = wording.used_of(**usage["disk"], is_size=True)
        processes = wording.used_of(**usage["processes"], is_size=False)
        cpus = messages.CPU_USED.format(
            allowed=usage["cpu"]["allowed"], seconds=usage["cpu"]["seconds"]
        )
    return [
        ("name", Styled(instance["name"], "bold")),
        ("state", _state(instance)),
        ("id", instance["id"]),
        ("owner", instance["owner"]),
        ("image", instance["image"]),
        ("node", instance["node"]),
        ("cpus", cpus),
        ("memory", memory),
        ("disk", disk),
        ("processes", processes),
        ("created", wording.moment_utc(instance["created_at"])),
        ("ssh", _ssh_command(instance)),
    ]


def _sharing(instance: Instance, shares: list[Share]) -> list[tuple[str, Cell]]:
    received = instance["share"]
    if received is not None:
        look = received["read_only_view"]
        text = messages.SHARED_BY_TO_LOOK if look else messages.SHARED_BY
        until = wording.until(received["until"])
        return [("shared", text.format(owner=instance["owner"], until=until))]
    people = [
        (messages.SHARED_WITH_TO_LOOK if each["read_only_view"] else messages.SHARED_WITH).format(
            person=each["person"], until=wording.until(each["until"])
        )
        for each in shares
    ]
    return [("shared with", "; ".join(people))] if people else []


def start(name: InstanceName, no_wait: NoWait = False, as_json: Json = False) -> None:
    _act(name, Client.start_instance, messages.STARTING, messages.STARTED, no_wait, as_json)


def stop(name: InstanceName, no_wait: NoWait = False, as_json: Json = False) -> None:
    _act(name, Client.stop_instance, messages.STOPPING, messages.STOPPED, no_wait, as_json)


def restart(name: InstanceName, no_wait: NoWait = False, as_json: Json = False) -> None:
    _act(name, Client.restart_instance, messages.RESTARTING, messages.RESTARTED, no_wait, as_json)


def _act(
    name: str,
    begin: Callable[[Client, str], Begun],
    doing: str,
    done: str,
    no_wait: bool,
    as_json: bool,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        begun = begin(client, resolve(client, name))
        complete(terminal, client, begun, doing.format(name=name), done.format(name=name), no_wait)


def complete(
    terminal: Terminal,
    client: Client,
    begun: Begun,
    doing: str,
    done: str,
    no_wait: bool,
    *,
    may_cancel: bool = False,
) -> None:
    """See what was begun through to its end and say so, or only say how to watch it."""
    if no_wait:
        _leave(terminal, begun, begun["operation"], doing)
        return
    ended = finish(terminal, client, begun["operation"], doing, may_cancel=may_cancel)
    if terminal.as_json:
        terminal.answer({**begun, "operation": ended})
    else:
        terminal.say(done, "green")


def _leave(terminal: Terminal, begun: Begun, operation: Operation, title: str) -> None:
    if terminal.as_json:
        terminal.answer(begun)
    else:
        terminal.say(messages.FOLLOW.format(title=title, id=operation["id"]))


def rebuild(
    name: InstanceName,
    image: Annotated[
        str | None, typer.Option("--image", metavar="IMAGE", help=messages.OTHER_IMAGE)
    ] = None,
    yes: Yes = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        if not yes:
            wanted = image or client.show_instance(ref)["image"]
            lost = wording.snapshots_too(len(client.list_snapshots(ref)))
            question = messages.ASK_REBUILD.format(name=name, image=wanted, snapshots=lost)
            terminal.confirm(question, yes=yes)
        begun = client.rebuild_instance(ref, image=image)
        doing, done = messages.REBUILDING.format(name=name), messages.REBUILT.format(name=name)
        complete(terminal, client, begun, doing, done, no_wait)


def configure(
    name: InstanceName,
    cpus: Cpus = None,
    memory: Memory = None,
    disk: Disk = None,
    wake: Annotated[
        bool | None, typer.Option("--wake/--no-wake", help=messages.WAKE, show_default=False)
    ] = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    no_limit = cpus is None and memory is None and disk is None
    if no_limit and wake is None:
        options = "--cpus, --memory, --disk, --wake, --no-wake"
        raise exits.UsageError(messages.NOTHING_TO_SET.format(options=options))
    with connect() as client:
        ref = resolve(client, name)
        if wake is not None:
            _tell_wake(terminal, client.set_wake(ref, wake), silent=not no_limit)
        if no_limit:
            return
        begun = client.configure_instance(ref, cpus=cpus, memory=memory, disk=disk)
        doing, done = messages.CONFIGURING.format(name=name), messages.CONFIGURED.format(name=name)
        complete(terminal, client, begun, doing, done, no_wait)


def _tell_wake(terminal: Terminal, instance: Instance, *, silent: bool) -> None:
    if terminal.as_json:
        # A change of limits that follows answers with an object of its own.
        if not silent:
            terminal.answer(instance)
        return
    text = messages.WAKES if instance["wake_on_ssh"] else messages.WAKES_NOT
    terminal.say(text.format(name=instance["name"]))


def delete(
    name: InstanceName, yes: Yes = False, no_wait: NoWait = False, as_json: Json = False
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        ref = resolve(client, name)
        if not yes:
            lost = wording.snapshots_too(len(client.list_snapshots(ref)))
            terminal.confirm(messages.ASK_DELETE.format(name=name, snapshots=lost), yes=yes)
        begun = client.delete_instance(ref)
        ssh_files.follow(client)
        doing, done = messages.DELETING.format(name=name), messages.DELETED.format(name=name)
        # Deleting during creation cancels the creation: its end is what was asked for.
        complete(terminal, client, begun, doing, done, no_wait, may_cancel=True)
