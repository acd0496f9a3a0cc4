"""The agents of nodes: who they are, and what they are asked to do.

An order is a row, so that it does not matter which server holds the agent's connection, or whether
that server lives long enough to see the answer. It is of use for `ORDER_SECONDS` only: what it
names may belong to somebody else later.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

from hutch.domain.accelerators import OpenedDevice, Process, Revoked, Verb
from hutch.domain.nodes import Node
from hutch.errors import BadTokenError, DatabaseUnavailableError
from hutch.services.context import Context
from hutch.services.vault import AGENT_PREFIX, digest
from hutch.store import nodes, revocations
from hutch.store.db import Session
from hutch.store.revocations import Revocation

ORDER_SECONDS = 30.0
"""How long after it was given an order may still be carried out."""
ANOTHER_SERVER_SECONDS = 0.5
"""How soon an order or an answer is seen that came by another server."""


async def authenticate(context: Context, token: str) -> Node:
    """The node whose agent has this token. Raises BadTokenError when there is none."""
    if not token.startswith(AGENT_PREFIX) or len(token) > 100 or not token.isascii():
        raise BadTokenError
    async with context.db.read() as session:
        node = await nodes.node_of_agent(session, digest(token))
    if node is None:
        raise BadTokenError
    return node


async def order(
    session: Session,
    context: Context,
    verb: Verb,
    *,
    node_id: str,
    lease_id: str,
    container: str,
    devices: Sequence[OpenedDevice],
) -> str:
    """Ask a node's agent about the processes of a container that have one of `devices` open.

    The id of the order, to wait for with `await_result` once the transaction is committed. Earlier
    orders for the same lease that are still open are withdrawn.
    """
    return await revocations.add_revocation(
        session,
        node_id=node_id,
        lease_id=lease_id,
        verb=verb,
        container=container,
        devices=devices,
        at=context.now(),
    )


async def await_result(
    context: Context, node_id: str, order_id: str, *, timeout: float
) -> Revoked | None:
    """What a node's agent has done and found.

    None when the agent has not answered within `timeout` seconds, or another order came after
    this one; then it will not be carried out any more, unless that has begun.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(timeout, ORDER_SECONDS)
    with context.hints.watching(order_id) as answered:
        while True:
            answered.clear()
            # Before the look, which there is time for while the agent is at it.
            hint(context, node_id)
            async with context.db.read() as session:
                row = await revocations.get_revocation(session, order_id)
            if row is None or row.done_at is not None:
                return _revoked(row)
            left = deadline - loop.time()
            if left <= 0:
                return await _withdraw(context, row)
            # Not wait_for: Python 3.11 can lose a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, ANOTHER_SERVER_SECONDS)):
                    await answered.wait()


async def _withdraw(context: Context, row: Revocation) -> Revoked | None:
    async with context.db.write() as session:
        if await revocations.finish(session, row.id, row.node_id, None, context.now()):
            return None
        # The answer came in the last moment.
        return _revoked(await revocations.get_revocation(session, row.id))


def _revoked(row: Revocation | None) -> Revoked | None:
    if row is None or row.result is None:
        return None
    processes = tuple(Process(**each) for each in row.result["processes"])
    return Revoked(processes, row.result.get("is_shut", False))


async def orders(context: Context, node_id: str, connection: str) -> AsyncIterator[Revocation]:
    """What a node's agent is asked to do, each order once, as they come.

    It ends when another connection of that agent counts, or none does any more.
    """
    known: set[str] = set()
    with context.hints.watching(_inbox(node_id)) as hinted:
        while True:
            hinted.clear()
            with suppress(DatabaseUnavailableError):
                fresh = await _open_orders(context, node_id, connection)
                if fresh is None:
                    return
                for row in fresh:
                    if row.id not in known:
                        yield row
                known = {row.id for row in fresh}
            with suppress(TimeoutError):
                async with asyncio.timeout(ANOTHER_SERVER_SECONDS):
                    await hinted.wait()


async def _open_orders(context: Context, node_id: str, connection: str) -> list[Revocation] | None:
    now = context.now()
    async with context.db.read() as session:
        if not await nodes.is_agent_connection(session, node_id, connection):
            return None
        rows = await revocations.list_open(session, node_id)
    return [row for row in rows if abs(now - row.created_at) < timedelta(seconds=ORDER_SECONDS)]


def hint(context: Context, node_id: str) -> None:
    """Let whoever holds a connection of a node's agent look at once for orders, and for whether
    it still counts."""
    context.hints.changed(_inbox(node_id))


async def answer(context: Context, node_id: str, order_id: str, revoked: Revoked) -> None:
    """Keep what a node's agent has answered; one that nobody waits for is forgotten."""
    async with context.db.write(durable=False) as session:
        await revocations.finish(session, order_id, node_id, asdict(revoked), context.now())
    context.hints.changed(order_id)


def _inbox(node_id: str) -> str:
    return f"agent:{node_id}"
