"""The configuration that makes `ssh box` work: through the gateway, with every host key known."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

KNOWN_HOSTS = "~/.ssh/hutch/known_hosts"
"""Where the configuration expects the host keys."""

_HEAD = """\
# hutch's machines of {person}. Made by `hutch ssh-config`: what you write in here is lost when it
# is made anew."""
_PLACE = re.compile(r"(?P<host>[^\s:@/\[\]]+|\[[0-9A-Fa-f:.%]+\])(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Lab:
    """The gateway, as people reach it."""

    alias: str
    """What it is to be called."""
    host: str
    port: int
    host_key: str
    """`ssh-ed25519 AAAA…`."""
    identity: str
    """Tells this lab's key from another lab's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An instance that a person may log in to."""

    id: str
    name: str
    """What the gateway knows it by: its name, or `name.owner` for another person's."""
    user: str
    host_key: str


def config(lab: Lab, person: str, entries: Sequence[Entry]) -> str:
    """The text for ~/.ssh/config.d (ssh_config(5))."""
    blocks = [
        _HEAD.format(person=person),
        _block(
            lab.alias,
            HostName=lab.host,
            Port=str(lab.port),
            User=person,
            HostKeyAlias=_gateway_alias(lab),
            UserKnownHostsFile=KNOWN_HOSTS,
            StrictHostKeyChecking="yes",
            # What goes through is encrypted once more inside: these cost least.
            Ciphers="aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes256-ctr",
        ),
    ]
    for entry in entries:
        # A machine that is called as the gateway has only the longer name.
        names = [entry.name] if entry.name != lab.alias else []
        blocks.append(
            _block(
                " ".join([*names, f"{entry.name}.{lab.alias}"]),
                HostName=entry.name,
                User=entry.user,
                # The name of the user says nothing to the gateway but which machine is meant: so it
                # can tell that it has to start it first.
                ProxyJump=f"{entry.name}@{lab.alias}",
                HostKeyAlias=f"hutch-{entry.id}",
                UserKnownHostsFile=KNOWN_HOSTS,
                StrictHostKeyChecking="yes",
            )
        )
    return "\n\n".join(blocks) + "\n"


def known_hosts(lab: Lab, entries: Sequence[Entry]) -> str:
    """The host keys, under the aliases that the configuration names (sshd(8))."""
    lines = [f"{_gateway_alias(lab)} {lab.host_key}"]
    lines += [f"hutch-{entry.id} {entry.host_key}" for entry in entries]
    return "\n".join(lines) + "\n"


def _gateway_alias(lab: Lab) -> str:
    return f"hutch-gateway-{lab.identity}"


def _block(names: str, **options: str) -> str:
    return "\n".join([f"Host {names}", *(f"    {key} {value}" for key, value in options.items())])


def split_place(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port` or `[address]:port`, and the port where none is given.

    Raises ValueError for anything else.
    """
    found = _PLACE.fullmatch(text)
    if found is None or not 0 < int(found["port"] or port) < 65536:
        raise ValueError("give a host, or HOST:PORT")
    return found["host"].strip("[]"), int(found["port"] or port)
