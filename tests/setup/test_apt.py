"""Mirrors are taken from the machine's own configuration, in either format, on each release."""

from pathlib import Path

import pytest

from hutch.setup.apt import (
    Release,
    backports_source,
    has_backports,
    own_sources,
    parse_deb822,
    parse_one_line,
    parse_os_release,
    read_sources,
)

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://mirror.example/debian"
BOOKWORM = Release("debian", "bookworm", "12", "Debian GNU/Linux 12 (bookworm)")
TRIXIE = Release("debian", "trixie", "13", "Debian GNU/Linux 13 (trixie)")
NOBLE = Release("ubuntu", "noble", "24.04", "Ubuntu 24.04.3 LTS")

BOOKWORM_ONE_LINE = f"""
# The mirror of the institute
deb {MIRROR} bookworm main contrib non-free-firmware  # all of it
deb-src {MIRROR} bookworm main
deb {MIRROR} bookworm-updates main
deb [arch=amd64,arm64 signed-by={KEYRING}] http://sec.example/ bookworm-security main
deb [signed-by=/etc/apt/keyrings/docker.asc] https://docker.example/linux/debian bookworm stable
deb [signed-by=/etc/apt/keyrings/other.asc] https://other.example/debian bookworm main
"""

BOOKWORM_DEB822 = f"""
Types: deb deb-src
URIs: {MIRROR}
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {MIRROR}-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""

NOBLE_DEB822 = """
Types: deb
URIs: http://ubuntu.example/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

## Security fixes
Types: deb
URIs: http://ubuntu.example/security/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""

TRIXIE_DEB822 = """
Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6JDcKw/NZJPR8lsD3K87ZMFPuK3ouDbNG
 -----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.mark.parametrize(
    "sources", [parse_one_line(BOOKWORM_ONE_LINE), parse_deb822(BOOKWORM_DEB822)]
)
def test_backports_of_debian_12_are_on_the_same_mirror(sources):
    source = backports_source(sources, BOOKWORM)
    assert source is not None
    assert source.uris == (MIRROR,)
    assert source.suites == ("bookworm-backports",)
    assert source.components == ("main",)


def test_the_key_of_the_mirror_is_kept():
    source = backports_source(parse_deb822(BOOKWORM_DEB822), BOOKWORM)
    assert source is not None
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in source.as_deb822()


def test_a_key_written_in_place_survives():
    (source,) = own_sources(parse_deb822(TRIXIE_DEB822), TRIXIE)
    (again,) = parse_deb822(source.as_deb822())
    assert again == source
    assert "BEGIN PGP" in again.options["Signed-By"]


def test_third_parties_that_use_the_same_suite_are_left_out():
    hosts = {uri for source in own_sources(parse_one_line(BOOKWORM_ONE_LINE), BOOKWORM)
             for uri in source.uris}  # fmt: skip
    assert hosts == {MIRROR, "http://sec.example/"}


def test_disabled_entries_are_left_out():
    uris = [uri for source in parse_deb822(BOOKWORM_DEB822) for uri in source.uris]
    assert "http://off.example/debian" not in uris


def test_options_of_one_line_entries_are_read():
    sources = list(parse_one_line(BOOKWORM_ONE_LINE))
    security = next(source for source in sources if "bookworm-security" in source.suites)
    assert security.options["Architectures"] == "amd64 arm64"
    assert security.options["Signed-By"].endswith("debian-archive-keyring.gpg")


def test_ubuntu_builds_from_main_updates_and_security_with_universe():
    found = own_sources(parse_deb822(NOBLE_DEB822), NOBLE)
    assert [source.suites for source in found] == [("noble", "noble-updates"), ("noble-security",)]
    assert all("universe" in source.components for source in found)


def test_backports_that_are_there_are_seen():
    sources = list(parse_one_line(f"deb {MIRROR} bookworm-backports main"))
    assert has_backports(sources, BOOKWORM)
    assert not has_backports(parse_deb822(BOOKWORM_DEB822), BOOKWORM)


def test_a_machine_with_a_disc_alone_has_no_mirror():
    sources = parse_one_line("deb cdrom:[Debian GNU/Linux 12]/ bookworm main")
    assert backports_source(sources, BOOKWORM) is None


def test_all_lists_of_a_machine_are_read(tmp_path: Path):
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(f"deb {MIRROR} bookworm main\n")
    (folder / "ubuntu.sources").write_text(NOBLE_DEB822)
    (folder / "old.list.save").write_text("deb http://old.example/ sid main\n")
    assert [source.suites[0] for source in read_sources(tmp_path)] == [
        "bookworm", "noble", "noble-security",
    ]  # fmt: skip


def test_a_release_names_itself():
    text = (
        'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'
    )
    assert parse_os_release(text) == NOBLE
