"""What hutch puts inside a container: the person, their keys, the host name, the host key, notices.

Three scripts, fixed texts. What a person chose reaches them as arguments and on standard input,
never as a part of the script.
"""

from base64 import b64encode
from importlib.resources import files

from hutch.domain.people import SshKey
from hutch.engine.base import Engine
from hutch.errors import EngineError

PERSON = (files("hutch.operations") / "person.sh").read_text(encoding="utf-8")
KEYS = (files("hutch.operations") / "keys.sh").read_text(encoding="utf-8")
NOTICE = (files("hutch.operations") / "notice.sh").read_text(encoding="utf-8")
_TIMEOUT = 60.0
_KEYS_TIMEOUT = 10.0
_NOTICE_TIMEOUT = 20.0


def authorized_keys(keys: list[SshKey]) -> bytes:
    """The file that hutch keeps beside a person's own authorized_keys."""
    lines = ["# Kept by hutch: changed with `hutch key`. Your own keys go into authorized_keys."]
    lines += [f"{key.public} {key.title.replace(' ', '_')}" for key in keys]
    return ("\n".join(lines) + "\n").encode()


async def put_person(
    engine: Engine,
    container: str,
    *,
    user: str,
    host_name: str,
    host_secret: bytes,
    host_key: str,
    keys: list[SshKey],
) -> None:
    """Make a running container somebody's own. Repeating it changes nothing.

    Raises EngineError with what the script said when it fails.
    """
    parts = (host_secret, f"{host_key}\n".encode(), authorized_keys(keys))
    await _run(engine, container, PERSON, [user, host_name], parts)


async def put_keys(engine: Engine, container: str, *, user: str, keys: list[SshKey]) -> None:
    """Replace the keys that hutch keeps in a running container, and nothing else."""
    await _run(engine, container, KEYS, [user], (authorized_keys(keys),), _KEYS_TIMEOUT)


async def put_notice(
    engine: Engine, container: str, *, user: str, notice_id: str, text: bytes, login: bytes
) -> None:
    """Write `text` on the person's terminals, once, and leave `login` for who comes in next.

    Both must hold nothing that a terminal would obey. Raises EngineError when it fails.
    """
    await _run(engine, container, NOTICE, [user, notice_id], (text, login), _NOTICE_TIMEOUT)


async def _run(
    engine: Engine,
    container: str,
    script: str,
    arguments: list[str],
    parts: tuple[bytes, ...],
    timeout: float = _TIMEOUT,
) -> None:
    result = await engine.exec(
        container,
        ["sh", "-c", script, "hutch", *arguments],
        # On standard input, so that no process list and no log ever shows a secret.
        stdin=b"".join(b64encode(part) + b"\n" for part in parts),
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        timeout=timeout,
    )
    if result.code != 0:
        # Whoever is root inside decides what is printed: only what can be shown and kept.
        text = result.stderr[-2000:].decode("utf-8", "replace")
        said = "".join(c if c.isprintable() else " " for c in text).strip()[-500:]
        raise EngineError(
            f"Setting the machine up inside failed with code {result.code}: {said}",
            hint="The image must have a shell, useradd, base64 and an SSH server.",
        )
