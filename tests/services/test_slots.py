"""Nobody uses the server up with programs that run, or with waiting."""

import asyncio

import pytest

from hutch.domain.people import Actor
from hutch.errors import TooManyRequestsError
from hutch.services import instances, operations
from hutch.services.context import Context
from hutch.services.slots import Slots


def test_a_person_takes_their_share_and_the_rest_is_for_others() -> None:
    slots = Slots("things", each=2, all_=3)
    with slots.take("a"), slots.take("a"):
        with pytest.raises(TooManyRequestsError) as refused, slots.take("a"):
            pass
        assert refused.value.retry_after == 1
        with slots.take("b"), pytest.raises(TooManyRequestsError), slots.take("c"):
            pass
    with slots.take("a"), slots.take("b"), slots.take("c"):
        pass


async def test_a_place_is_free_again_after_an_error(context: Context, alice: Actor) -> None:
    for _ in range(20):
        with pytest.raises(Exception, match="no instance"):
            await instances.execute(context, alice, "nothing", ["true"])


async def test_waits_are_limited_for_each_person(
    context: Context, alice: Actor, bob: Actor
) -> None:
    _, mine = await instances.create(context, alice, instances.Wish("box"))
    _, his = await instances.create(context, bob, instances.Wish("box"))
    waiting = [
        asyncio.create_task(operations.wait(context, alice, mine.id, timeout=30)) for _ in range(32)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequestsError):
        await operations.wait(context, alice, mine.id, timeout=30)
    assert (await operations.wait(context, bob, his.id, timeout=0)).id == his.id
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
