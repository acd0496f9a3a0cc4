"""Terminals in instances: shells that outlive a lost connection for a while."""

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from hutch.domain.ids import new_id
from hutch.domain.instances import Container, Instance, InstanceState
from hutch.domain.nodes import Node
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import (
    BadTicketError,
    BadTokenError,
    HutchError,
    InvalidInputError,
    WrongStateError,
)
from hutch.services import claims, tokens
from hutch.services.context import Context
from hutch.services.held import Claim
from hutch.services.instances import current
from hutch.services.shells import Session
from hutch.services.tickets import Tickets
from hutch.store import db, events

TICKET_LASTS = timedelta(seconds=30)
_SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says. It is used once an event of an opened terminal names it.

    So the event and the use are one row, written in one transaction; there is nothing else to keep
    or to tidy away.
    """

    id: str
    token_id: str
    """By which it was asked for. It is worth what that token is worth when it is used."""
    instance_id: str
    after: int
    """The latest event when it was made: no earlier one can name it."""


async def give_ticket(context: Context, actor: Actor, ref: str) -> tuple[str, datetime]:
    """With it whoever has the actor's token opens one terminal, until a moment that is told."""
    instance, _, _ = await _running(context, actor, ref)
    async with context.db.read() as session:
        after = await events.latest(session)
    until = (context.now() + TICKET_LASTS).replace(microsecond=0)
    said = f"{new_id()} {actor.token_id} {instance.id} {after}"
    return _tickets(context).give(said, until), until


async def present(
    context: Context, text: str, *, address: str | None, request_id: str | None
) -> tuple[Actor, Ticket]:
    """Who comes with a ticket, which is not used by this yet. Raises BadTicketError."""
    said = _tickets(context).read(text, context.now())
    if said is None:
        raise BadTicketError
    ticket_id, token_id, instance_id, after = said.split(" ")
    ticket = Ticket(ticket_id, token_id, instance_id, int(after))
    async with context.db.read() as session:
        if await _is_used(session, ticket):
            raise BadTicketError
    try:
        actor = await tokens.authenticate_id(
            context, token_id, address=address, request_id=request_id
        )
    except BadTokenError:
        raise BadTicketError from None
    return actor, ticket


def _tickets(context: Context) -> Tickets:
    return Tickets(context.vault, "terminal")


async def _is_used(session: db.Session, ticket: Ticket) -> bool:
    opened = await events.details_after(session, ticket.after, "terminal.open", ticket.instance_id)
    return any(each.get("ticket") == ticket.id for each in opened)


async def _running(context: Context, actor: Actor, ref: str) -> tuple[Instance, Node, Container]:
    instance, node, container = await current(context, actor, Action.INSTANCE_EXEC, ref)
    if instance.state is not InstanceState.RUNNING:
        raise WrongStateError(
            f"{instance.name} is {instance.state}.", hint=f"`hutch start {instance.name}` first."
        )
    return instance, node, container


@asynccontextmanager
async def opened(
    context: Context,
    actor: Actor,
    ref: str,
    session_id: str | None,
    *,
    columns: int,
    rows: int,
    ticket: Ticket | None = None,
) -> AsyncGenerator[tuple[Session, bool]]:
    """A shell as the instance's owner, for as long as the actor may; and whether it is a new one.

    With the id of one that is still there it is that one. Where the image has tmux it is the same
    shell even when this server has restarted since. `ticket` is what the actor came with: it is
    used by this, and raises BadTicketError where it has been used or is for another instance.
    """
    if session_id is not None and not _SESSION.fullmatch(session_id):
        raise InvalidInputError(
            "That is no id of a terminal.", hint="Leave it out: the answer has one."
        )
    instance, node, container = await _running(context, actor, ref)
    if ticket is not None and ticket.instance_id != instance.id:
        raise BadTicketError
    shells, most = context.shells, context.settings.terminals_per_person
    shells.sweep()
    session_id = session_id or secrets.token_hex(16)
    is_new = shells.find(actor, instance, session_id) is None
    if is_new:
        shells.check_room(actor, most)
    # Before anything is touched: who comes with a used ticket changes nothing.
    await _note_opening(context, actor, instance, ticket, is_new=is_new)
    session = shells.find(actor, instance, session_id)
    is_new = session is None
    if session is None:
        session = Session(actor.user_id, instance, session_id)
        shells.add(session, most)
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


async def _note_opening(
    context: Context, actor: Actor, instance: Instance, ticket: Ticket | None, *, is_new: bool
) -> None:
    """The event; with a ticket, its use as well. Raises BadTicketError when another was first."""
    detail = {} if ticket is None else {"ticket": ticket.id}
    async with context.db.write() as session:
        if ticket is not None:
            await db.lock(session, f"ticket {ticket.id}")
            if await _is_used(session, ticket):
                raise BadTicketError
        await events.record(
            session, actor, context.now(), "terminal.open",
            ("instance", instance.id, instance.name),
            owner_id=instance.owner_id, again=not is_new, **detail,
        )  # fmt: skip
