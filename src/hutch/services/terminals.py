"""Terminals in instances: shells that outlive a lost connection for a while."""

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import HutchError, InvalidInputError, WrongStateError
from hutch.services import claims
from hutch.services.context import Context
from hutch.services.held import Claim
from hutch.services.instances import current
from hutch.services.shells import Session
from hutch.store import events

_SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)


@asynccontextmanager
async def opened(
    context: Context,
    actor: Actor,
    ref: str,
    session_id: str | None,
    *,
    columns: int,
    rows: int,
) -> AsyncGenerator[tuple[Session, bool]]:
    """A shell as the instance's owner, for as long as the actor may; and whether it is a new one.

    With the id of one that is still there it is that one. Where the image has tmux it is the same
    shell even when this server has restarted since.
    """
    if session_id is not None and not _SESSION.fullmatch(session_id):
        raise InvalidInputError(
            "That is no id of a terminal.", hint="Leave it out: the answer has one."
        )
    instance, node, container = await current(context, actor, Action.INSTANCE_EXEC, ref)
    if instance.state is not InstanceState.RUNNING:
        raise WrongStateError(
            f"{instance.name} is {instance.state}.", hint=f"`hutch start {instance.name}` first."
        )
    shells = context.shells
    shells.sweep()
    session = shells.find(actor, instance, session_id) if session_id else None
    is_new = session is None
    if session is None:
        session = Session(actor.user_id, instance, session_id or secrets.token_hex(16))
        shells.add(session, context.settings.terminals_per_person)
    await _record(context, actor, instance, is_new=is_new)
    claim = Claim(actor, instance.id, Action.INSTANCE_EXEC, frozenset({InstanceState.RUNNING}))
    try:
        async with claims.holding(context, claim):
            if is_new:
                engine = context.engines.of(node)
                await session.begin(engine, container.engine_name, columns, rows)
            else:
                await session.resize(columns, rows)
            yield session, is_new
    except HutchError:
        # The right to it is lost, or it never began.
        shells.remove(session)
        raise


async def _record(context: Context, actor: Actor, instance: Instance, *, is_new: bool) -> None:
    async with context.db.write() as session:
        await events.record(
            session, actor, context.now(), "terminal.open",
            ("instance", instance.id, instance.name),
            owner_id=instance.owner_id, again=not is_new,
        )  # fmt: skip
