"""What somebody asks of the accelerators, checked before it is written down."""

from collections import Counter
from datetime import timedelta

from hutch.domain.groups import Group
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import (
    InvalidDurationError,
    InvalidInputError,
    NoSuchAcceleratorError,
    QuotaExceededError,
    WrongStateError,
)
from hutch.services.access import find_instance
from hutch.services.context import Context
from hutch.store import instances, scheduling, users
from hutch.store.db import Session

LONGEST_MODEL = 128


def duration_of(context: Context, minutes: int | None) -> timedelta:
    most = context.settings.lease_longest_minutes
    if minutes is None:
        minutes = min(context.settings.lease_default_minutes, most)
    if not 1 <= minutes <= most:
        raise InvalidDurationError(f"{minutes} minutes", f"1 to {most} minutes")
    return timedelta(minutes=minutes)


def model_of(model: str | None) -> str | None:
    """The text that a model must contain; None when any will do."""
    if model is None or not model.strip():
        return None
    if len(model) > LONGEST_MODEL:
        raise InvalidInputError(
            "That is too long for the name of a model.", hint="A part of the name is enough."
        )
    return model.strip()


async def running_machine(session: Session, actor: Actor, ref: str | None) -> Instance:
    """The running instance that accelerators are asked for."""
    if ref is None:
        ref = await _only_running(session, actor)
    machine = await find_instance(session, actor, Action.LEASE_WRITE, ref)
    if machine.state is not InstanceState.RUNNING:
        raise WrongStateError(
            f"{machine.name} is {machine.state}; only a running machine can have accelerators.",
            hint=f"`hutch start {machine.name}` first.",
            state=machine.state,
        )
    return machine


async def _only_running(session: Session, actor: Actor) -> str:
    mine = await instances.list_instances(session, owner_id=actor.user_id)
    running = [each for each in mine if each.state is InstanceState.RUNNING]
    if len(running) == 1:
        return running[0].id
    if running:
        names = ", ".join(each.name for each in running)
        raise InvalidInputError(
            f"You have several running machines: {names}.",
            hint="Name one with `--on`.",
            instances=[each.name for each in running],
        )
    raise WrongStateError(
        "You have no running machine.", hint="`hutch list` shows yours; start or create one first."
    )


async def check_node(session: Session, machine: Instance, count: int, model: str | None) -> None:
    """Refuse what the node could not give if everything were free and in service."""
    models = await scheduling.models_of(session, machine.node_id)
    fitting = [each for each in models if (model or "").casefold() in each.casefold()]
    if count <= len(fitting):
        return
    has = ", ".join(f"{number} × {name}" for name, number in sorted(Counter(models).items()))
    wanted = f"{count} × {model}" if model is not None else str(count)
    raise NoSuchAcceleratorError(
        f"Node {machine.node_name}, where {machine.name} lives, has {has or 'no accelerators'}; "
        f"{wanted} asked for.",
        hint="`hutch gpu list` shows what every node has.",
        node=machine.node_name,
        has=dict(Counter(models)),
        asked=count,
        model=model,
    )


async def check_quota(
    session: Session, context: Context, machine: Instance, count: int, group: Group | None
) -> None:
    """What waits counts too: nobody gets more later than they may have now."""
    owner = await users.get_user(session, machine.owner_id, context.settings.default_quota)
    if owner is None or owner.disabled_at is not None:
        raise WrongStateError(
            f"{machine.owner_name} is shut out, and gets no accelerators.",
            hint="An administrator can let them in again: `hutch user enable`.",
        )
    held = (await users.held(session, machine.owner_id)).accelerators
    most = owner.quota.accelerators
    if held + count > most:
        raise QuotaExceededError(
            "accelerators",
            str(most),
            str(held),
            str(count),
            hint="Release some, or ask your administrator or group manager for a larger quota.",
        )
    if group is not None and group.limit is not None and count > group.limit:
        raise QuotaExceededError(
            f"accelerators of group {group.name}",
            str(group.limit),
            "0",
            str(count),
            hint="Ask for fewer, or ask your administrator to raise the group's limit.",
        )
