"""What a node tells of its accelerators is what the lab knows of them, with every change told."""

import asyncio
from dataclasses import replace

import pytest

from hutch.domain.accelerators import Accelerator, Health
from hutch.domain.events import Event
from hutch.domain.people import Actor
from hutch.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from hutch.services import accelerators as services
from hutch.services.context import Context
from hutch.services.telemetry import Recorder
from hutch.store import accelerators, events, nodes
from hutch.store.tables import holdings
from tests.accelerators import card, hold, ids, process, reading, sign_in
from tests.lab import Clock, Lab, with_settings
from tests.reconcilers.conftest import World

CARDS = (card("0000:3b:00.0", uuid="GPU-a"), card("0000:5e:00.0", uuid="GPU-b"))


async def everything(context: Context) -> dict[str, Accelerator]:
    async with context.db.read() as session:
        found = await accelerators.list_accelerators(session)
    return {each.found.address: each for each in found}


async def told(context: Context, action: str) -> list[Event]:
    async with context.db.read() as session:
        return await events.list_events(session, limit=100, action=action)


async def test_what_a_node_has_is_known_once_its_agent_signed_in(context: Context, lab: Lab):
    await sign_in(context, lab, *CARDS)
    found = await everything(context)
    assert {key: each.found for key, each in found.items()} == {
        each.address: each for each in CARDS
    }
    assert all(each.is_grantable for each in found.values())
    assert len(await told(context, "accelerator.found")) == 2
    assert context.hints.reconcile.is_set()
    async with context.db.read() as session:
        node = await nodes.get_node(session, lab.node.id)
    assert node is not None
    assert node.agent_version == "1"
    assert node.has_nvidia_driver


async def test_signing_in_again_changes_nothing_and_tells_nothing(context: Context, lab: Lab):
    await sign_in(context, lab, *CARDS)
    before = await ids(context)
    context.hints.reconcile.clear()
    await sign_in(context, lab, *reversed(CARDS))
    assert await ids(context) == before
    assert len(await told(context, "accelerator")) == 2
    assert not context.hints.reconcile.is_set()


async def test_a_card_that_vanished_is_missing_and_one_that_returns_is_well(
    context: Context, lab: Lab
):
    connection = await sign_in(context, lab, *CARDS)
    before = await ids(context)
    assert await services.record_found(context, lab.node, connection, CARDS[:1])
    lost = (await everything(context))["0000:5e:00.0"]
    assert lost.found.health is Health.MISSING
    assert not lost.is_grantable
    [failed] = await told(context, "accelerator.failed")
    assert failed.detail["health"] == "missing"
    assert failed.target_name == "node1/0000:5e:00.0"
    await services.record_found(context, lab.node, connection, CARDS[:1])
    await services.record_found(context, lab.node, connection, CARDS)
    assert (await everything(context))["0000:5e:00.0"].is_grantable
    assert len(await told(context, "accelerator.failed")) == 1
    assert len(await told(context, "accelerator.recovered")) == 1
    assert await ids(context) == before


async def test_cards_that_changed_places_keep_their_ids(context: Context, lab: Lab):
    connection = await sign_in(context, lab, *CARDS)
    before = await ids(context)
    swapped = [replace(CARDS[0], address="0000:5e:00.0"), replace(CARDS[1], address="0000:3b:00.0")]
    await services.record_found(context, lab.node, connection, swapped)
    after = await ids(context)
    assert after["0000:3b:00.0"] == before["0000:5e:00.0"]
    assert after["0000:5e:00.0"] == before["0000:3b:00.0"]


async def test_a_card_put_in_before_the_others_moves_them_and_is_new(context: Context, lab: Lab):
    connection = await sign_in(context, lab, *CARDS)
    before = await ids(context)
    moved = [
        card("0000:3b:00.0", uuid="GPU-c"),
        replace(CARDS[0], address="0000:5e:00.0"),
        replace(CARDS[1], address="0000:86:00.0"),
    ]
    await services.record_found(context, lab.node, connection, moved)
    after = await ids(context)
    assert after["0000:5e:00.0"] == before["0000:3b:00.0"]
    assert after["0000:86:00.0"] == before["0000:5e:00.0"]
    assert after["0000:3b:00.0"] not in before.values()


