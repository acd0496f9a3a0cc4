"""The pages say what is so: links lead somewhere, commands and settings exist, nothing is stale."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from docs import generate
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from hutch import errors
from hutch.cli.app import build
from hutch.reconcilers import drift
from hutch.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page not in generate.PAGES]
"""The pages that people write."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def in_code(text: str) -> Iterator[str]:
    """Each line of code, and each bit of code in a sentence. What is printed is no code: it is in
    a block of the language `text`, or beside the `$ ` of one of the language `console`."""
    for language, block in _FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            yield from (line[2:] for line in lines if line.startswith("$ "))
        elif language != "text":
            yield from lines
    yield from re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual viewers make them."""
    heads = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


# -- pages made from the code ------------------------------------------------------------------


@pytest.mark.parametrize("page", list(generate.PAGES), ids=lambda page: page.name)
def test_a_page_made_from_the_code_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == generate.PAGES[page](), "run `just docs`"


def test_every_error_and_every_action_has_a_meaning_and_none_is_left_over() -> None:
    assert {each.code for each, _ in generate._tree(errors.HutchError)} == set(generate._MEANINGS)
    assert generate.actions() == set(generate._ACTIONS)


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(without_code(page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_found_from_the_first_one() -> None:
    found: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        links = _LINK.findall(without_code(page.read_text()))
        paths = [link.partition("#")[0] for link in links if "://" not in link]
        ahead += [(page.parent / path).resolve() for path in paths if path]
    assert {name(page) for page in PAGES} - {name(page) for page in found} == set()


# -- commands ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cli() -> TyperGroup:
    root = get_command(build())
    assert isinstance(root, TyperGroup)
    return root


def commands(line: str) -> Iterator[list[str]]:
    """The `hutch` commands in a line of code, each as its words after `hutch`."""
    for part in re.split(r"\s(?:\||&&|;)\s|\$\(", line):
        words = _words(part)
        while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words = words[1:]
        if words[:1] == ["hutch"]:
            yield words[1:]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return []


def check(cli: TyperGroup, words: list[str]) -> None:
    """Fail unless the command exists, and so does each of its options."""
    command: Any = cli
    rest = words[: words.index("--")] if "--" in words else words
    # A redirection ends what hutch sees.
    rest = [word for word in rest if word not in {"<", ">", "…", "..."}]
    while rest and isinstance(command, TyperGroup) and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {' '.join(words)!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    given = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
    if isinstance(command, TyperCommand):
        known = {
            spelled
            for one in command.params
            if isinstance(one, TyperOption)
            for spelled in (*one.opts, *one.secondary_opts)
        }
        for option in given:
            assert option in known | {"--help"}, f"no option {option} of {words}"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_and_options_exist(cli: TyperGroup, page: Path) -> None:
    for line in in_code(page.read_text()):
        for words in commands(line):
            if words:
                check(cli, words)


def test_the_check_of_commands_finds_what_does_not_exist(cli: TyperGroup) -> None:
    for line in ("hutch crate box", "sudo hutch snapshot make box", "x && hutch list --everyone"):
        ((words),) = commands(line)
        with pytest.raises(AssertionError):
            check(cli, words)


def test_the_two_commands_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("sudo ./quickstart", "sudo ./test"):
        assert f"```\n{command}\n```" in text
        assert (ROOT / command.split("/")[-1]).stat().st_mode & 0o111


def test_options_of_quickstart_exist() -> None:
    usage = (ROOT / "quickstart").read_text()
    for page in WRITTEN:
        for line in in_code(page.read_text()):
            words = _words(line)
            if any(word.endswith("./quickstart") for word in words):
                for word in words:
                    if word.startswith("--"):
                        assert f"  {word} " in usage, f"{name(page)}: {line}"


def test_recipes_of_the_justfile_exist() -> None:
    recipes = set(
        re.findall(r"^([a-z-]+)(?: .*)?:$", (ROOT / "justfile").read_text(), re.MULTILINE)
    )
    for page in PAGES:
        for line in in_code(page.read_text()):
            if found := re.match(r"just ([a-z-]+)", line):
                assert found.group(1) in recipes, f"{name(page)}: {line}"


# -- settings, codes, files --------------------------------------------------------------------


@cache
def variables_of_the_agent() -> set[str]:
    """The agent reads no file of settings: its options are its variables."""
    command: Any = get_command(build("agent"))
    agent = command.commands["agent"]
    return {str(one.envvar).removeprefix("HUTCH_") for one in agent.params if one.envvar}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_settings_exist(page: Path) -> None:
    text = page.read_text()
    for language, block in _FENCE.findall(text):
        if language == "toml":
            assert tomllib.loads(block).keys() <= Settings.model_fields.keys()
        for key in re.findall(r"--set '?([a-z_]+)=", block):
            assert key in Settings.model_fields, key
    for variable in re.findall(r"\bHUTCH_([A-Z_]+)\b", text):
        known = {key.upper() for key in Settings.model_fields} | {"URL", "TOKEN", "CONFIG", "DEBUG"}
        assert variable in known | variables_of_the_agent(), variable


KEYS = re.compile(
    r"(?:listen|ssh_port|default|quota|overcommit|operation|operations|login|events|reconcile"
    r"|trusted|largest|log|disk|snapshots_per|keys_per|database)_[a-z_]+"
)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_what_looks_like_a_setting_is_one(page: Path) -> None:
    codes = {each.code for each, _ in generate._tree(errors.HutchError)}
    for bit in re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text())):
        if KEYS.fullmatch(bit) and bit not in codes:
            assert bit in Settings.model_fields, bit


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_files_and_tests_that_are_named_are_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:src|tests|docs|deploy|bench)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in sources, test


def test_the_codes_of_drift_are_all_explained() -> None:
    codes = {
        value for key, value in vars(drift).items() if key.isupper() and isinstance(value, str)
    }
    text = (ROOT / "docs/howto/troubles.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == codes


def test_every_reconciler_is_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    sources = (ROOT / "src/hutch/reconcilers").glob("*.py")
    names = re.findall(
        r'^    name = "(\w+)"', "".join(p.read_text() for p in sources), re.MULTILINE
    )
    assert names
    for each in names:
        assert f"| `{each}` |" in text, each


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs/decisions/0001-dependencies.md").read_text()
    for dependency in project["dependencies"]:
        package = re.split(r"[\[<>=~! ]", dependency)[0]
        assert re.search(rf"^\| .*\b{package}\b.* \|", text, re.MULTILINE), package


def test_decisions_are_numbered_without_a_gap() -> None:
    files = sorted((ROOT / "docs/decisions").glob("0*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for number, file in enumerate(files, 1):
        assert file.read_text().startswith(f"# {number}. ")


def test_examples_in_json_are_json() -> None:
    for page in PAGES:
        for language, block in _FENCE.findall(page.read_text()):
            if language == "json":
                json.loads(block)
