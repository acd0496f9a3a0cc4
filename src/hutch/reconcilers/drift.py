"""What is different from what should be, in the words that the instance's owner reads.

Pure arithmetic on one instance and its container as the engine has it.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields

from hutch.domain.instances import Desired, Instance, InstanceState
from hutch.domain.limits import Limits
from hutch.domain.sizes import format_size
from hutch.engine.base import Forward, Observed, Power

STOPPED_OUTSIDE = "stopped_outside"
STARTED_OUTSIDE = "started_outside"
SUSPENDED_OUTSIDE = "suspended_outside"
MISSING = "missing"
LIMITS_CHANGED = "limits_changed"
FORWARD_CHANGED = "forward_changed"

AT_REST = frozenset({InstanceState.RUNNING, InstanceState.STOPPED})
_SETTABLE = ("cpus", "memory", "disk")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an instance's row should say of it."""

    state: InstanceState
    code: str | None = None
    message: str = ""

    def is_known(self, instance: Instance) -> bool:
        """Whether the row says so already."""
        return instance.state is self.state and self.is_same_drift(instance)

    def is_same_drift(self, instance: Instance) -> bool:
        if instance.drift is None:
            return self.code is None
        return (instance.drift.code, instance.drift.message) == (self.code, self.message)


def judge(instance: Instance, seen: Observed | None, forwards: Collection[Forward]) -> Verdict:
    """Compare an instance on which nothing works with its container; None: there is none.

    `forwards` are those which should lead to it.
    """
    name = instance.name
    if seen is None:
        if instance.state is InstanceState.CREATING:
            return Verdict(InstanceState.FAILED)
        return Verdict(
            InstanceState.STOPPED,
            MISSING,
            f"Its container is gone from {instance.node_name}: it was deleted outside hutch."
            f" `hutch delete {name}` gives the name and the quota back.",
        )
    wanted = instance.desired
    if seen.power is Power.OTHER:
        verb = "restart" if wanted is Desired.RUNNING else "stop"
        return Verdict(
            InstanceState(wanted.value),
            SUSPENDED_OUTSIDE,
            f"Frozen or failing on {instance.node_name}. `hutch {verb} {name}` may end that.",
        )
    runs = seen.power is Power.RUNNING
    state = InstanceState.RUNNING if runs else InstanceState.STOPPED
    if wanted is Desired.RUNNING and not runs:
        return Verdict(
            state, STOPPED_OUTSIDE, f"Stopped outside hutch. `hutch start {name}` starts it."
        )
    if wanted is Desired.STOPPED and runs:
        return Verdict(
            state,
            STARTED_OUTSIDE,
            f"Started outside hutch. `hutch stop {name}` stops it,"
            f" `hutch start {name}` lets it run.",
        )
    if seen.limits != instance.limits:
        return Verdict(state, LIMITS_CHANGED, _about_limits(name, instance.limits, seen.limits))
    if set(forwards) != set(seen.forwards):
        return Verdict(state, FORWARD_CHANGED, _about_forwards(instance, forwards, seen.forwards))
    return Verdict(state)


def _about_forwards(
    instance: Instance, wanted: Collection[Forward], found: Collection[Forward]
) -> str:
    missing = [each.listen_port for each in wanted if each not in found]
    # The same port in another way is not one too many.
    extra = [each.listen_port for each in found if each.name not in {one.name for one in wanted}]
    said = [f"{_ports(missing)} not leading to it"] if missing else []
    said += [f"{_ports(extra)} leading to it without leave"] if extra else []
    return (
        f"Ports of {instance.node_name} were changed outside hutch: {', '.join(said)}."
        f" `hutch start {instance.name}` mends that."
    )


def _ports(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _about_limits(name: str, wanted: Limits, found: Limits | None) -> str:
    if found is None:
        return (
            "One of its limits was removed outside hutch."
            f" `hutch set {name} --cpus {wanted.cpus}` puts all of them back."
        )
    different = [
        field.name
        for field in fields(Limits)
        if getattr(wanted, field.name) != getattr(found, field.name)
    ]
    changes = ", ".join(
        f"{each} {_show(each, getattr(found, each))} instead of"
        f" {_show(each, getattr(wanted, each))}"
        for each in different
    )
    option = next((each for each in different if each in _SETTABLE), "cpus")
    value = _show(option, getattr(wanted, option))
    return (
        f"Its limits were changed outside hutch: {changes}."
        f" `hutch set {name} --{option} {value}` puts them back."
    )


def _show(limit: str, value: int) -> str:
    return format_size(value) if limit in {"memory", "disk"} else str(value)
