"""The person who runs the setup, and what is written in their home."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.errors import ConfigurationError
from hutch.setup import person
from hutch.setup.person import Person

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGsjcqnPIQWKrPWzyFSQsSMCkXMQxTLCVIvq6xfxOMX5"


@pytest.fixture
def kim(tmp_path: Path) -> Person:
    return Person("kim", os.getuid(), os.getgid(), tmp_path)


def test_sudo_does_not_hide_who_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    account = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    who = person.whoever_runs_this({"SUDO_USER": account.pw_name, "HOME": "/root"})
    assert (who.name, who.home) == (account.pw_name, Path(account.pw_dir))


def test_a_name_that_cannot_be_an_administrators_becomes_admin():
    assert person.administrator_name(Person("kim", 1, 1, Path("/"))) == "kim"
    assert person.administrator_name(Person("root", 0, 0, Path("/"))) == "admin"
    assert person.administrator_name(Person("Kim.Lee", 1, 1, Path("/"))) == "admin"


def test_a_person_without_a_key_gets_one_that_only_they_can_read(kim: Person):
    made = person.make_key(kim)
    assert made.startswith("ssh-ed25519 ")
    assert (kim.home / ".ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    assert person.public_keys(kim) == [made]
    assert person.make_key(kim) == made


def test_the_better_key_comes_first(kim: Person):
    (kim.home / ".ssh").mkdir()
    (kim.home / ".ssh/id_rsa.pub").write_text("ssh-rsa AAAA\n")
    (kim.home / ".ssh/id_ed25519.pub").write_text(f"{KEY} kim\n")
    assert person.public_keys(kim) == [f"{KEY} kim", "ssh-rsa AAAA"]


def test_a_host_is_remembered_once_and_others_stay(kim: Person):
    hosts = kim.home / ".ssh/known_hosts"
    hosts.parent.mkdir()
    hosts.write_text("other.example ssh-rsa BBBB\n[192.0.2.9]:22000 ssh-ed25519 OLD\n")
    person.remember_host(kim, "192.0.2.9", 22000, f"{KEY} comment")
    line = f"[192.0.2.9]:22000 {KEY}"
    assert hosts.read_text() == f"other.example ssh-rsa BBBB\n{line}\n"
    assert person.knows_host(kim, line)


def test_the_usual_port_is_not_written():
    assert person.known_host_line("node.example", 22, KEY) == f"node.example {KEY}"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every account may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_a_link_in_somebodys_home_does_not_lead_root_astray(open_folder: Path):
    account = pwd.getpwnam("nobody")
    victim = open_folder / "victim"
    victim.write_text("precious\n")
    home = open_folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/known_hosts").symlink_to(victim)
    for path in (home, home / ".ssh"):
        os.chown(path, account.pw_uid, account.pw_gid)
    nobody = Person("nobody", account.pw_uid, account.pw_gid, home)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        person.remember_host(nobody, "192.0.2.9", 22000, KEY)
    assert victim.read_text() == "precious\n"
    assert os.geteuid() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_what_root_makes_in_somebodys_home_is_theirs(open_folder: Path):
    account = pwd.getpwnam("nobody")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, account.pw_uid, account.pw_gid)
    nobody = Person("nobody", account.pw_uid, account.pw_gid, home)
    person.make_key(nobody)
    person.remember_host(nobody, "192.0.2.9", 22000, KEY)
    assert {path.owner() for path in home.rglob("*")} == {"nobody"}
