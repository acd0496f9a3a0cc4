"""Writes the pages of docs/reference that come from the code: `python -m docs.generate`.

With `--check` nothing is written, and the exit code is 1 when a page is not what the code says.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from hutch import errors, settings, settings_text
from hutch.api.app import describe_api
from hutch.cli import reference
from hutch.domain.operations import Kind, OperationState
from hutch.domain.sizes import format_size
from hutch.operations import registry
from hutch.operations.base import Procedure

FOLDER = Path(__file__).parent / "reference"
SOURCES = Path(errors.__file__).parent
_MADE = "This page is made from the code by `just docs`. Change the code, not the page."


def _page(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(heads: str, rows: list[list[str]]) -> str:
    columns = heads.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -- configuration -----------------------------------------------------------------------------

_CONFIGURATION = """
The server reads its settings once, when it starts. Of these, the later ones win:

1. the defaults below
2. `hutch.toml` in the data folder, or the file that `--config` or the variable `HUTCH_CONFIG` names
3. the environment: `HUTCH_` and the key in capitals
4. the options of `hutch server`: `--data`, `--host`, `--port`

A value that cannot be is refused at start, with the key, the value and what is allowed. So is an
unknown key. `hutch config check` says whether the settings are valid and starts nothing.
`hutch config show` prints all of them as a file with comments. After a change, restart the server.

A size is a number with a unit (`512MiB`, `4GiB`, `1.5T`; `K`, `M`, `G` and `T` alone are binary),
or a number of bytes. In a variable, a list is written with commas.
"""


def configuration() -> str:
    """Every setting, with its variable, its default and what is allowed."""
    fields = settings.Settings.model_fields
    written = dict(re.findall(r"^#([a-z_]+) = (.*)$", settings_text.as_toml(), re.MULTILINE))
    rows = [
        [
            f"`{name}`",
            f"`{settings.PREFIX}{name.upper()}`",
            f"`{_size_of(name, field.get_default(call_default_factory=True)) or written[name]}`",
            f"{field.description} {_allowed(name)}".strip().replace("|", "\\|"),
        ]
        for name, field in fields.items()
    ]
    return _page(
        "# Configuration", _MADE, _CONFIGURATION, _table("key | variable | default | meaning", rows)
    )


def _size_of(name: str, value: object) -> str:
    """A default that is a size, as one writes it."""
    is_size = name in settings._SIZES and isinstance(value, int)
    return f'"{format_size(value)}"' if is_size else ""


def _allowed(name: str) -> str:
    """The bounds of a number."""
    if name in settings._SIZES:
        least, most = settings._SIZES[name]
        return f"({format_size(least)} to {format_size(most)})"
    schema = settings.Settings.model_json_schema()["properties"][name]
    if "enum" in schema:
        return "(" + ", ".join(f"`{value}`" for value in schema["enum"]) + ")"
    if "minimum" in schema:
        return f"({schema['minimum']:g} to {schema['maximum']:.12g})"
    return ""


# -- errors ------------------------------------------------------------------------------------

_ERRORS = """
Every failure of the API, and the error of an operation that failed, has this shape:

```json
{
  "error": {
    "code": "quota_exceeded",
    "message": "what happened, and why",
    "hint": "what to do",
    "detail": {"more": "depends on the code"},
    "request_id": "the name of the request in the server's log"
  }
}
```

