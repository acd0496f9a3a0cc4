"""Root writes in a folder of the server's user, who gains nothing by it."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from hutch.setup.files import replace_text


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file that somebody wants root to overwrite."""
    path = tmp_path / "theirs"
    path.write_text("kept")
    path.chmod(0o600)
    return path


def test_a_file_is_replaced_whole_with_its_rights(tmp_path: Path):
    path = tmp_path / "hutch.toml"
    path.write_text("old")
    old = path.open()
    replace_text(path, "new", mode=0o640)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert old.read() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["hutch.toml"]


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path, theirs: Path):
    path = tmp_path / "hutch.toml"
    path.symlink_to(theirs)
    replace_text(path, "new", mode=0o644)
    assert theirs.read_text() == "kept"
    assert theirs.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "new"


def test_a_link_at_the_name_written_to_first_is_refused(
    tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
):
    known: Callable[[int], str] = lambda _: "known"  # noqa: E731
    monkeypatch.setattr(secrets, "token_hex", known)
    (tmp_path / ".hutch.toml.known").symlink_to(theirs)
    with pytest.raises(FileExistsError):
        replace_text(tmp_path / "hutch.toml", "new", mode=0o644)
    assert theirs.read_text() == "kept"


def test_what_fails_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_text(tmp_path / "folder", "new", mode=0o644)
    assert os.listdir(tmp_path) == ["folder"]