async def test_another_card_in_the_same_place_is_told_of(context: Context, lab: Lab):
    connection = await sign_in(context, lab, *CARDS)
    before = await ids(context)
    new = card("0000:3b:00.0", uuid="GPU-c", model="NVIDIA B200")
    await services.record_found(context, lab.node, connection, [new, CARDS[1]])
    assert await ids(context) == before
    assert (await everything(context))["0000:3b:00.0"].found.model == "NVIDIA B200"
    [replaced] = await told(context, "accelerator.replaced")
    assert replaced.detail == {
        "was": "GPU-a", "model_was": "NVIDIA H100", "uuid": "GPU-c", "model": "NVIDIA B200",
    }  # fmt: skip


async def test_a_held_card_is_replaced_only_once_it_is_let_go(
    context: Context, lab: Lab, alice: Actor
):
    connection = await sign_in(context, lab, *CARDS)
    before = await ids(context)
    _, holding = await hold(context, lab, alice, before["0000:3b:00.0"])
    new = [card("0000:3b:00.0", uuid="GPU-c"), CARDS[1]]
    await services.record_found(context, lab.node, connection, new)
    held = (await everything(context))["0000:3b:00.0"]
    assert (held.id, held.found.uuid) == (before["0000:3b:00.0"], "GPU-a")
    assert held.found.health is Health.MISSING
    async with context.db.write() as session:
        await session.execute(
            holdings.update().where(holdings.c.id == holding).values(until=context.now())
        )
    await services.record_found(context, lab.node, connection, new)
    free = (await everything(context))["0000:3b:00.0"]
    assert free.found.uuid == "GPU-c"
    assert free.is_grantable


async def test_only_the_latest_connection_counts(context: Context, lab: Lab):
    older = await sign_in(context, lab, *CARDS)
    newer = await sign_in(context, lab, *CARDS)
    assert not await services.record_found(context, lab.node, older, [])
    assert (await everything(context))["0000:3b:00.0"].is_grantable
    assert await services.record_found(context, lab.node, newer, [])
    assert not (await everything(context))["0000:3b:00.0"].is_grantable


async def test_two_agents_that_sign_in_at_once_make_every_card_once(context: Context, lab: Lab):
    await asyncio.gather(*(sign_in(context, lab, *CARDS) for _ in range(8)))
    assert len(await everything(context)) == 2
    assert len(await told(context, "accelerator.found")) == 2


async def test_an_administrator_takes_one_out_of_service_with_a_reason_and_brings_it_back(
    context: Context, lab: Lab, ada: Actor
):
    await sign_in(context, lab, *CARDS)
    context.hints.reconcile.clear()
    gone = await services.withdraw(context, ada, "node1/0000:3b:00.0", " noisy fan ")
    assert gone.withdrawn == "noisy fan"
    assert not gone.is_grantable
    assert context.hints.reconcile.is_set()
    [event] = await told(context, "accelerator.withdraw")
    assert (event.actor_name, event.detail["withdrawn"]) == ("ada", "noisy fan")
    back = await services.restore(context, ada, gone.id)
    assert back.is_grantable
    await services.restore(context, ada, "0000:3b:00.0")
    assert len(await told(context, "accelerator.restore")) == 1


@pytest.mark.parametrize("reason", ["", "   ", "x" * 201, "two\nlines"])
async def test_a_reason_is_one_line(context: Context, lab: Lab, ada: Actor, reason: str):
    await sign_in(context, lab, *CARDS)
    with pytest.raises(InvalidInputError):
        await services.withdraw(context, ada, "0000:3b:00.0", reason)


async def test_what_is_found_again_stays_out_of_service(context: Context, lab: Lab, ada: Actor):
    connection = await sign_in(context, lab, *CARDS)
    await services.withdraw(context, ada, "0000:3b:00.0", "noisy fan")
    await services.record_found(context, lab.node, connection, CARDS[1:])
    await services.record_found(context, lab.node, connection, CARDS)
    assert (await everything(context))["0000:3b:00.0"].withdrawn == "noisy fan"


