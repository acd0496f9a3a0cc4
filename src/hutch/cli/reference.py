"""The reference of the command line, docs/reference/cli.md, written from the commands themselves.

hutch reference > docs/reference/cli.md
"""

from collections.abc import Iterator

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from hutch.cli import exits, messages
from hutch.cli.app import build


def as_markdown() -> str:
    """The whole page."""
    root = get_command(build())
    if not isinstance(root, TyperGroup):
        raise TypeError(f"the application is a {type(root).__name__}")
    lines = [
        "# The command line",
        "",
        messages.REFERENCE,
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in exits.MEANINGS.items()),
        "",
        messages.REFERENCE_EXEC,
        "",
        "## Environment",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in messages.ENVIRONMENT.items()),
        "",
        "## Commands",
        "",
    ]
    for name, command in _commands(root, "hutch"):
        lines += _section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{path} {name}")
        elif isinstance(command, TyperCommand):
            yield f"{path} {name}", command


def _section(name: str, command: TyperCommand) -> list[str]:
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if isinstance(one, TyperOption)]
    usage = " ".join([name, *(one.metavar or one.name or "" for one in arguments)])
    if options:
        usage = (
            usage.replace(" [--", " [OPTIONS] [--", 1) if " [--" in usage else usage + " [OPTIONS]"
        )
    lines = [f"### {name}", "", command.help or "", "", "```", usage, "```", ""]
    if arguments or options:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{one.metavar}` | {one.help or ''} |" for one in arguments]
        lines += [f"| {_spelling(one)} | {one.help or ''} |" for one in options]
        lines.append("")
    return lines


def _spelling(option: TyperOption) -> str:
    spelled = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return spelled
    value = (option.metavar or "VALUE").replace("|", "\\|")
    return f"{spelled} `{value}`"
