"""The recipes of images, and when a new image is due."""

import hashlib
import os
import re
import secrets
import tarfile
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from hutch.setup import npm
from hutch.setup.apt import Release, Source
from hutch.setup.commands import CommandError
from hutch.setup.image import forget_credentials, image_key, read_recipe, without_order

RELEASE = Release("debian", "bookworm", "12", "Debian GNU/Linux 12 (bookworm)")
SOURCES = [Source(("http://mirror.example/debian",), ("bookworm",), ("main",))]


def test_the_key_changes_with_the_recipe_and_the_sources_alone():
    recipe = read_recipe()
    key = image_key(recipe, RELEASE, SOURCES)
    assert key == image_key(read_recipe(), RELEASE, SOURCES)
    assert key != image_key(replace(recipe, packages=["git"]), RELEASE, SOURCES)
    assert key != image_key(recipe, RELEASE, [])


def test_no_host_key_and_no_identity_is_shared_between_instances():
    recipe = read_recipe()
    assert "/etc/ssh/ssh_host_*" in recipe.remove
    assert "/etc/machine-id" in recipe.empty


def test_nothing_waits_for_a_unit_whose_order_is_taken_away():
    unit = "[Unit]\nBefore=sysinit.target network.target\nAfter=a.service\n"
    assert without_order(unit) == "[Unit]\nBefore=shutdown.target\nAfter=a.service\n"


def test_a_mirrors_name_is_in_no_recipe():
    recipe = read_recipe()
    assert "://" not in "".join([*recipe.files.values(), *recipe.packages])


def image_with(folder: Path, address: str, option: str) -> Path:
    """What mmdebstrap leaves in /etc/apt for a mirror and an option."""
    apt = folder / "etc/apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "apt.conf.d").mkdir()
    (apt / "apt.conf.d/99mmdebstrap").write_text(f"{option}\n")
    stanza = Source((address, address), ("bookworm",), ("main",)).as_deb822()
    (apt / "sources.list.d/0000image.sources").write_text(stanza)
    (apt / "sources.list").write_text(f"deb {address} bookworm main\n")
    return folder


def test_no_password_of_the_host_gets_into_an_image(tmp_path: Path):
    password = secrets.token_urlsafe(9)
    proxy = f'Acquire::http::Proxy "http://lab:{password}@proxy.example:3128";'
    rootfs = image_with(tmp_path, f"https://lab:{password}@mirror.example/debian", proxy)
    assert forget_credentials(rootfs, [proxy])
    texts = {path.name: path.read_text() for path in rootfs.rglob("*") if path.is_file()}
    assert not [name for name, text in texts.items() if password in text or "lab" in text]
    assert texts["sources.list"] == "deb https://mirror.example/debian bookworm main\n"
    assert texts["0000image.sources"].count("https://mirror.example/debian") == 2
    assert texts["90proxy"] == 'Acquire::http::Proxy "http://proxy.example:3128";\n'
    assert "99mmdebstrap" not in texts


def test_an_image_of_open_mirrors_stays_as_it_is(tmp_path: Path):
    rootfs = image_with(tmp_path, "http://mirror.example/debian", "")
    assert not forget_credentials(rootfs, [])
    assert not (rootfs / "etc/apt/apt.conf.d/90proxy").exists()


def test_a_recipe_may_go_out_from_another():
    base, desktop = read_recipe(), read_recipe("desktop")
    assert set(base.packages) < set(desktop.packages)
    assert set(base.files) < set(desktop.files)
    assert (base.mask, base.links, base.empty) == (desktop.mask, desktop.links, desktop.empty)
    assert (desktop.name, base.npm) == ("desktop", {})


def test_everything_that_the_desktop_starts_is_in_its_recipe():
    files = read_recipe("desktop").files
    named = set(re.findall(r"/usr/lib/hutch/[a-z-]+", "".join(files.values())))
    assert named
    assert named <= set(files)


def test_nothing_of_the_desktop_listens_at_an_address_of_the_machine_unasked():
    files = read_recipe("desktop").files
    listening = re.findall(r"^ListenStream=(.*)$", "".join(files.values()), re.MULTILINE)
    assert listening == ["127.0.0.1:6080"]
    assert "-rfbport -1" in files["/usr/lib/hutch/desktop-session"]


def npm_that_packs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An npm that has one small package, and the package's integrity."""
    (folder / "package").mkdir()
    (folder / "package/main.js").write_text("made here")
    archive = folder / "made.tar"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "package", "package")
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\ncp {archive} "$5/thing.tgz"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return "sha512-" + b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def test_a_package_of_npm_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    integrity = npm_that_packs(tmp_path, monkeypatch)
    npm.unpack("thing", "1.0.0", integrity, tmp_path / "to/thing")
    assert (tmp_path / "to/thing/main.js").read_text() == "made here"


def test_another_package_than_the_recipe_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    npm_that_packs(tmp_path, monkeypatch)
    with pytest.raises(CommandError, match="another package"):
        npm.unpack("thing", "1.0.0", "sha512-other", tmp_path / "thing")
    assert not (tmp_path / "thing").exists()
