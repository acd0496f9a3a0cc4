"""Arguments and options that several commands have, so that they look alike everywhere."""

from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print the API's own objects, and errors as JSON.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
InstanceName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The instance: its name or id; an administrator names others' as owner/name.",
        show_default=False,
    ),
]
Cpus = Annotated[
    int | None, typer.Option("--cpus", metavar="N", help="Processors.", show_default=False)
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Memory, such as 4GiB.", show_default=False),
]
Disk = Annotated[
    str | None,
    typer.Option("--disk", metavar="SIZE", help="Disk, such as 20GiB.", show_default=False),
]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[-- COMMAND...]", help="What to run inside, after `--`.", show_default=False
    ),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