The code is stable. The texts are for people, and may change. The command line prints the same
object with `--json`; which exit code follows is [in its reference](cli.md#exit-codes).
"""
_MEANINGS = {
    "invalid_input": "Something in the request is not valid. The message names it.",
    "invalid_name": "A name has characters or a length that it may not have.",
    "invalid_size": "A text is no size, or is a size that is too large.",
    "invalid_limit": "A number is outside what is allowed.",
    "invalid_key": "A text is no public SSH key.",
    "weak_key": "An SSH key is of a kind or a length that no longer protects.",
    "weak_password": "A password is too short or too easy.",
    "invalid_duration": "A time is not written as one, or is outside what is allowed.",
    "invalid_path": "A path of a file holds NUL or `..`, is too long, or is one that must stay.",
    "bad_range": "None of the bytes that were asked for is in the file.",
    "no_such_accelerator": "The node will never have such accelerators, or so many of them.",
    "node_too_small": "More is asked for than the whole node has.",
    "not_authenticated": "Nobody is signed in.",
    "bad_login": "The name or the password is wrong. The answer does not say which.",
    "bad_token": "The token is unknown, expired or revoked.",
    "bad_ticket": "A ticket is for something else, was used, or is too old; or its token is bad.",
    "untrusted_app": "An app of another person, and nobody said yet that they trust them.",
    "app_unreachable": "What listens in the instance does not answer as a web server does.",
    "app_timeout": "The app did not begin to answer within `apps_answer_seconds`.",
    "forbidden": "The person or the token may not do this.",
    "not_found": "It does not exist, or it belongs to somebody else.",
    "conflict": "It does not fit what is there.",
    "name_taken": "The name is in use.",
    "port_taken": "The host port leads to an instance, or a program of the node listens there.",
    "key_taken": "The SSH key is registered already, by this person or by another.",
    "operation_in_progress": "Another operation works on the same thing. `detail` names it.",
    "wrong_state": "It cannot be done in the state that the thing is in.",
    "quota_exceeded": "The person would hold more than their quota. `detail` has the numbers.",
    "extension_refused": "Somebody who is entitled to the accelerators waits for them.",
    "no_room": "No node has room for it now.",
    "file_exists": "There is something of that name, and it was not said that it may be replaced.",
    "wrong_file_type": "What is at a path is a folder, or is none, or is no ordinary file.",
    "folder_not_empty": "A folder has something in it, and it was not said that this may go.",
    "file_refused": "The instance's own kernel refuses it: the place is read-only, for instance.",
    "file_changed": "A file changed while it was sent.",
    "wrong_offset": "An upload goes on at another byte: `detail` has `offset`.",
    "disk_full": "The disk of the instance is full. Of an upload nothing is left behind.",
    "no_port_left": "Every host port of the range is taken.",
    "no_address_left": "Every address of the node's bridge is taken.",
    "too_large": "The request's body is larger than `largest_body`.",
    "too_many_requests": "Too many failed sign-ins, or too much at once: see `Retry-After`.",
    "unavailable": "The server cannot do its work now.",
    "database_unavailable": "The database does not answer.",
    "engine_unavailable": "The node's engine does not answer. What it did is not known.",
    "engine_error": "The engine answered, and refused or failed.",
    "engine_port_closed": "Nothing listens at that port inside the container.",
    "engine_not_found": "The engine does not have that container, snapshot or image.",
    "engine_conflict": "The engine is busy with that container.",
    "bad_configuration": "A setting, a key file or a certificate cannot be used.",
    "internal_error": "Something nobody foresaw. The server's log has it, under the request's id.",
}


def error_codes() -> str:
    """Every code that an answer or an operation may carry."""
    rows = [
        [
            f"`{error.code}`",
            str(error.status),
            "" if parent is errors.HutchError else f"`{parent.code}`",
            _MEANINGS[error.code],
        ]
        for error, parent in _tree(errors.HutchError)
    ]
    return _page("# Errors", _MADE, _ERRORS, _table("code | status | a kind of | meaning", rows))


Error = type[errors.HutchError]


def _tree(of: Error) -> Iterator[tuple[Error, Error]]:
    """Each error with what it is a kind of, as `errors.py` draws them."""
    for each in of.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each, of
            yield from _tree(each)


# -- operations --------------------------------------------------------------------------------

_OPERATIONS = """
Work that takes time is an operation: a row in the database that is carried out step by step.
`hutch operation show` tells the step it is at. Why it is built so stands in
[operations and crashes](../explanation/operations.md).

The tables below open the files in `src/hutch/operations/`. A step that is a *pivot* has no way
back: before it an error is undone, from it on there is only forward.
"""
_STATES = {
    OperationState.PENDING: "It waits for its turn, or to be tried again.",
    OperationState.RUNNING: "A server works on it.",
    OperationState.DONE: "It was done.",
    OperationState.FAILED: "It could not be done, and what it had begun was undone.",
    OperationState.CANCELLED: "Somebody asked for the opposite meanwhile, and it was undone.",
    OperationState.STUCK: (
        "It met an error that nobody foresaw, again and again. An administrator looks, then runs"
        " `hutch operation retry`."
    ),
}


def operations() -> str:
    """Every kind of operation with its steps and how they are undone."""
    states = [[f"`{state.value}`", _STATES[state]] for state in OperationState]
    parts = ["# Operations", _MADE, _OPERATIONS, "## States", _table("state | meaning", states)]
    for module in _modules():
        mine = [each for each in registry.PROCEDURES.values() if _is_in(each, module)]
        title, _, rest = (inspect.getdoc(module) or "").partition("\n")
        parts += [f"## {title.rstrip('.')}", rest]
        parts.append(_table("kind | steps, with what people read meanwhile", list(map(_row, mine))))
    return _page(*parts)


def _modules() -> list[ModuleType]:
    """The modules of the registered kinds, in the registry's order."""
    loaded = [value for value in vars(registry).values() if isinstance(value, ModuleType)]
    found = (
        module for each in registry.PROCEDURES.values() for module in loaded if _is_in(each, module)
    )
    return list(dict.fromkeys(found))


def _is_in(procedure: Procedure, module: ModuleType) -> bool:
    return any(value is procedure for value in vars(module).values())


def _row(procedure: Procedure) -> list[str]:
    steps = [
        f"`{step.name}` “{step.message}”{' (pivot)' if step.pivot else ''}"
        for step in procedure.steps
    ]
    note = " (only forward)" if procedure.forward_only else ""
    return [f"`{procedure.kind.value}`{note}", " → ".join(steps)]


# -- events ------------------------------------------------------------------------------------

_EVENTS = """
An event says who did what to what, when, from where, with what result. `hutch events` shows them
to administrators, and `GET /api/v1/events` answers with them. They are kept for `events_days`.

What an operation carries out has two events: one with the result `requested` when it is asked for,
in the transaction that grants it, and one when it ends, with `ok`, `failed` or `cancelled`. What
is done at once has one, with `ok` or `refused`. What hutch does of its own accord is done by
`hutch`, and has no address.

| field | meaning |
| --- | --- |
| `id` | grows with every event: page back with `--before` |
| `at` | when, in UTC |
| `by` | who: a person, `hutch` itself, or `nobody` for a sign-in that was refused |
| `action` | what, see below |
| `target` | kind, id and name of what it was done to |
| `result` | `requested`, `ok`, `failed`, `cancelled` or `refused` |
| `address` | where the request came from |
| `request_id` | the request's name in the server's log, and in the operation it began |
| `detail` | more, depending on the action; never a secret |
"""
_ACTIONS = {
    "accelerator.failed": "One broke, or is no longer found: `detail` says which, and why.",
    "accelerator.found": "A node has one that was not known.",
    "accelerator.recovered": "A broken or missing one is well again.",
    "accelerator.replaced": "Another card is where one was; it goes on under the same id.",
    "accelerator.restore": "An administrator brought one back into service.",
    "accelerator.share": "How many leases may hold one at once was set.",
    "accelerator.withdraw": "An administrator took one out of service; `detail` has the reason.",
    "app.trust": "A person said that they trust another's apps at hutch's own address.",
    "container.orphan": "A node has a container that the database does not know. It is left alone.",
    "group.add": "A group was added.",
    "group.add_member": "A person was put into a group.",
    "group.configure": "A group's shares or policy of idleness; `detail` has the changes.",
    "group.remove": "A group was removed. Its members stay.",
    "group.remove_member": "A person was taken out of a group.",
    "group.set_manager": "A member may keep the group's people, or no longer.",
    "file.delete": "A file or folder was deleted through hutch; `detail` has the path.",
    "file.download": "A file or folder was sent out of an instance.",
    "file.link": "A symbolic link was made; `detail` has where it points.",
    "file.mkdir": "A folder was made.",
    "file.rename": "A file or folder was renamed or moved.",
    "file.upload": "A file came whole, and was given its name.",
    "gateway.login": "Somebody came through the SSH gateway with this key, or was refused.",
    "image.add": "An image is offered.",
    "image.set_pool": "How many of an image are kept ready was set.",
    "instance.configure": "New limits.",
    "instance.create": "A new instance.",
    "instance.delete": "The end of an instance.",
    "instance.drift": "Something differs from what should be, or no longer does: `detail` says.",
    "instance.exec": "A program was run inside by `hutch exec`; `detail` has its name alone.",
    "instance.rebuild": "A fresh disk.",
    "instance.restart": "Stop and start.",
    "instance.share": "The owner lets a person log in, or look; `detail` says who and how.",
    "instance.shared": "The same, as an event of that person's.",
    "instance.set_wake": "Whether coming through the gateway starts it when it is stopped.",
    "instance.start": "Start. `detail` tells when it was because the node has restarted.",
    "instance.stop": "Stop.",
    "instance.unshare": "A person may no longer log in, or look; `hutch` ends what was due.",
    "instance.unshared": "The same, as an event of that person's.",
    "key.add": "An SSH key was registered.",
    "key.remove": "An SSH key was removed.",
    "keys.push": "A person's keys were brought into a running instance.",
    "lease.ask": "What had the accelerators of a lease open was asked to end: `detail` names it.",
    "lease.attach": "Accelerators were brought into an instance.",
    "lease.cancel": "A waiting lease left the queue.",
    "lease.detach": "Accelerators left an instance, and nobody had them open any more.",
    "lease.expire": "The time of a lease is up, and its accelerators go back.",
    "lease.extend": "A lease runs longer.",
    "lease.grant": "A lease has got accelerators; `detail` names them.",
    "lease.kill": "What had not ended by then was ended: `detail` names it.",
    "lease.mended": "A machine lacked a device, or had one without a lease: `detail` has it.",
    "lease.pardon": "What was announced to the holder of a lease was withdrawn.",
    "lease.preempt": "Borrowed accelerators go back to a group that is guaranteed them.",
    "lease.reclaim": "Nothing computed on the accelerators of a lease, and they go back.",
    "lease.release": "A lease's accelerators go back; `detail` has the reason.",
    "lease.take": "Accelerators were asked for.",
    "lease.warn": "The end of a lease was announced to its holder.",
    "node.active": "A node takes new instances again.",
    "node.add": "A node was added.",
    "node.agent_returned": "A node's agent speaks again.",
    "node.agent_silent": "A node's agent says nothing: its accelerators are not granted.",
    "node.agent_token": "A new token for a node's agent; the old one is of no use any more.",
    "node.cordoned": "A node takes nothing new.",
    "node.restarted": "A node, or its engine, has restarted, and what should run was started.",
    "node.returned": "A node answers again.",
    "node.set_idle": "When idle accelerators of a node go back was set.",
    "node.set_address": "People reach a node at another address from now on.",
    "node.unreachable": "A node does not answer.",
    "notice.deliver": "A notice was written where the person sees it.",
    "operation.retry": "An administrator let a stuck operation try again.",
    "pool.add": "A container was made in advance.",
    "pool.remove": "A container of the pool, or a leftover of a crash, was removed.",
    "port.add": "A host port was led to an instance.",
    "port.configure": "Who may open a port in a browser, or until when it is there, was changed.",
    "port.remove": "A host port was taken away; by `hutch` when its time was over.",
    "snapshot.create": "A snapshot was taken.",
    "snapshot.delete": "A snapshot was deleted.",
    "snapshot.restore": "A disk was put back to a snapshot.",
    "terminal.open": (
        "A web terminal was opened; `again`: a shell that was there still; `ticket`: which one"
        " it was opened with."
    ),
    "token.create": "An API token was made.",
    "token.revoke": "An API token was revoked.",
    "user.add": "A person was added.",
    "user.change_password": "A person changed their own password.",
    "user.configure": "A person's role or quota was changed; `detail` has the changes.",
    "user.disable": "A person was shut out.",
    "user.enable": "A person was let in again.",
    "user.login": "A sign-in, or one that was refused.",
    "user.reset_password": "An administrator made a new password for a person.",
}


def events() -> str:
    """Every action that is recorded."""
    rows = [[f"`{action}`", _ACTIONS[action]] for action in sorted(actions())]
    return _page("# Events", _MADE, _EVENTS, "## Actions", _table("action | meaning", rows))


def actions() -> set[str]:
    """Every action that an event may have, found where the code records one.

    Raises LookupError for a way of naming one that is not known here.
    """
    found = {kind.value.replace("_", ".", 1) for kind in Kind}
    for path in sorted(SOURCES.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and _records(call):
                found |= _named(ast.unparse(call.args[3]))
    return found


def _records(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name.endswith("record") and len(call.args) > 3


def _named(text: str) -> set[str]:
    """The actions that an argument in the source may be."""
    try:
        value = str(ast.literal_eval(text))
    except ValueError:
        return set(_COMPOSED[text])
    return {value}


_COMPOSED: dict[str, list[str]] = {
    "_ENDED_BY.get(reason, 'lease.release')": [
        "lease.expire",
        "lease.preempt",
        "lease.reclaim",
        "lease.release",
    ],
    "action": [
        "lease.ask",
        "lease.expire",
        "lease.kill",
        "lease.preempt",
        "lease.reclaim",
        "lease.release",
    ],
    "f'accelerator.{verb}'": [f"accelerator.{verb}" for verb in ("withdraw", "restore", "share")],
    "instance": [],
    "f'instance.{verb}'": [
        f"instance.{verb}"
        for verb in (
            "start",
            "stop",
            "restart",
            "rebuild",
            "configure",
            "delete",
            "share",
            "unshare",
        )
    ],
    "f'instance.{verb}d'": ["instance.shared", "instance.unshared"],
    "f'file.{verb}'": [
        f"file.{verb}" for verb in ("delete", "download", "link", "mkdir", "rename", "upload")
    ],
    "f'port.{verb}'": ["port.add", "port.configure", "port.remove"],
    "f'node.{state.value}'": ["node.active", "node.cordoned"],
    "kind.value.replace('_', '.')": ["snapshot.create", "snapshot.restore", "snapshot.delete"],
    "operation.kind.replace('_', '.', 1)": [],
}
"""What composed actions in the source may be; those of operations are all kinds."""


# -- all of them -------------------------------------------------------------------------------


def openapi() -> str:
    """The description of the API, as `python -m hutch.api.openapi` writes it."""
    return json.dumps(describe_api(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


PAGES: dict[Path, Callable[[], str]] = {
    FOLDER / "cli.md": reference.as_markdown,
    FOLDER / "configuration.md": configuration,
    FOLDER / "errors.md": error_codes,
    FOLDER / "events.md": events,
    FOLDER / "openapi.json": openapi,
    FOLDER / "operations.md": operations,
}


def stale() -> list[Path]:
    """The pages that are not what the code says."""
    return [
        page
        for page, make in PAGES.items()
        if not page.exists() or page.read_text(encoding="utf-8") != make()
    ]


def main() -> int:
    old = stale()
    if "--check" in sys.argv[1:]:
        for page in old:
            print(f"{page} is not what the code says: run `just docs`")
        return 1 if old else 0
    for page in old:
        page.write_text(PAGES[page](), encoding="utf-8")
        print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
