"""The few programs that a simulated container can run. Nothing here interprets a shell."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hutch.engine.base import ExecResult, Power
from hutch.engine.simulated import provision
from hutch.engine.simulated.state import State

_NOTHING = -1
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_KILLED = 128 + signal.SIGKILL
_LOOK_AGAIN = 0.05
"""Seconds between two looks whether the container still runs."""
_ZEROS = "/dev/zero"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "USER": "root",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A program about to run: in which container, with what, as whom."""

    state: State
    container: str
    argv: Sequence[str]
    stdin: bytes
    environment: Mapping[str, str]
    user: int
    group: int
    cwd: str

    @property
    def arguments(self) -> Sequence[str]:
        return self.argv[1:]

    def read(self, path: str) -> bytes | None:
        return read_file(self.state, self.container, self._path(path))

    def write(self, files: Mapping[str, bytes]) -> bool:
        """Write files, all or none; False when the disk is full."""
        return self.state.write(
            self.container, [(self._path(path), content) for path, content in files.items()]
        )

    def _path(self, path: str) -> str:
        return path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"


def read_file(state: State, container: str, path: str) -> bytes | None:
    """A file of a container: its own, else the one that its image came with."""
    if state.devices.node_inside(container, path):
        return b""  # as /dev/null has it
    written = state.read(container, path)
    return _IMAGE.get(path) if written is None else written


_IMAGE = {
    "/etc/hosts": b"127.0.0.1 localhost\n",
    "/etc/os-release": b'PRETTY_NAME="Simulated GNU/Linux"\nID=simulated\n',
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n",
}


async def run(process: Process) -> ExecResult:
    """Run a program to its end. What is none ends with the code that it has in Incus."""
    if not process.argv:
        return failed(_NOTHING)
    program = _PROGRAMS.get(process.argv[0].rpartition("/")[2])
    if program is not None:
        return await program(process)
    if process.argv[0] and process.read(process.argv[0]) is not None:
        return failed(_NOT_EXECUTABLE)
    return failed(_NOT_FOUND, f"{process.argv[0]}: not found in a simulated machine")


def printed(stdout: bytes | str = b"") -> ExecResult:
    return ExecResult(0, stdout.encode() if isinstance(stdout, str) else stdout, b"")


def failed(code: int, message: str = "") -> ExecResult:
    return ExecResult(code, b"", f"{message}\n".encode() if message else b"")


async def _true(process: Process) -> ExecResult:
    return printed()


async def _false(process: Process) -> ExecResult:
    return failed(1)


async def _echo(process: Process) -> ExecResult:
    return printed(" ".join(process.arguments) + "\n")


async def _pwd(process: Process) -> ExecResult:
    return printed(process.cwd + "\n")


async def _hostname(process: Process) -> ExecResult:
    return printed(process.read("/etc/hostname") or f"{process.container}\n")


async def _id(process: Process) -> ExecResult:
    match list(process.arguments):
        case ["-u"]:
            return printed(f"{process.user}\n")
        case ["-g"]:
            return printed(f"{process.group}\n")
        case _:
            return printed(f"uid={process.user} gid={process.group}\n")


async def _printenv(process: Process) -> ExecResult:
    values = [process.environment.get(name) for name in process.arguments]
    if not process.arguments:
        values = [f"{name}={value}" for name, value in process.environment.items()]
    found = [value for value in values if value is not None]
    code = 0 if len(found) == len(values) else 1
    return ExecResult(code, "".join(f"{value}\n" for value in found).encode(), b"")


async def _cat(process: Process) -> ExecResult:
    code, out, err = 0, bytearray(), bytearray()
    for path in process.arguments or ["-"]:
        content = process.stdin if path == "-" else process.read(path)
        if content is None:
            code = 1
            err += f"cat: {path}: No such file or directory\n".encode()
        else:
            out += content
    return ExecResult(code, bytes(out), bytes(err))


async def _head(process: Process) -> ExecResult:
    match list(process.arguments):
        case ["-c", count, path] if count.isdigit():
            content = bytes(int(count)) if path == _ZEROS else process.read(path)
            if content is None:
                return failed(1, f"head: cannot open '{path}' for reading")
            return printed(content[: int(count)])
        case _:
            return failed(1, "head: a simulated machine knows `head -c COUNT PATH` alone")


async def _stat(process: Process) -> ExecResult:
    match list(process.arguments):
        case ["-c", "%t %T", path]:
            numbers = process.state.devices.node_inside(process.container, path)
            if numbers is None:
                return failed(1, f"stat: cannot statx '{path}': No such file or directory")
            return printed("{:x} {:x}\n".format(*numbers))
        case _:
            return failed(1, "stat: a simulated machine knows `stat -c '%t %T' DEVICE` alone")


async def _tee(process: Process) -> ExecResult:
    for path in process.arguments:
        if not process.write({path: process.stdin}):
            return ExecResult(1, process.stdin, f"tee: {path}: No space left on device\n".encode())
    return printed(process.stdin)


async def _sleep(process: Process) -> ExecResult:
    end = time.monotonic() + float(process.arguments[0])
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _LOOK_AGAIN))
        seen = process.state.get(process.container)
        if seen is None or seen.power is Power.STOPPED:
            return failed(_KILLED)
    return printed()


async def _runuser(process: Process) -> ExecResult:
    match list(process.arguments):
        case ["-u", user, "--", *argv]:
            ids = provision.ids_of(process.read("/etc/passwd") or b"", user)
            if ids is None:
                return failed(1, f"runuser: user {user} does not exist")
            return await run(replace(process, argv=argv, user=ids[0], group=ids[1]))
        case _:
            return failed(1, "runuser: a simulated machine knows `runuser -u NAME -- ...` alone")


async def _shell(process: Process) -> ExecResult:
    match list(process.arguments):
        case ["-c", script, *rest] if verb := provision.verb_of(script):
            return _provision(process, verb, rest[1:])
        case _:
            return failed(_NOT_FOUND, "sh: a simulated machine runs no scripts")


def _provision(process: Process, verb: str, arguments: Sequence[str]) -> ExecResult:
    try:
        left = provision.files(verb, arguments, process.stdin, process.read)
    except provision.RefusedError as refused:
        return failed(refused.code, str(refused))
    return printed() if process.write(left) else failed(1, "No space left on device")


_PROGRAMS: Mapping[str, Callable[[Process], Awaitable[ExecResult]]] = {
    "cat": _cat,
    "echo": _echo,
    "false": _false,
    "head": _head,
    "hostname": _hostname,
    "id": _id,
    "printenv": _printenv,
    "pwd": _pwd,
    "runuser": _runuser,
    "sh": _shell,
    "sleep": _sleep,
    "stat": _stat,
    "tee": _tee,
    "true": _true,
}
