"""Work for all who ask together: never twice at once, and always begun after the last who asked."""

import asyncio

import pytest

from hutch.services.rounds import Rounds


class Work:
    """Rounds that last until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.gates = [asyncio.Event() for _ in range(5)]

    async def __call__(self) -> None:
        gate = self.gates[self.begun]
        self.begun += 1
        self.at_once += 1
        assert self.at_once == 1
        await gate.wait()
        self.at_once -= 1


async def _others() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_before_it_begins_shares_a_round() -> None:
    rounds, work = Rounds(), Work()
    asked = [rounds.ask(work) for _ in range(20)]
    work.gates[0].set()
    await asyncio.gather(*asked)
    assert work.begun == 1


async def test_many_who_ask_while_one_runs_get_one_more_that_begins_after_it() -> None:
    rounds, work = Rounds(), Work()
    first = rounds.ask(work)
    await _others()
    later = [rounds.ask(work) for _ in range(20)]
    await _others()
    assert (work.begun, first.done()) == (1, False)
    work.gates[0].set()
    await first
    await _others()
    assert work.begun == 2
    assert not any(each.done() for each in later)
    work.gates[1].set()
    await asyncio.gather(*later)
    assert work.begun == 2


async def test_a_round_goes_on_when_who_asked_is_gone() -> None:
    rounds, work = Rounds(), Work()
    asked = rounds.ask(work)
    await _others()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    again = rounds.ask(work)
    for gate in work.gates:
        gate.set()
    await again
    assert work.begun == 2
