"""What hutch's own scripts would leave behind in a container.

A script is known by its first line, `# hutch-provision: <verb>`; it is never interpreted.
"""

import base64
import binascii
from collections.abc import Callable, Sequence

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
"""The SSH server of hutch's images starts when this appears."""
TERMINAL = "/dev/pts/1"
"""The one on which everybody sits."""

_MARKER = "# hutch-provision:"
_FIRST_PERSON = 1000

Reader = Callable[[str], bytes | None]


class RefusedError(Exception):
    """The script would end with this code, having said this."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


def verb_of(script: str) -> str | None:
    """What a script does, if it is one of hutch's."""
    first = script.partition("\n")[0]
    return first.removeprefix(_MARKER).strip() if first.startswith(_MARKER) else None


def ids_of(passwd: bytes, user: str) -> tuple[int, int] | None:
    """The user's and the group's id of an account in an /etc/passwd."""
    for line in passwd.decode().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == user:
            return int(uid), int(gid)
    return None


def files(verb: str, arguments: Sequence[str], stdin: bytes, read: Reader) -> dict[str, bytes]:
    """The files that a script leaves, given its arguments, its input and the files that are there.

    Raises RefusedError where the script would fail.
    """
    try:
        parts = [base64.b64decode(line, validate=True) for line in stdin.splitlines()]
        match verb, arguments, parts:
            case "person", [user, name], [secret, public, keys]:
                return _person(user, name, secret, public, keys, read)
            case "keys", [user], [keys]:
                return _keys(user, keys, read)
            case "notice", [user, notice_id], [text, login]:
                return _notice(user, notice_id, text, login, read)
            case _:
                raise RefusedError(2, f"sh: {verb}: a parameter is not set")
    except binascii.Error:
        raise RefusedError(1, "base64: invalid input") from None


def _person(
    user: str, name: str, secret: bytes, public: bytes, keys: bytes, read: Reader
) -> dict[str, bytes]:
    passwd = read("/etc/passwd") or b""
    ids = ids_of(passwd, user)
    if ids is None:
        ids = (_FIRST_PERSON + passwd.count(b"/home/"),) * 2
        passwd += f"{user}:x:{ids[0]}:{ids[1]}::/home/{user}:/bin/bash\n".encode()
    if ids[0] < _FIRST_PERSON:
        raise RefusedError(3, f"the account {user} belongs to the operating system")
    return {
        "/etc/passwd": passwd,
        "/etc/hostname": f"{name}\n".encode(),
        "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n".encode(),
        "/etc/sudoers.d/90-hutch": f"{user} ALL=(ALL:ALL) NOPASSWD:ALL\n".encode(),
        _authorized(user): keys,
        f"{HOST_KEY}.pub": public,
        HOST_KEY: secret,
    }


def _keys(user: str, keys: bytes, read: Reader) -> dict[str, bytes]:
    if ids_of(read("/etc/passwd") or b"", user) is None:
        raise RefusedError(3, f"there is no account {user} inside")
    return {_authorized(user): keys}


def _notice(user: str, notice_id: str, text: bytes, login: bytes, read: Reader) -> dict[str, bytes]:
    if ids_of(read("/etc/passwd") or b"", user) is None:
        raise RefusedError(1, f"id: '{user}': no such user")
    said = f"/run/hutch/said-{notice_id}"
    terminal = {} if read(said) is not None else {TERMINAL: (read(TERMINAL) or b"") + text}
    return {"/run/motd.d/90-hutch": login, said: b"", **terminal}


def _authorized(user: str) -> str:
    return f"/home/{user}/.ssh/authorized_keys.hutch"
