"""What is true of every plan, whatever happens in the lab (`truths.py`), and of its parts."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from hutch.domain.leases import LeaseState
from hutch.domain.reclaim import Offer, Standing, choose
from hutch.domain.scheduler import Request
from tests.domain.lab_machine import MINUTE, LabMachine
from tests.domain.situations import NOW
from tests.soak import soak

some = st.integers(0, 999)
minutes = st.sampled_from([5, 20, 60, 90, 240, 600, 3000])


class LivingLab(RuleBasedStateMachine):
    """Hypothesis chooses what happens. Every plan is checked by the lab itself."""

    @initialize(protection=st.sampled_from([0, 5, 60]), warning=st.sampled_from([0, 1, 10]))
    def open(self, protection: int, warning: int) -> None:
        self.lab = LabMachine.open(protection=protection, warning=warning)

    @rule(person=some, node=some, count=st.integers(1, 4), model=some, length=minutes, box=some)
    def ask(self, person: int, node: int, count: int, model: int, length: int, box: int) -> None:
        self.lab.ask(person, node, count, model, length, box % 2)

    @rule(person=some, node=some, count=st.integers(1, 4), length=minutes)
    def ask_once_more(self, person: int, node: int, count: int, length: int) -> None:
        self.lab.ask(person, node, count, 0, length, 0)

    @rule(choice=some)
    def release(self, choice: int) -> None:
        self.lab.release(choice)

    @rule(choice=some, length=minutes)
    def extend(self, choice: int, length: int) -> None:
        self.lab.extend(choice, length)

    @rule(choice=some)
    def stop(self, choice: int) -> None:
        self.lab.stop(choice)

    @rule(choice=some)
    def start(self, choice: int) -> None:
        self.lab.start(choice)

    @rule(choice=some)
    def arrive(self, choice: int) -> None:
        self.lab.arrive(choice)

    @rule(choice=some)
    def fail_to_arrive(self, choice: int) -> None:
        self.lab.fail_to_arrive(choice)

    @rule(choice=some)
    def have_left(self, choice: int) -> None:
        self.lab.have_left(choice)

    @rule(choice=some)
    def deliver(self, choice: int) -> None:
        self.lab.deliver(choice)

    @rule(length=st.sampled_from([0, 1, 5, 15, 61, -1, -7, -90]))
    def pass_time(self, length: int) -> None:
        self.lab.pass_time(length)

    @rule()
    def wait_for_the_next_moment(self) -> None:
        self.lab.wait_for_the_next_moment()

    @rule(choice=some)
    def spoil(self, choice: int) -> None:
        self.lab.spoil(choice)

    @rule(choice=some)
    def mend(self, choice: int) -> None:
        self.lab.mend(choice)

    @rule(choice=some, is_there=st.booleans())
    def lose_or_find_a_node(self, choice: int, is_there: bool) -> None:
        self.lab.lose_or_find_a_node(choice, is_there)

    @rule(choice=some, sharers=st.integers(1, 3))
    def share(self, choice: int, sharers: int) -> None:
        self.lab.share(choice, sharers)

    @rule(person=some, maximum=st.sampled_from([0, 2, 6, 12]))
    def set_maximum(self, person: int, maximum: int) -> None:
        self.lab.set_maximum(person, maximum)

    @rule(
        choice=some,
        guarantee=st.integers(0, 6),
        limit=st.sampled_from([None, 2, 4, 8]),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
    )
    def set_group(self, choice: int, guarantee: int, limit: int | None, weight: float) -> None:
        self.lab.set_group(choice, guarantee, limit, weight)

    @rule(person=some, group=some)
    def move(self, person: int, group: int) -> None:
        self.lab.move(person, group)

    @rule(choice=some, hours=st.integers(0, 100))
    def count_usage(self, choice: int, hours: int) -> None:
        self.lab.count_usage(choice, hours)

    def teardown(self) -> None:
        if hasattr(self, "lab"):
            self.lab.besiege()
            self.lab.run_dry()


@pytest.mark.timeout(600)
def test_whatever_happens_every_plan_is_right() -> None:
    run_state_machine_as_test(
        LivingLab,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)
def test_a_lab_lives_for_some_thousand_operations() -> None:
    said = soak(8_000, seed=7)
    happened = {what for what, count in said.items() if count}
    # A life in which one of these never came up would prove nothing about it.
    assert happened >= {"grants", "expired", "warn", "reclaim", "pardon"}
    for kind in ("devices", "turn", "reclaim", "guarantee", "person", "group", "instance"):
        assert f"wait: {kind}" in happened


# -- who makes room --------------------------------------------------------------------------------


def borrower(number: int, granted: int) -> Request:
    return Request(
        id=f"lease-{number}",
        instance_id=f"box-{number}",
        owner_id="zoe",
        group_id=None,
        node_id="alpha",
        count=1,
        model=None,
        duration=MINUTE,
        state=LeaseState.ACTIVE,
        requested_at=NOW,
        granted_at=NOW + granted * MINUTE,
    )


@st.composite
def offers_of_exclusive_devices(draw: st.DrawFn) -> tuple[int, list[Offer]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    names = (f"gpu-{number}" for number in itertools.count())
    offers = [
        Offer(
            borrower(number, draw(st.integers(0, 5))),
            draw(st.sampled_from(Standing)),
            frozenset(itertools.islice(names, size)),
        )
        for number, size in enumerate(sizes)
    ]
    return draw(st.integers(1, sum(sizes))), draw(st.permutations(offers))


@given(offers_of_exclusive_devices())
def test_who_makes_room_suffices_and_nobody_does_in_vain(case: tuple[int, list[Offer]]) -> None:
    need, offers = case
    chosen = choose(need, offers)
    assert sum(len(each.devices) for each in chosen) >= need
    for each in chosen:
        assert sum(len(other.devices) for other in chosen if other is not each) < need
    assert choose(need, offers[::-1]) == chosen


@given(offers_of_exclusive_devices())
def test_the_fewest_that_suffice_make_room(case: tuple[int, list[Offer]]) -> None:
    need, offers = case
    offers = [Offer(each.request, Standing.UNTOLD, each.devices) for each in offers]
    chosen = choose(need, offers)
    fewest = next(
        count
        for count in itertools.count(1)
        if any(
            sum(len(each.devices) for each in some) >= need
            for some in itertools.combinations(offers, count)
        )
    )
    assert len(chosen) == fewest
    # Of those that would have done in place of the last one chosen, it was granted last.
    *before, last = chosen
    missing = need - sum(len(each.devices) for each in before)
    for each in offers:
        if each not in before and len(each.devices) >= missing:
            assert each.request.granted_at <= last.request.granted_at


@given(offers_of_exclusive_devices())
def test_nobody_else_is_told_while_those_who_were_told_suffice(
    case: tuple[int, list[Offer]],
) -> None:
    need, offers = case
    chosen = choose(need, offers)
    for standing in Standing:
        before = [each for each in offers if each.standing < standing]
        if sum(len(each.devices) for each in before) >= need:
            assert all(each.standing < standing for each in chosen)


def test_of_shared_devices_one_share_is_enough() -> None:
    both = frozenset({"gpu-0"})
    offers = [
        Offer(borrower(0, 1), Standing.UNTOLD, both),
        Offer(borrower(1, 2), Standing.UNTOLD, both),
        Offer(borrower(2, 0), Standing.UNTOLD, frozenset({"gpu-1"})),
    ]
    assert [each.request.id for each in choose(2, offers)] == ["lease-1", "lease-2"]
