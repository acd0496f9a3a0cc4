"""What NVIDIA's cards do, as their driver's library tells (NVML, through NVIDIA's own bindings)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pynvml  # pyright: ignore[reportMissingTypeStubs]
import structlog

from hutch.domain.accelerators import FoundAccelerator, Health, Reading

log = structlog.get_logger("hutch.agent")
nvml: Any = pynvml

OPEN_AGAIN_SECONDS = 30.0
"""How often a library that cannot be used, or that has lost a card, is opened anew."""

_NOT_TOLD = {
    nvml.NVML_ERROR_NOT_SUPPORTED,
    nvml.NVML_ERROR_NO_PERMISSION,
    nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    nvml.NVML_ERROR_NO_DATA,
    nvml.NVML_ERROR_DEPRECATED,
}
"""A card of this kind, or a library of this age, does not tell that."""
_GONE = {
    nvml.NVML_ERROR_GPU_IS_LOST,
    nvml.NVML_ERROR_NOT_FOUND,
    nvml.NVML_ERROR_GPU_NOT_FOUND,
}
_REASONS = {
    nvml.NVML_ERROR_GPU_IS_LOST: "It has fallen off the bus.",
    nvml.NVML_ERROR_NOT_FOUND: "Its driver does not find it any more.",
    nvml.NVML_ERROR_GPU_NOT_FOUND: "Its driver does not find it any more.",
    nvml.NVML_ERROR_RESET_REQUIRED: "It must be reset.",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "The driver's library is of another version than the driver that runs: restart the node."
    ),
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "Its driver is not loaded.",
}
_UNUSABLE = {nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, nvml.NVML_ERROR_DRIVER_NOT_LOADED}
"""Why the library cannot be opened, where it is the cards that cannot be used either."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the library tells of one card."""

    found: FoundAccelerator
    """With its name, memory and UUID."""
    reading: Reading
    """Without processes."""
    memory_of: dict[int, int]
    """Bytes that processes of the node have of its memory, by their ids."""


class Nvml:
    """The library, opened when it is first needed. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_open = False
        self._failure: int | None = None
        """Why it could not be opened."""
        self._open_again_at = 0.0

    def read(self, found: FoundAccelerator) -> Told:
        """What it tells of a card; of one that does not answer, why."""
        if not self._ensure_open():
            return _of_nothing(found, self._failure)
        try:
            handle = nvml.nvmlDeviceGetHandleByPciBusId(found.address)
            return _read(handle, found)
        except nvml.NVMLError as error:
            if error.value in _NOT_TOLD:
                return _of_nothing(found, None)
            self._lost()
            health = Health.MISSING if error.value in _GONE else Health.FAILED
            return Told(found, _silent(found, health, _reason(error)), {})

    def _ensure_open(self) -> bool:
        if self._is_open and self._clock() < self._open_again_at:
            return True
        if self._is_open:
            # A card that was lost, and reset since, is seen by a library that was opened anew.
            self._close()
        elif self._clock() < self._open_again_at:
            return False
        self._open_again_at = self._clock() + OPEN_AGAIN_SECONDS
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value != self._failure:
                log.warning("NVML cannot be used", reason=_reason(error))
            self._failure = error.value
            return False
        self._is_open, self._failure = True, None
        self._open_again_at = float("inf")
        return True

    def _lost(self) -> None:
        self._open_again_at = min(self._open_again_at, self._clock() + OPEN_AGAIN_SECONDS)

    def _close(self) -> None:
        self._is_open = False
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            log.warning("NVML could not be closed", reason=_reason(error))


def _of_nothing(found: FoundAccelerator, failure: int | None) -> Told:
    """Nothing is told: as well as discovery says, unless the driver itself is what fails."""
    if failure in _UNUSABLE:
        return Told(found, _silent(found, Health.FAILED, _REASONS[failure]), {})
    return Told(found, _silent(found, found.health, found.reason), {})


def _silent(found: FoundAccelerator, health: Health, reason: str) -> Reading:
    return Reading(found.address, None, None, None, None, health, reason)


def _reason(error: Any) -> str:
    return _REASONS.get(error.value) or f"NVML: {error}."


def _read(handle: Any, found: FoundAccelerator) -> Told:
    memory = _if_told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
    if memory is None:
        memory = _if_told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _if_told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    milliwatts = _if_told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    health, reason = _health(handle)
    reading = Reading(
        address=found.address,
        utilisation=None if rates is None else min(rates.gpu / 100, 1.0),
        memory_used=None if memory is None else int(memory.used),
        temperature=_temperature(handle),
        power=None if milliwatts is None else milliwatts / 1000,
        health=health,
        reason=reason,
    )
    named = replace(
        found,
        model=_if_told(lambda: nvml.nvmlDeviceGetName(handle)) or found.model,
        uuid=_if_told(lambda: nvml.nvmlDeviceGetUUID(handle)) or found.uuid,
        memory=found.memory if memory is None else int(memory.total),
    )
    return Told(named, reading, _memory_of(handle))


def _temperature(handle: Any) -> float | None:
    sensor = nvml.NVML_TEMPERATURE_GPU
    degrees = _if_told(lambda: nvml.nvmlDeviceGetTemperature(handle, sensor))
    if degrees is None:
        # The name under which libraries from CUDA 14 on will have it.
        degrees = _if_told(lambda: nvml.nvmlDeviceGetTemperatureV(handle, sensor))
    return None if degrees is None else float(degrees)


def _health(handle: Any) -> tuple[Health, str]:
    lost = _if_told(
        lambda: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        )
    )
    if lost:
        return Health.FAILED, (
            f"Its memory has had {lost} errors since its last reset that could not be corrected."
        )
    # Correctable, uncorrectable, pending, failed.
    rows = _if_told(lambda: nvml.nvmlDeviceGetRemappedRows(handle))
    if rows is not None and rows[3]:
        return Health.FAILED, "It has no spare memory left in place of broken one."
    if rows is not None and rows[2]:
        return Health.FAILED, "It must be reset to put spare memory in place of broken one."
    return Health.OK, ""


def _memory_of(handle: Any) -> dict[int, int]:
    found: dict[int, int] = {}
    for list_processes in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for each in _if_told(lambda ask=list_processes: ask(handle)) or ():
            # One that computes and draws is in both lists, with the same memory.
            found[each.pid] = max(found.get(each.pid, 0), each.usedGpuMemory or 0)
    return found


def _if_told(ask: Callable[[], Any]) -> Any:
    """The answer, or None where a card or a library does not tell that."""
    try:
        return ask()
    except nvml.NVMLError as error:
        if error.value in _NOT_TOLD:
            return None
        raise
