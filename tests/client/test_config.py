import json
import os
import stat
from pathlib import Path

import pytest

from hutch.client.config import (
    DEFAULT_URL,
    Login,
    config_path,
    forget_login,
    load_login,
    readable_by_others,
    save_login,
    write_private,
)
from hutch.errors import ConfigurationError

NOBODY: dict[str, str] = {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "hutch" / "config.json"


def test_a_saved_sign_in_is_read_back(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    assert load_login(file, NOBODY) == Login("https://hutch.example", "hutch_1")


def test_nobody_else_may_read_the_file_or_look_into_its_folder(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not readable_by_others(file)


def test_a_file_that_others_may_read_is_noticed(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    file.chmod(0o640)
    assert readable_by_others(file)


def test_saving_makes_a_readable_file_private_again(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    file.chmod(0o644)
    save_login(file, "https://hutch.example", "hutch_2")
    assert not readable_by_others(file)


def test_nothing_is_left_beside_the_file(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    save_login(file, "https://hutch.example", "hutch_2")
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_login(file, "https://hutch.example", "hutch_1")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        save_login(file, "https://hutch.example", "hutch_2")
    assert load_login(file, NOBODY).token == "hutch_1"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_in_place_of_the_file_is_replaced_not_followed(file: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file.parent.mkdir(parents=True)
    file.symlink_to(victim)
    save_login(file, "https://hutch.example", "hutch_1")
    assert victim.read_text() == "precious"
    assert not file.is_symlink()


def test_a_folder_that_cannot_be_made_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        save_login(tmp_path / "config" / "hutch" / "config.json", "https://hutch.example", "t")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_can_write_it_for_somebody_else(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1", owner=(12345, 12346))
    for place in (file, file.parent, file.parent.parent):
        assert (place.stat().st_uid, place.stat().st_gid) == (12345, 12346)


def test_without_a_file_nobody_is_signed_in_at_the_usual_address(file: Path) -> None:
    assert load_login(file, NOBODY) == Login(DEFAULT_URL, None)


def test_the_environment_wins_over_the_file(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    given = {"HUTCH_URL": "https://other.example", "HUTCH_TOKEN": "hutch_2"}
    assert load_login(file, given) == Login("https://other.example", "hutch_2")


def test_a_token_is_not_sent_to_a_server_that_it_is_not_for(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    assert load_login(file, {"HUTCH_URL": "https://other.example"}).token is None
    assert load_login(file, {"HUTCH_URL": "https://hutch.example/"}).token == "hutch_1"


def test_an_empty_variable_is_as_good_as_none(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    given = {"HUTCH_URL": "", "HUTCH_TOKEN": ""}
    assert load_login(file, given) == Login("https://hutch.example", "hutch_1")


def test_forgetting_keeps_the_server_and_drops_the_token(file: Path) -> None:
    save_login(file, "https://hutch.example", "hutch_1")
    forget_login(file, "https://hutch.example")
    assert load_login(file, NOBODY) == Login("https://hutch.example", None)
    assert "hutch_1" not in file.read_text()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"text"', json.dumps({"url": 1}), '{"token": ["a"]}', "\x00"]
)
def test_a_damaged_file_is_named_and_not_a_crash(file: Path, content: str) -> None:
    write_private(file, content)
    with pytest.raises(ConfigurationError, match="damaged") as caught:
        load_login(file, NOBODY)
    assert str(file) in caught.value.message
    assert "hutch login" in caught.value.hint


def test_the_file_is_where_the_desktop_specification_says() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/hutch/config.json")
    assert config_path({"HOME": "/h"}) == Path("/h/.config/hutch/config.json")
    assert config_path({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}) == Path(
        "/h/.config/hutch/config.json"
    )
