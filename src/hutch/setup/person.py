"""The person who runs the setup: their home, their SSH key, and what is written there for them.

With sudo that is not root. Everything in their home is done with their own rights: no link they
may have put there leads root astray, and a home on a network file system that root may not write
works too.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hutch.client.config import config_path, write_private
from hutch.domain import names
from hutch.errors import InvalidNameError
from hutch.setup.commands import run

#: The administrator's name where the person's own cannot be one, such as root's.
FALLBACK_NAME = "admin"
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Person:
    """An account of this machine."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def login_file(self) -> Path:
        """Where the command line keeps this person's sign-in."""
        own = self.uid == os.getuid()
        return config_path(os.environ if own else {"HOME": str(self.home)})


def whoever_runs_this(environment: Mapping[str, str] | None = None) -> Person:
    """The account behind `sudo`, else the one this process runs as."""
    environment = os.environ if environment is None else environment
    account = pwd.getpwuid(os.getuid())
    with contextlib.suppress(KeyError):
        if os.getuid() == 0:
            account = pwd.getpwnam(environment["SUDO_USER"])
    home = account.pw_dir
    if account.pw_uid == os.getuid():
        home = environment.get("HOME", home)
    return Person(account.pw_name, account.pw_uid, account.pw_gid, Path(home))


def administrator_name(person: Person) -> str:
    """The person's own name if hutch allows it, else `admin`."""
    try:
        return names.user_name(person.name)
    except InvalidNameError:
        return FALLBACK_NAME


@contextlib.contextmanager
def acting_as(person: Person) -> Generator[None]:
    """File access with the person's rights. Not for more than one thread at a time."""
    if os.geteuid() != 0 or person.uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups(os.getgrouplist(person.name, person.gid))
    os.setegid(person.gid)
    os.seteuid(person.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def public_keys(person: Person) -> list[str]:
    """The person's own SSH public keys, the preferred kind first."""
    found: list[str] = []
    with acting_as(person):
        for name in _KEYS:
            with contextlib.suppress(OSError):
                found.append((person.home / ".ssh" / f"{name}.pub").read_text().strip())
    return [key for key in found if key]


def make_key(person: Person) -> str:
    """Makes an SSH key for a person who has none; its public half."""
    folder = person.home / ".ssh"
    private = folder / _KEYS[0]
    with acting_as(person):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not private.exists():
            comment = f"{person.name}@{socket.gethostname()}"
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment]
            run([*argv, "-f", str(private)])
        public = private.with_name(f"{private.name}.pub")
        if not public.exists():
            public.write_text(run(["ssh-keygen", "-y", "-f", str(private)], timeout=10))
        return public.read_text().strip()


def known_host_line(host: str, port: int, key: str) -> str:
    """A line of known_hosts: OpenSSH writes the port with the host unless it is 22."""
    name = host if port == 22 else f"[{host}]:{port}"
    kind, value = key.split()[:2]
    return f"{name} {kind} {value}"


def without_host(lines: Iterable[str], host: str, port: int) -> list[str]:
    """The lines of known_hosts that say nothing about this host and port."""
    name = host if port == 22 else f"[{host}]:{port}"
    return [line for line in lines if name not in line.split(" ", 1)[0].split(",")]


def knows_host(person: Person, line: str) -> bool:
    with acting_as(person):
        return line in _known_hosts(person)


def remember_host(person: Person, host: str, port: int, key: str) -> None:
    """Lets the person's SSH trust a host key, in place of another it knew at that address."""
    path = person.home / ".ssh" / "known_hosts"
    with acting_as(person):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        lines = without_host(_known_hosts(person), host, port)
        text = "\n".join([*lines, known_host_line(host, port, key)]) + "\n"
        write_private(path.resolve(), text)


def _known_hosts(person: Person) -> list[str]:
    try:
        return (person.home / ".ssh" / "known_hosts").read_text().splitlines()
    except OSError:
        return []
