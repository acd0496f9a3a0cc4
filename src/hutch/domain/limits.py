"""What an instance may use, and what a person may hold in all."""

from dataclasses import dataclass, fields

from hutch.domain.sizes import MiB, format_size
from hutch.errors import InvalidLimitError, QuotaExceededError

SMALLEST_MEMORY = 128 * MiB
SMALLEST_DISK = 1024 * MiB
POOL_DISK = 4 * 1024 * MiB
"""The disk of a container made in advance: it can always be made larger, not always smaller."""
MOST_CPUS = 1024
MOST_PROCESSES = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one instance, enforced by the engine."""

    cpus: int
    """Processor time, in processors: 2 means at most 200 ms in every 100 ms."""
    memory: int
    """Bytes of memory, hard: the instance's own processes are ended above it."""
    disk: int
    """Bytes of its root disk."""
    processes: int
    """Processes and threads."""

    def check(self) -> "Limits":
        """Return self, or raise InvalidLimitError when a value makes no sense on any node."""
        for name, value, least, most in (
            ("cpus", self.cpus, 1, MOST_CPUS),
            ("memory", self.memory, SMALLEST_MEMORY, None),
            ("disk", self.disk, SMALLEST_DISK, None),
            ("processes", self.processes, 64, MOST_PROCESSES),
        ):
            if value < least or (most is not None and value > most):
                allowed = f"at least {_show(name, least)}"
                if most is not None:
                    allowed += f" and at most {_show(name, most)}"
                raise InvalidLimitError(name, _show(name, value), allowed)
        return self


def _show(name: str, value: int) -> str:
    return format_size(value) if name in {"memory", "disk"} and value > 0 else str(value)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a person holds, or may hold at most: their quota."""

    instances: int
    cpus: int
    memory: int
    disk: int
    accelerators: int = 0

    def plus(self, other: "Holding") -> "Holding":
        return Holding(
            self.instances + other.instances,
            self.cpus + other.cpus,
            self.memory + other.memory,
            self.disk + other.disk,
            self.accelerators + other.accelerators,
        )


NOTHING = Holding(0, 0, 0, 0)


def holding_of(limits: Limits) -> Holding:
    """What one instance with these limits counts for, running or stopped."""
    return Holding(1, limits.cpus, limits.memory, limits.disk)


def check_quota(quota: Holding, held: Holding, more: Holding) -> None:
    """Raise QuotaExceededError, naming the first resource that `more` would push over `quota`.

    A resource of which nothing more is asked never refuses: a quota lowered below what is held
    stops growth and nothing else.
    """
    for field in fields(Holding):
        name = field.name
        allowed, has, asks = getattr(quota, name), getattr(held, name), getattr(more, name)
        if asks > 0 and has + asks > allowed:
            raise QuotaExceededError(
                name, _show(name, allowed), _show(name, has), _show(name, asks)
            )
