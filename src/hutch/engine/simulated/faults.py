"""What goes wrong with the simulated engine, on purpose.

In a test: `engine.faults.fail("create")`, `.slow(0.2)`, `.hang("start")`, `.die()`, `.revive()`.
From outside, for a server that runs as a process of its own, a file beside its state,
`<state>.faults.json`, which is looked at before every call:

    {"dead": false,
     "latency": {"*": 0.05, "create": 1.0},   or "incus"
     "hang": ["start"],
     "fail": [{"method": "create", "error": "EngineError", "times": 2, "after": false}]}

A process counts down `times` in its own memory, and anew whenever the file changes. Taking the
file away heals everything.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hutch.engine.base import Engine
from hutch.errors import (
    ConfigurationError,
    EngineConflictError,
    EngineError,
    EngineNotFoundError,
    EngineUnavailableError,
)

AS_INCUS: Mapping[str, float] = {
    "create": 0.2,
    "start": 0.3,
    "stop": 0.7,
    "delete": 0.2,
    "set_limits": 0.05,
    "prepare": 0.1,
    "set_labels": 0.03,
    "set_forward": 0.08,
    "remove_forward": 0.08,
    "attach": 0.05,
    "detach": 0.1,
    "snapshot": 0.2,
    "restore": 0.2,
    "delete_snapshot": 0.1,
    "exec": 0.09,
    "wait_for_banner": 0.6,
}
"""Seconds that Incus took on a machine with two cores and a btrfs pool."""

METHODS = frozenset(name for name in vars(Engine) if not name.startswith("_")) - {"close"}
_ERRORS = {
    error.__name__: error
    for error in (EngineError, EngineNotFoundError, EngineConflictError, EngineUnavailableError)
}
_LOOK_AGAIN = 0.02
"""Seconds between two looks whether a hanging call may go on."""

ErrorType = type[EngineError] | type[EngineUnavailableError]


@dataclass(slots=True)
class _Planned:
    method: str
    error: ErrorType
    message: str
    times: int
    after: bool


class Faults:
    """The faults of one engine. Methods are named as in the protocol; `*` means all of them."""

    def __init__(self, *, latency: Mapping[str, float] | None = None) -> None:
        self.dead = False
        self.latency: dict[str, float] = dict(latency or {})
        self.hanging: set[str] = set()
        self._planned: list[_Planned] = []

    def slow(self, seconds: float, method: str = "*") -> None:
        """Make calls take this long. A method's own figure wins over that of `*`."""
        self.latency[_known(method)] = seconds

    def fail(
        self,
        method: str = "*",
        *,
        times: int = 1,
        error: ErrorType = EngineError,
        message: str = "The simulated engine was told to fail.",
        after: bool = False,
    ) -> None:
        """Make the next `times` calls raise `error`.

        With `after` the call does its work first: what a caller sees whose answer was lost.
        """
        self._planned.append(_Planned(_known(method), error, message, times, after))

    def hang(self, method: str = "*") -> None:
        """Let calls wait, their work not begun, until `release` or `die`."""
        self.hanging.add(_known(method))

    def release(self, method: str = "*") -> None:
        if _known(method) == "*":
            self.hanging.clear()
        self.hanging.discard(method)

    def die(self) -> None:
        """Every call raises EngineUnavailableError from now on, those that wait included."""
        self.dead = True

    def revive(self) -> None:
        self.dead = False

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self.dead = False
        self.latency.clear()
        self.hanging.clear()
        self._planned.clear()

    def delay(self, method: str) -> float | None:
        return self.latency.get(method, self.latency.get("*"))

    def hangs(self, method: str) -> bool:
        return not self.hanging.isdisjoint((method, "*"))

    def raise_planned(self, method: str, *, after: bool) -> None:
        """Raise the failure that is due for this method, if there is one."""
        for failure in self._planned:
            if failure.method in {method, "*"} and failure.after is after and failure.times > 0:
                failure.times -= 1
                raise failure.error(failure.message, method=method)


class FaultsFile:
    """The faults that someone outside the process asks for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._faults = Faults()

    def current(self) -> Faults:
        """What the file says now. A file that is only half written counts as unchanged."""
        try:
            found = self._path.stat()
        except OSError:
            if self._read is not None:
                self._read, self._faults = None, Faults()
            return self._faults
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if version != self._read:
            try:
                wanted = json.loads(self._path.read_text())
            except (OSError, ValueError):
                return self._faults
            self._faults = _parse(wanted)
            self._read = version
        return self._faults


class Gate:
    """What every call of the engine passes on its way in and out."""

    def __init__(self, faults: Faults, file: FaultsFile) -> None:
        self._here = faults
        self._file = file

    def _all(self) -> tuple[Faults, Faults]:
        return self._here, self._file.current()

    @property
    def dead(self) -> bool:
        return any(faults.dead for faults in self._all())

    def check_alive(self) -> None:
        if self.dead:
            raise EngineUnavailableError("The simulated engine does not answer.")

    async def enter(self, method: str) -> None:
        """Wait as long as this call is to take, and raise what it is to raise."""
        self.check_alive()
        for faults in self._all():
            delay = faults.delay(method)
            if delay:
                await asyncio.sleep(delay)
        while any(faults.hangs(method) for faults in self._all()):
            self.check_alive()
            await asyncio.sleep(_LOOK_AGAIN)
        self.check_alive()
        for faults in self._all():
            faults.raise_planned(method, after=False)

    def leave(self, method: str) -> None:
        """Raise what this call is to raise although its work is done."""
        for faults in self._all():
            faults.raise_planned(method, after=True)


def _known(method: str) -> str:
    """The method's name, checked: a fault for a method that is not there would test nothing."""
    if method != "*" and method not in METHODS:
        raise ValueError(f"The engine has no method {method!r}, only {', '.join(sorted(METHODS))}.")
    return method


def _parse(wanted: Any) -> Faults:
    try:
        latency: Any = wanted.get("latency", {})
        faults = Faults(latency=AS_INCUS if latency == "incus" else None)
        if latency != "incus":
            for method, seconds in cast("dict[str, float]", latency).items():
                faults.slow(float(seconds), method)
        if wanted.get("dead", False):
            faults.die()
        for method in cast("Iterable[str]", wanted.get("hang", [])):
            faults.hang(method)
        for failure in cast("Iterable[dict[str, Any]]", wanted.get("fail", [])):
            faults.fail(
                failure.get("method", "*"),
                times=int(failure.get("times", 1)),
                error=_ERRORS[failure.get("error", "EngineError")],
                after=bool(failure.get("after", False)),
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"The faults asked of the simulated engine make no sense: {error}.",
            hint=f"`error` is one of {', '.join(_ERRORS)}.",
        ) from error
    return faults