async def test_sharing_is_changed_only_while_nobody_holds_it(
    context: Context, lab: Lab, ada: Actor, alice: Actor
):
    await sign_in(context, lab, *CARDS)
    shared = await services.share(context, ada, "0000:3b:00.0", 4)
    assert shared.sharers == 4
    await hold(context, lab, alice, shared.id)
    with pytest.raises(ConflictError, match="held by alice"):
        await services.share(context, ada, shared.id, 1)
    assert (await services.share(context, ada, shared.id, 4)).sharers == 4


@pytest.mark.parametrize("sharers", [0, -1, 65])
async def test_sharers_are_a_sensible_number(context: Context, lab: Lab, ada: Actor, sharers: int):
    await sign_in(context, lab, *CARDS)
    with pytest.raises(InvalidInputError):
        await services.share(context, ada, "0000:3b:00.0", sharers)


async def test_members_change_nothing(context: Context, lab: Lab, alice: Actor):
    await sign_in(context, lab, *CARDS)
    for attempt in (
        services.withdraw(context, alice, "0000:3b:00.0", "mine"),
        services.restore(context, alice, "0000:3b:00.0"),
        services.share(context, alice, "0000:3b:00.0", 2),
    ):
        with pytest.raises(ForbiddenError):
            await attempt


async def test_what_is_not_there_is_not_found(context: Context, lab: Lab, ada: Actor):
    await sign_in(context, lab, *CARDS)
    for ref in ("0000:00:00.0", "node2/0000:3b:00.0", "x" * 1000, "/", "a\x01"):
        with pytest.raises(NotFoundError):
            await services.restore(context, ada, ref)


async def test_an_address_that_two_nodes_have_needs_the_nodes_name(
    context: Context, lab: Lab, ada: Actor
):
    other = replace(lab.node, id="f" * 16, name="node2")
    async with context.db.write() as session:
        await nodes.add_node(session, other)
    await sign_in(context, lab, *CARDS)
    await sign_in(context, replace(lab, node=other), *CARDS)
    with pytest.raises(InvalidInputError, match="Several"):
        await services.restore(context, ada, "0000:3b:00.0")
    assert (await services.restore(context, ada, "node2/0000:3b:00.0")).node_name == "node2"


async def test_everyone_sees_what_there_is_and_only_their_own_processes(
    context: Context, lab: Lab, clock: Clock, alice: Actor, bob: Actor, ada: Actor
):
    world = World(context, lab, clock)
    connection = await sign_in(context, lab, *CARDS)
    key = (await ids(context))["0000:3b:00.0"]
    machine = await world.machine(alice, "box")
    lease_id, _ = await hold(context, lab, alice, key, instance_id=machine.id)
    made = Recorder(context, lab.node, connection)
    running = (process(await world.container(machine)), process(None, 7), process("hutch-x", 8))
    made.add([reading("0000:3b:00.0", 0.5, processes=running)], 2)
    await made.flush()
    shown = {who.name: await services.list_all(context, who) for who in (alice, bob, ada)}
    for seen in shown.values():
        [(held, told, holders), (free, nothing, nobody)] = seen
        assert (held.id, [each.id for each in holders]) == (key, [lease_id])
        assert told is not None
        assert told.utilisation == 0.5
        assert (free.found.address, nothing, nobody) == ("0000:5e:00.0", None, [])
    named = {
        name: [each.container for each in (seen[0][1] or reading()).processes]
        for name, seen in shown.items()
    }
    assert named == {"alice": ["box"], "bob": [], "ada": ["alice/box"]}


async def test_the_lab_where_everyone_may_use_every_accelerator_is_one_setting(
    context: Context, lab: Lab, alice: Actor
):
    await sign_in(with_settings(context, accelerator_sharers=8), lab, *CARDS)
    assert {each.sharers for each, _, _ in await services.list_all(context, alice)} == {8}
