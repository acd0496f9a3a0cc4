"""The layers of hutch hold, and would be seen to break."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "hutch"
LONGEST = 560
"""The supervisor is the longest; the next thing it learns belongs into a module of its own."""


def _modules(folder: Path = SOURCES) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "/ui/" not in str(path))


def _imports(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def _lint(project: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.path.insert(0, 'src');"
        "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources in a place where a test may break them."""
    shutil.copy(ROOT / ".importlinter", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", "ui")
    shutil.copytree(SOURCES, tmp_path / "src" / "hutch", ignore=ignored)
    return tmp_path


def test_every_layer_imports_only_what_is_below_it() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("domain/sizes.py", "import hutch.store.db", "Requests flow down"),
        ("services/users.py", "import sqlalchemy", "SQL lives in the store alone"),
        ("services/users.py", "import hutch.engine.incus", "Only the engine package knows Incus"),
        ("client/__init__.py", "import hutch.services.users", "The command line talks HTTP"),
        ("agent/watch.py", "import hutch.store.db", "The agent of a node knows the domain"),
        ("agent/run.py", "import hutch.settings", "The agent of a node knows the domain"),
    ],
)
def test_an_import_against_the_layers_is_found(
    copy: Path, module: str, line: str, contract: str
) -> None:
    with (copy / "src" / "hutch" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = _lint(copy)
    assert done.returncode == 1, done.stderr
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert [row for row in broken if row.startswith(contract)], done.stdout


def test_only_the_store_knows_sql() -> None:
    for module in _modules():
        if not module.is_relative_to(SOURCES / "store"):
            wrong = {name for name in _imports(module) if name.split(".")[0] == "sqlalchemy"}
            assert not wrong, module


def test_the_domain_does_no_input_or_output() -> None:
    forbidden = {
        "asyncio", "fastapi", "httpx", "os", "pathlib", "requests", "socket", "sqlite3",
        "structlog", "subprocess", "tempfile", "threading", "time",
    }  # fmt: skip
    for module in _modules(SOURCES / "domain"):
        assert not {name.split(".")[0] for name in _imports(module)} & forbidden, module


def test_no_module_is_longer_than_can_be_read_in_one_go() -> None:
    lengths = {
        str(module.relative_to(SOURCES)): len(module.read_text().splitlines())
        for module in _modules()
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


NOUNS = {
    "accelerators", "events", "groups", "images", "instances", "keys", "leases", "nodes",
    "notices", "operations", "reports", "snapshots", "tokens", "users",
}  # fmt: skip


@pytest.mark.parametrize("layer", ["store", "services", "api"])
def test_a_noun_has_the_same_file_name_in_every_layer(layer: str) -> None:
    if not (SOURCES / layer).is_dir():
        pytest.skip(f"there is no {layer} yet")
    found = {module.stem for module in (SOURCES / layer).glob("*.py")}
    assert found >= NOUNS, NOUNS - found


def test_nobody_calls_a_module_by_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "v2"}
    assert [module for module in _modules() if set(module.stem.split("_")) & nothing] == []


def test_no_program_is_started_through_a_shell() -> None:
    for module in _modules():
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                where = f"{module}:{node.lineno}"
                assert not called.endswith((".create_subprocess_shell", "os.system", "os.popen")), (
                    where
                )
                shell = [word for word in node.keywords if word.arg == "shell"]
                assert all(ast.unparse(word.value) == "False" for word in shell), where
