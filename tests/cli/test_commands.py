"""The command line as a whole: complete, explained, quick to start."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from hutch.cli import exits, messages
from hutch.cli.app import GROUPS, LOCAL, MODULES, OVER_SSH, build
from hutch.cli.reference import as_markdown
from tests.cli.server import PROGRAM, Person, run_hutch

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands(group: TyperGroup | None = None, path: str = "") -> Iterator[tuple[str, TyperCommand]]:
    root = group or get_command(build())
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        full = f"{path} {name}".strip()
        if isinstance(command, TyperGroup):
            yield from commands(command, full)
        else:
            assert isinstance(command, TyperCommand)
            yield full, command


ALL = dict(commands())
_OF_NOUNS = str(Path(exits.__file__).parent / "words")
WORDS = [messages] + [
    import_module(f"hutch.cli.words.{each.name}") for each in iter_modules([_OF_NOUNS])
]
HELP = {name: text for module in WORDS for name, text in getattr(module, "HELP", {}).items()}


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text() == as_markdown(), "run: hutch reference > docs/reference/cli.md"


def test_the_table_of_modules_names_every_command_and_group() -> None:
    root = get_command(build())
    assert isinstance(root, TyperGroup)
    named = [name for names in MODULES.values() for name in names]
    assert sorted(named) == sorted(root.commands)
    groups = {name for name, one in root.commands.items() if isinstance(one, TyperGroup)}
    assert groups == GROUPS


@pytest.mark.parametrize("name", ALL)
def test_every_command_argument_and_option_is_explained(name: str) -> None:
    command = ALL[name]
    assert command.help == HELP[name]
    for one in command.params:
        if isinstance(one, TyperArgument | TyperOption):
            assert one.help, one.name


def test_what_can_be_printed_can_be_printed_as_json() -> None:
    without = {
        "ssh", "shell", "server", "gateway", "agent", "up", "down", "config show", "config check",
        "reference",
    }  # fmt: skip
    for name, command in ALL.items():
        options = {opt for one in command.params for opt in one.opts}
        assert ("--json" in options) is (name not in without), name


def test_what_loses_something_asks_first() -> None:
    asking = {name for name, one in ALL.items() if any("--yes" in p.opts for p in one.params)}
    assert asking == {
        "delete", "rebuild", "restore", "snapshot restore", "snapshot delete", "user disable",
        "group remove", "files get", "files put", "files rename", "files delete",
    }  # fmt: skip


def test_every_message_is_used() -> None:
    sources = "".join(file.read_text() for file in Path(exits.__file__).parent.glob("*.py"))
    for module in WORDS:
        noun = module.__name__.rpartition(".")[2]
        names = [name for name in vars(module) if name.isupper()]
        said = rf"\b({noun}|words)\.{{}}\b"
        assert [name for name in names if not re.search(said.format(name), sources)] == []


def test_the_help_is_there_for_every_level(tmp_path: Path) -> None:
    for words in ([], ["--help"], ["-h"], ["snapshot"], ["snapshot", "create", "--help"]):
        ran = run_hutch(*words, HOME=str(tmp_path), COLUMNS="100")
        assert ran.code == 0, words
        assert "Usage:" in ran.out


def test_a_typing_mistake_gets_a_suggestion() -> None:
    ran = run_hutch("lst")
    assert ran.code == 2
    assert "list" in ran.err


def test_the_version_is_told() -> None:
    assert run_hutch("version").out == run_hutch("--version").out
    assert json.loads(run_hutch("version", "--json").out).keys() == {"version"}


HEAVY = {
    "pydantic", "sqlalchemy", "fastapi", "starlette", "httpx", "rich", "cryptography", "asyncssh",
    "structlog", "asyncio", "uvicorn", "hutch.settings", "hutch.services", "hutch.store",
    "hutch.api",
}  # fmt: skip


def test_listing_imports_nothing_heavy(alice: Person) -> None:
    script = (
        "import sys, runpy\n"
        "from hutch.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "list"],
        env={"PATH": os.environ["PATH"], **alice.signed_in},
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, *modules = ended.stderr.splitlines()[-1].split()
    assert code == "0"
    assert HEAVY & set(modules) == set()


def test_completion_knows_the_commands() -> None:
    ended = subprocess.run(
        PROGRAM,
        env={
            "PATH": os.environ["PATH"],
            "_HUTCH_COMPLETE": "complete_bash",
            "COMP_WORDS": "hutch sn",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "snapshot" in ended.stdout


def test_settings_are_shown_and_checked(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "HUTCH_DATA": str(tmp_path)}
    assert "listen_port" in run_hutch("config", "show", **home).out
    assert run_hutch("config", "check", **home).code == 0
    ran = run_hutch("config", "check", HUTCH_LISTEN_PORT="99999", **home)
    assert ran.code == 6
    assert "listen_port" in ran.err
    assert "99999" in ran.err
    (tmp_path / "bad.toml").write_text("nonsense = 1\n")
    assert run_hutch("config", "check", "--config", str(tmp_path / "bad.toml"), **home).code == 6


def test_what_was_never_set_up_is_not_started(tmp_path: Path) -> None:
    for command in ("up", "down"):
        ran = run_hutch(command, "--data", str(tmp_path), HOME=str(tmp_path))
        assert ran.code == 6, ran
        assert ran.err.startswith("Error: ")


def test_every_command_says_whether_it_may_be_given_to_the_gateway() -> None:
    """See `OVER_SSH`: what runs there must not open a file that a person names."""
    commands = {name for module in MODULES.values() for name in module}
    assert commands == OVER_SSH | LOCAL
    assert not OVER_SSH & LOCAL


def test_help_may_also_be_asked_for_with_a_word() -> None:
    assert run_hutch("help", "create").out == run_hutch("create", "--help").out
    assert run_hutch("help").out == run_hutch("--help").out
