"""The program `hutch`: which commands there are, and how each of them ends."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

import typer
import typer.main

from hutch.cli import exits, messages
from hutch.cli.terminal import Terminal
from hutch.errors import HutchError, InternalError

MODULES: dict[str, tuple[str, ...]] = {
    "instances": (
        "create", "list", "show", "start", "stop", "restart", "rebuild", "set", "delete",
    ),
    "logins": ("ssh", "exec"),
    "files": ("files",),
    "shells": ("shell",),
    "shares": ("share", "unshare"),
    "ports": ("port",),
    "apps": ("app",),
    "desktop": ("desktop",),
    "snapshots": ("snapshot", "restore"),
    "gpus": ("gpu",),
    "notices": ("notice",),
    "operations": ("operation",),
    "account": ("login", "logout", "whoami", "password"),
    "keys": ("key",),
    "ssh_config": ("ssh-config",),
    "tokens": ("token",),
    "users": ("user",),
    "groups": ("group",),
    "quotas": ("quota",),
    "reports": ("report",),
    "nodes": ("node",),
    "images": ("image",),
    "events": ("events",),
    "daemon": ("server", "gateway", "agent", "up", "down", "config"),
    "overview": ("overview",),
    "about": ("version", "reference"),
}  # fmt: skip
"""The modules beside this one, and the commands that each adds."""

LOCAL = frozenset("login logout ssh shell server gateway agent up down config reference".split())
OVER_SSH = frozenset(
    """
    create list show start stop restart rebuild set delete exec files share unshare port app
    desktop snapshot restore
    gpu notice operation whoami password key ssh-config token user group quota report node image
    events overview version
    """.split()
)
"""Every command is in one of these: it belongs to the machine that it is run on, or it may also be
given to the gateway (`ssh lab list`). Then it runs on the lab's machine, for somebody who may not
read a single file there: a command that opens a file which a person names asks `remote` first."""

GROUPS = frozenset(
    """
    files app port snapshot gpu notice operation key token user group quota report node image config
    """.split()
)
"""Commands that have commands of their own."""


def build(command: str | None = None) -> typer.Typer:
    """The application, with the one module that `command` is in, or with all of them.

    Typer looks at every parameter of every command before it runs one. Leaving out what was not
    asked for makes `hutch list` start in two thirds of the time.
    """
    app = typer.Typer(
        name="hutch",
        help=messages.HUTCH,
        epilog=messages.EPILOG,
        context_settings={"help_option_names": ["--help", "-h"]},
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_no_options)
    wanted = [module for module, commands in MODULES.items() if command in commands]
    for module in wanted or MODULES:
        import_module(f"hutch.cli.{module}").add_to(app)
    return app


def _no_options() -> None:
    """Typer makes a single command of an application that has one, unless it has a callback."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code, as `exits` lists them."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What the terminal's encoding cannot show is written as an escape, never an error.
            stream.reconfigure(errors="backslashreplace")
    terminal = Terminal(as_json=_wants_json(words))
    try:
        return _run(words)
    except typer.TyperException as error:
        return _show_usage_error(terminal, error)
    except exits.FailedOperationError as failed:
        terminal.fail(failed.error)
        return exits.FAILED
    except HutchError as error:
        terminal.fail(error)
        return exits.exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        terminal.fail(exits.InterruptedByPersonError(messages.INTERRUPTED))
        return exits.INTERRUPTED
    except Exception as error:
        return _show_unforeseen(terminal, error)


def _run(words: list[str]) -> int:
    if not words or (len(words) == 1 and words[0] in GROUPS):
        words = [*words, "--help"]
    if words[0] == "--version":
        words[0] = "version"
    elif words[0] == "help":
        words = [*words[1:], "--help"]
    command = typer.main.get_command(build(_command_of(words)))
    code = command.main(args=words, prog_name="hutch", standalone_mode=False)
    return code if isinstance(code, int) else exits.OK


def _command_of(words: Sequence[str]) -> str | None:
    """The command that is asked for. The shell's completion needs them all."""
    return None if "_HUTCH_COMPLETE" in os.environ else words[0]


def _wants_json(words: Sequence[str]) -> bool:
    """Whether errors are to be JSON. What stands after `--` is somebody else's option."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _show_usage_error(terminal: Terminal, error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    command: str = context.command_path if context is not None else "hutch"
    problem = exits.UsageError(
        error.format_message(), hint=messages.USAGE_HINT.format(command=command)
    )
    terminal.fail(problem)
    return exits.USAGE


def _show_unforeseen(terminal: Terminal, error: Exception) -> int:
    if os.environ.get("HUTCH_DEBUG"):
        import traceback

        traceback.print_exc()
    shown = f"{type(error).__name__}: {error}"
    terminal.fail(
        InternalError(messages.UNFORESEEN.format(error=shown), hint=messages.UNFORESEEN_HINT)
    )
    return exits.FAILED
