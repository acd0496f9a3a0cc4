"""Apps: web applications in instances, and what they are called in a browser.

`/apps/box/8888/…` below hutch's own address, or `8888-box.apps.example.org` where the administrator
gives apps a domain. `box` is an instance's name, its id, or (below hutch's address) `box.owner`.
"""

import re
from dataclasses import dataclass

PATH = "/apps/"
OWN = "/apps/-/"
"""Below it are hutch's own pages: no instance is called so."""
ON_HOST = "/.hutch/"
"""The same on the host of an app."""

_PATH = re.compile(r"/apps/([a-z0-9][a-z0-9.-]{0,127})/([1-9][0-9]{0,4})(?=/|\Z)", re.ASCII)
_LABEL = re.compile(r"([1-9][0-9]{0,4})-([a-z0-9][a-z0-9-]{0,62})", re.ASCII)
_HOST = re.compile(r"[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]", re.ASCII)


@dataclass(frozen=True, slots=True)
class AppName:
    """What somebody asks for: a port of an instance, and under which path."""

    ref: str
    """An instance's name, its id, or `name.owner`."""
    port: int
    prefix: str
    """`/apps/box/8888`, or nothing where the app has a host of its own."""


def in_path(raw_path: str) -> AppName | None:
    """The app that a path leads to; None when it names none.

    The path as it was sent, not decoded: what is written in another way is another path.
    """
    match = _PATH.match(raw_path)
    if match is None or int(match[2]) > 65535:
        return None
    return AppName(match[1], int(match[2]), match[0])


def in_host(host: str, domain: str) -> AppName | None:
    """The app that a host (without a port) below the apps' domain is of."""
    label, dot, rest = host.lower().partition(".")
    match = _LABEL.fullmatch(label)
    if not dot or not domain or rest != domain or match is None or int(match[1]) > 65535:
        return None
    return AppName(match[2], int(match[1]), "")


def host_of(header: str) -> str:
    """The host in a Host header, in lower case and without its port; nothing when it is none."""
    text = header.strip().lower()
    host = re.sub(r":[0-9]{1,5}\Z", "", text, flags=re.ASCII)
    return host if _HOST.fullmatch(host) else ""


def is_below(host: str, domain: str) -> bool:
    """Whether a host belongs to the apps' domain."""
    return bool(domain) and host.endswith(f".{domain}")


def path_of(instance: str, owner: str, port: int, *, is_own: bool) -> str:
    """The path of an app as it is told to somebody."""
    return f"{PATH}{instance if is_own else f'{instance}.{owner}'}/{port}/"


def host_name(instance: str, instance_id: str, port: int, domain: str, *, is_own: bool) -> str:
    """The host of an app as it is told to somebody.

    Another's instance is named by its id: at a host that is called after a name, the browser
    would let one person's app find what another's of that name has left there.
    """
    label = f"{port}-{instance if is_own else instance_id}"
    if len(label) > 63:
        label = f"{port}-{instance_id}"
    return f"{label}.{domain}"


def is_local_path(path: str) -> bool:
    """Whether somebody may be sent on to a path: one of an app of ours, and nowhere else."""
    return (
        path.startswith(PATH)
        and path.isascii()
        and path.isprintable()
        and not any(part in path for part in ("\\", "//", " "))
    )
