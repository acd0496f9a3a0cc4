"""The names people choose, and which of them are refused.

An instance's name becomes its host name and a person's name becomes a Unix account inside every
instance, so both are held to what the strictest of these places accepts.
"""

import re

from hutch.errors import InvalidNameError

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ACCOUNT = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]|[a-z]", re.ASCII)
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+ -]{0,63}", re.ASCII)

# Accounts and groups which a Debian or Ubuntu image already has. A person of that name would
# become that system account inside their instance.
RESERVED_ACCOUNTS = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats
    nobody nogroup systemd-network systemd-resolve systemd-timesync systemd-journal messagebus
    sshd polkitd adm tty disk dialout fax voice cdrom floppy tape sudo audio dip operator src
    shadow utmp video sasl plugdev staff users input sgx kvm render crontab netdev ssh hutch
    debian ubuntu dhcpcd tcpdump syslog uuidd landscape lxd incus docker postgres www ftp
    """.split()
)


def instance_name(text: str) -> str:
    """Check an instance's name: an RFC 1123 label in lower case that begins with a letter.

    Raises InvalidNameError otherwise; returns the name unchanged.
    """
    if not _LABEL.fullmatch(text):
        raise InvalidNameError(
            "instance",
            text,
            "1 to 63 of a-z, 0-9 and '-', beginning with a letter, not ending with '-'",
        )
    return text


def user_name(text: str) -> str:
    """Check a person's name: a Unix account name of at most 32 characters, none of the system's.

    Raises InvalidNameError otherwise; returns the name unchanged.
    """
    if not _ACCOUNT.fullmatch(text):
        raise InvalidNameError(
            "user",
            text,
            "1 to 32 of a-z, 0-9 and '-', beginning with a letter, not ending with '-'",
        )
    if text in RESERVED_ACCOUNTS:
        raise InvalidNameError(
            "user", text, "a name that is not already an account of the operating system"
        )
    return text


def group_name(text: str) -> str:
    """Check a group's name: as an instance's, so that it can be typed and printed anywhere."""
    if not _LABEL.fullmatch(text):
        raise InvalidNameError(
            "group",
            text,
            "1 to 63 of a-z, 0-9 and '-', beginning with a letter, not ending with '-'",
        )
    return text


def port_name(text: str) -> str:
    """Check what a person calls a port: short enough for a column of a table."""
    if len(text) > 32 or not _LABEL.fullmatch(text):
        raise InvalidNameError(
            "port",
            text,
            "1 to 32 of a-z, 0-9 and '-', beginning with a letter, not ending with '-'",
        )
    return text


def snapshot_name(text: str) -> str:
    """Check a snapshot's name: as an instance's, so that it is safe in every place it goes."""
    if not _LABEL.fullmatch(text):
        raise InvalidNameError(
            "snapshot",
            text,
            "1 to 63 of a-z, 0-9 and '-', beginning with a letter, not ending with '-'",
        )
    return text


def title(kind: str, text: str) -> str:
    """Check a label that only people read (a key's comment, a token's name): printable ASCII."""
    if not _TITLE.fullmatch(text):
        raise InvalidNameError(
            kind,
            text,
            "1 to 64 letters, digits, spaces and '._@+-', beginning with a letter or digit",
        )
    return text
