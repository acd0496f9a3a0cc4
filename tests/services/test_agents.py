"""Orders reach whoever holds the agent's connection, once, and only while they are of use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from hutch.domain.accelerators import OpenedDevice, Revoked, Verb
from hutch.domain.people import Actor
from hutch.errors import BadTokenError, ForbiddenError, NotFoundError
from hutch.services import agents, nodes
from hutch.services.context import Context, Hints
from hutch.store.revocations import Revocation
from tests.accelerators import card, hold, ids, process, sign_in
from tests.lab import Clock, Lab

DEVICE = OpenedDevice(195, 0, "/dev/nvidia0")


def answer_of(container: str) -> Revoked:
    return Revoked((process(container),), is_shut=True)


class Desk:
    """A lease of alice's, and what is ordered for it."""

    def __init__(self, context: Context, lab: Lab, lease_id: str, connection: str) -> None:
        self.context = context
        self.lab = lab
        self.lease_id = lease_id
        self.connection = connection
        self.seen: list[Revocation] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def order(self, verb: Verb = Verb.SHUT) -> str:
        async with self.context.db.write() as session:
            return await agents.order(
                session,
                self.context,
                verb,
                node_id=self.lab.node.id,
                lease_id=self.lease_id,
                container="hutch-1",
                devices=[DEVICE],
            )

    def connect(self, *, answering: bool = True) -> None:
        """An agent that notes what it is asked, and answers."""
        self.tasks.append(asyncio.create_task(self._serve(answering)))

    async def _serve(self, answering: bool) -> None:
        node_id = self.lab.node.id
        async for order in agents.orders(self.context, node_id, self.connection):
            self.seen.append(order)
            if answering:
                await agents.answer(self.context, node_id, order.id, answer_of("hutch-1"))

    async def result(self, order_id: str, timeout: float = 10) -> Revoked | None:
        return await agents.await_result(self.context, self.lab.node.id, order_id, timeout=timeout)


@pytest_asyncio.fixture
async def desk(context: Context, lab: Lab, alice: Actor) -> AsyncIterator[Desk]:
    connection = await sign_in(context, lab, card())
    lease_id, _ = await hold(context, lab, alice, (await ids(context))["0000:3b:00.0"])
    made = Desk(context, lab, lease_id, connection)
    yield made
    for task in made.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_node_is_known_by_its_agents_token(context: Context, lab: Lab, ada: Actor):
    first = await nodes.new_agent_token(context, ada, "node1")
    assert (await agents.authenticate(context, first)).id == lab.node.id
    second = await nodes.new_agent_token(context, ada, "node1")
    with pytest.raises(BadTokenError):
        await agents.authenticate(context, first)
    assert (await agents.authenticate(context, second)).id == lab.node.id


@pytest.mark.parametrize("token", ["", "hutch_node_", "hutch_node_x", "hutch_node_é", "x" * 1000])
async def test_what_is_no_token_of_an_agent_is_refused(context: Context, token: str):
    with pytest.raises(BadTokenError):
        await agents.authenticate(context, token)


async def test_only_administrators_make_such_tokens(context: Context, alice: Actor, ada: Actor):
    with pytest.raises(ForbiddenError):
        await nodes.new_agent_token(context, alice, "node1")
    with pytest.raises(NotFoundError):
        await nodes.new_agent_token(context, ada, "node9")


async def test_an_order_is_answered(desk: Desk):
    desk.connect()
    order = await desk.order(Verb.ASK)
    assert await desk.result(order) == answer_of("hutch-1")
    [seen] = desk.seen
    assert (seen.verb, seen.container, seen.devices) == (Verb.ASK, "hutch-1", (DEVICE,))


async def test_an_order_waits_for_the_agent_to_come(desk: Desk):
    order = await desk.order()
    waiting = asyncio.create_task(desk.result(order))
    await asyncio.sleep(0)
    desk.connect()
    assert await waiting == answer_of("hutch-1")


async def test_an_order_and_its_answer_pass_between_two_servers(desk: Desk):
    # The other server has hints of its own, which nobody sets here.
    desk.connect()
    order = await desk.order()
    desk.context = Context(
        desk.context.db, desk.context.settings, desk.context.vault, desk.context.engines, Hints(),
        desk.context.now,
    )  # fmt: skip
    assert await desk.result(order) == answer_of("hutch-1")


async def test_an_order_is_handed_out_once_to_a_connection_and_again_to_the_next(desk: Desk):
    desk.connect(answering=False)
    order = await desk.order()
    assert await desk.result(order, timeout=1.2) is None
    assert len(desk.seen) == 1
    second = await desk.order()
    waiting = asyncio.create_task(desk.result(second))
    while len(desk.seen) < 2:
        await asyncio.sleep(0.01)
    desk.connect()
    assert await waiting is not None
    assert [each.id for each in desk.seen] == [order, second, second]


async def test_what_nobody_answered_in_time_is_not_carried_out_later(desk: Desk):
    order = await desk.order(Verb.END)
    assert await desk.result(order, timeout=0) is None
    desk.connect()
    assert await desk.result(await desk.order()) is not None
    assert [each.verb for each in desk.seen] == [Verb.SHUT]
    assert await desk.result(order) is None


async def test_what_a_server_left_behind_is_not_carried_out_later(desk: Desk, clock: Clock):
    await desk.order(Verb.END)
    clock.forward(seconds=agents.ORDER_SECONDS + 1)
    desk.connect()
    # Another lease's order comes through; the old one never does.
    desk.lease_id, _ = await hold(
        desk.context, desk.lab, desk.lab.actors["bob"], (await ids(desk.context))["0000:3b:00.0"],
        slot=1,
    )  # fmt: skip
    assert await desk.result(await desk.order()) is not None
    assert [each.verb for each in desk.seen] == [Verb.SHUT]


async def test_a_new_order_for_a_lease_withdraws_the_one_before(desk: Desk):
    first = await desk.order(Verb.END)
    second = await desk.order(Verb.SHUT)
    desk.connect()
    assert await desk.result(second) is not None
    assert [each.verb for each in desk.seen] == [Verb.SHUT]
    assert await desk.result(first) is None


async def test_an_answer_that_comes_too_late_or_from_another_node_is_forgotten(desk: Desk):
    order = await desk.order()
    await agents.answer(desk.context, "another", order, answer_of("hutch-2"))
    assert await desk.result(order, timeout=0) is None
    await agents.answer(desk.context, desk.lab.node.id, order, answer_of("hutch-1"))
    assert await desk.result(order, timeout=0) is None
    await agents.answer(desk.context, desk.lab.node.id, "unheard of", Revoked())


async def test_a_connection_that_no_longer_counts_gets_no_orders(desk: Desk):
    desk.connect()
    await sign_in(desk.context, desk.lab, card())
    agents.hint(desk.context, desk.lab.node.id)
    await asyncio.wait_for(desk.tasks[0], 5)
    order = await desk.order()
    assert await desk.result(order, timeout=0.2) is None
    assert desk.seen == []


async def test_a_new_token_ends_the_connection_of_the_old_one(desk: Desk, ada: Actor):
    desk.connect()
    await nodes.new_agent_token(desk.context, ada, "node1")
    await asyncio.wait_for(desk.tasks[0], 5)
