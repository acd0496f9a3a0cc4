"""Simulated accelerators: real character devices, and telemetry that a file steers.

Where there is no accelerator, everything else is as with one: the devices `/dev/hutch-gpu/N`, each
a `/dev/null` under another name, are attached by the real engine and held by real processes. What
they seem to do is what the steering file says, JSON by number, `"*"` for all others:

    {"0": {"busy": 0.9, "memory": "4GiB", "temperature": 71}, "1": {"health": "failed"},
     "2": {"health": "missing"}, "*": {"busy": 0}}
"""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog

from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Health, Reading, Vendor
from hutch.domain.sizes import parse_size
from hutch.errors import ConfigurationError, InvalidSizeError

log = structlog.get_logger("hutch.agent")

FOLDER = Path("/dev/hutch-gpu")
MAJOR, MINOR = 1, 3
"""The numbers of `/dev/null`: it may be opened by anyone, and does nothing."""
MOST = 64
LONGEST_MODEL = 128
IDLE_TEMPERATURE, IDLE_POWER = 35.0, 25.0
BUSY_TEMPERATURE, BUSY_POWER = 75.0, 300.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """Some accelerators that are not there."""

    count: int
    model: str
    memory: int
    """Bytes of each."""
    steering: Path
    folder: Path = FOLDER

    def make_devices(self) -> None:
        """Make the device nodes, and remove those of a larger number of before.

        Without root's rights there are none; then nothing can be attached but in a simulated
        engine. Raises ConfigurationError when something else has their names.
        """
        if os.geteuid() != 0:
            return
        if self.folder.is_symlink():
            raise ConfigurationError(
                f"{self.folder} is a link to somewhere else.", hint="Give a folder of its own."
            )
        if self.count:
            self.folder.mkdir(mode=0o755, exist_ok=True)
            self.folder.chmod(0o755)  # whatever the umask has made of it
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name.isdecimal() and int(path.name) >= self.count and _is_ours(path):
                path.unlink()
        for number in range(self.count):
            self._make(self.folder / str(number))

    def _make(self, path: Path) -> None:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(MAJOR, MINOR))
        except FileExistsError:
            if not _is_ours(path):
                raise ConfigurationError(
                    f"{path} is there and is no simulated accelerator.",
                    hint="Move it away, then start the agent again.",
                ) from None
        path.chmod(0o666)

    def find(self) -> list[FoundAccelerator]:
        """Those that are not missing."""
        steered = self._steered()
        return [
            FoundAccelerator(
                address=f"simulated:{number}",
                vendor=Vendor.SIMULATED,
                model=self.model,
                memory=self.memory,
                nodes=(DeviceNode(str(self.folder / str(number)), MAJOR, MINOR),),
                health=state.health,
                reason=state.reason,
            )
            for number, state in enumerate(steered)
            if state.health is not Health.MISSING
        ]

    def read(self) -> list[Reading]:
        """What they do; of one that is broken or missing nothing but that."""
        return [
            _reading(f"simulated:{number}", state) for number, state in enumerate(self._steered())
        ]

    def _steered(self) -> "list[_State]":
        told = _told(self.steering)
        for_others = told.get("*", {})
        return [
            _parsed({**for_others, **told.get(str(number), {})}, self.memory)
            for number in range(self.count)
        ]


def simulate(
    count: int, *, model: str, memory: str, steering: Path, folder: Path = FOLDER
) -> Simulated:
    """What the words of an administrator ask for; none if `count` is 0.

    Raises ConfigurationError and InvalidSizeError for what cannot be.
    """
    if not 0 <= count <= MOST:
        raise ConfigurationError(
            f"There cannot be {count} simulated accelerators.", hint=f"Give 0 to {MOST}."
        )
    if not model.strip() or len(model) > LONGEST_MODEL or not model.isprintable():
        raise ConfigurationError(
            "A model is called something else.", hint=f"Give 1 to {LONGEST_MODEL} characters."
        )
    return Simulated(count, model.strip(), parse_size(memory), steering, folder)


@dataclass(frozen=True, slots=True)
class _State:
    busy: float
    memory: int
    temperature: float | None
    power: float | None
    health: Health
    reason: str


def _reading(address: str, state: _State) -> Reading:
    if state.health is not Health.OK:
        return Reading(address, None, None, None, None, state.health, state.reason)
    warmth = IDLE_TEMPERATURE + (BUSY_TEMPERATURE - IDLE_TEMPERATURE) * state.busy
    power = IDLE_POWER + (BUSY_POWER - IDLE_POWER) * state.busy
    return Reading(
        address=address,
        utilisation=state.busy,
        memory_used=state.memory,
        temperature=warmth if state.temperature is None else state.temperature,
        power=power if state.power is None else state.power,
    )


def _told(steering: Path) -> dict[str, dict[str, Any]]:
    """What the steering file says; nothing while it cannot be read, or is half written."""
    try:
        told = json.loads(steering.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("the steering file cannot be read", file=str(steering), reason=str(error))
        return {}
    if not isinstance(told, dict):
        return {}
    values = cast("dict[str, Any]", told)
    return {key: value for key, value in values.items() if isinstance(value, dict)}


def _parsed(told: dict[str, Any], memory: int) -> _State:
    try:
        return _State(
            busy=_share(told.get("busy", 0)),
            memory=min(_size(told.get("memory", 0)), memory),
            temperature=None if "temperature" not in told else float(told["temperature"]),
            power=None if "power" not in told else float(told["power"]),
            health=Health(told.get("health", "ok")),
            reason=str(told.get("reason") or _REASONS.get(told.get("health", "ok"), "")),
        )
    except (TypeError, ValueError, OverflowError, InvalidSizeError) as error:
        log.warning("the steering file says something that cannot be", reason=str(error))
        return _State(0.0, 0, None, None, Health.OK, "")


_REASONS = {"failed": "The steering file says so.", "missing": "The steering file says so."}


def _share(value: object) -> float:
    share = float(cast("float", value))
    if not 0 <= share <= 1:
        raise ValueError(f"busy is {share}, which is not between 0 and 1")
    return share


def _size(value: object) -> int:
    return parse_size(value) if isinstance(value, str) else max(0, int(cast("int", value)))


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(MAJOR, MINOR)
