"""`hutch ssh-config`: printed, installed by hutch, and by a shell."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from hutch.cli.ssh_files import BACKUP, INCLUDE
from tests.cli.server import Person

OWN = "Host example\n    User me\n"


@pytest.fixture
def folder(alice: Person) -> Path:
    alice.hutch("create", "box")
    made = alice.home / ".ssh"
    made.mkdir(mode=0o700)
    return made


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_prints_what_leads_to_ones_machines(alice: Person, folder: Path) -> None:
    text = alice.hutch("ssh-config").out
    assert "Host lab\n    HostName 192.0.2.1\n    Port 2222\n" in text
    assert "Host box box.lab\n    HostName box\n" in text
    keys = alice.hutch("ssh-config", "--known-hosts").out.splitlines()
    assert (
        keys[1]
        == f"hutch-{alice.json('show', 'box')['id']} "
        + (alice.json("show", "box")["ssh"]["host_key"])
    )
    assert len(keys) == 2
    assert "Host other\n" in alice.hutch("ssh-config", "--alias", "other").out
    assert alice.hutch("ssh-config", "--alias", "-oProxyCommand=x").code == 6
    assert alice.hutch("ssh-config", "--install", "--script").code == 2


def test_nobody_elses_machines_are_in_it(alice: Person, bob: Person, folder: Path) -> None:
    assert "box" not in bob.hutch("ssh-config").out
    alice.hutch("share", "box", bob.name)
    assert f"Host box.{alice.name} box.{alice.name}.lab\n" in bob.hutch("ssh-config").out
    alice.hutch("share", "box", bob.name, "--read-only-view")
    assert "box" not in bob.hutch("ssh-config").out


def test_installing_keeps_what_was_there_and_is_done_once(alice: Person, folder: Path) -> None:
    (folder / "config").write_text(OWN)
    ran = alice.hutch("ssh-config", "--install")
    assert ran.code == 0, ran
    assert "was kept as" in ran.out
    first = files(folder)
    assert first["config"].endswith(f"{INCLUDE}\n\n{OWN}")
    assert first[BACKUP] == OWN
    assert first["config.d/hutch.conf"] == alice.hutch("ssh-config").out
    assert first["hutch/known_hosts"] == alice.hutch("ssh-config", "--known-hosts").out
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert "was kept" not in alice.hutch("ssh-config", "--install").out
    assert files(folder) == first


def test_it_can_be_installed_where_there_is_nothing(alice: Person) -> None:
    assert alice.hutch("ssh-config", "--install").code == 0
    assert INCLUDE in (alice.home / ".ssh" / "config").read_text()
    assert not (alice.home / ".ssh" / BACKUP).exists()


def test_a_line_that_holds_for_one_host_alone_does_not_count(alice: Person, folder: Path) -> None:
    (folder / "config").write_text(f"{OWN}    {INCLUDE}\n")
    alice.hutch("ssh-config", "--install")
    assert (folder / "config").read_text().splitlines()[1] == INCLUDE


@pytest.mark.parametrize("name", ["config", "config.d", "hutch"])
def test_a_link_that_leads_out_is_not_followed(
    alice: Person, folder: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config").write_text(OWN)
    target = outside / "config" if name == "config" else outside
    (folder / name).symlink_to(target)
    ran = alice.hutch("ssh-config", "--install")
    assert ran.code == 6
    assert "is a link to" in ran.err
    assert files(outside) == {"config": OWN}
    assert [path for path in folder.rglob("*") if not path.is_symlink()] == [], "nothing is written"


def test_a_link_that_stays_inside_is_kept(alice: Person, folder: Path) -> None:
    (folder / "mine").write_text(OWN)
    (folder / "config").symlink_to("mine")
    assert alice.hutch("ssh-config", "--install").code == 0
    assert (folder / "config").is_symlink()
    assert (folder / "mine").read_text().endswith(OWN)


def test_a_file_of_hutchs_that_is_a_link_is_replaced(
    alice: Person, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "victim"
    outside.write_text("precious")
    (folder / "hutch").mkdir()
    (folder / "hutch" / "known_hosts").symlink_to(outside)
    (folder / BACKUP).symlink_to(outside)
    (folder / "config").write_text(OWN)
    assert alice.hutch("ssh-config", "--install").code == 0
    assert outside.read_text() == "precious"


def test_what_was_installed_follows_when_a_machine_is_made_or_deleted(
    alice: Person, folder: Path
) -> None:
    alice.hutch("create", "early")
    assert not (folder / "config.d").exists(), "only who wants it has it"
    alice.hutch("ssh-config", "--install")
    alice.hutch("create", "late")
    assert "Host late" in (folder / "config.d" / "hutch.conf").read_text()
    alice.hutch("delete", "late", "--yes")
    assert "Host late" not in (folder / "config.d" / "hutch.conf").read_text()


def test_the_script_installs_the_same(alice: Person, folder: Path) -> None:
    (folder / "config").write_text(OWN)
    script = alice.hutch("ssh-config", "--script").out
    for _ in range(2):
        subprocess.run(
            ["sh"], input=script.encode(), check=True, capture_output=True,
            env={"HOME": str(alice.home), "PATH": os.environ["PATH"]},
        )  # fmt: skip
    written = files(folder)
    assert written["config"] == f"{INCLUDE}\n\n{OWN}"
    assert written[BACKUP] == OWN
    assert written["config.d/hutch.conf"] == alice.hutch("ssh-config").out
    assert written["hutch/known_hosts"] == alice.hutch("ssh-config", "--known-hosts").out


def test_the_script_leaves_links_alone(alice: Person, folder: Path, tmp_path: Path) -> None:
    (folder / "config.d").symlink_to(tmp_path)
    script = alice.hutch("ssh-config", "--script").out
    done = subprocess.run(
        ["sh"], input=script.encode(), check=False, capture_output=True,
        env={"HOME": str(alice.home), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 1
    assert b"config.d is a link" in done.stderr


def test_nothing_is_written_where_somebody_has_no_files(alice: Person, folder: Path) -> None:
    alice.variables["HUTCH_GATEWAY"] = "lab.example.org:2222"
    ran = alice.hutch("ssh-config", "--install")
    assert ran.code == 2
    assert "ssh -p 2222 lab.example.org config --script | sh" in ran.err
    assert list(folder.iterdir()) == []
