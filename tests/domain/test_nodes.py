from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.limits import Limits
from hutch.domain.nodes import (
    Capacity,
    EngineKind,
    Node,
    NodeState,
    Overcommit,
    check_fits,
    has_room,
)
from hutch.domain.sizes import GiB
from hutch.errors import NodeTooSmallError

CAPACITY = Capacity(cpus=8, memory=32 * GiB, disk=500 * GiB)
NODE = Node(
    id="n1",
    name="gpu1",
    engine=EngineKind.SIMULATED,
    url="file:///var/lib/hutch/engine.db",
    project="hutch",
    pool="hutch",
    network="hutchbr0",
    subnet="10.90.0.1/20",
    address="192.0.2.1",
    state=NodeState.ACTIVE,
    capacity=CAPACITY,
    disk_used=0,
    version="6.0",
    boot_id="b1",
    seen_at=None,
    unreachable_since=None,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
ONE_TO_ONE = Overcommit(cpus=1, memory=1, disk=1)
WHOLE = Limits(cpus=8, memory=32 * GiB, disk=500 * GiB, processes=4096)
NONE = Capacity(cpus=0, memory=0, disk=0)


def test_an_instance_may_ask_for_the_whole_node():
    check_fits(NODE, WHOLE)


@pytest.mark.parametrize("resource", ["cpus", "memory", "disk"])
def test_more_than_the_node_has_is_refused_by_name(resource: str):
    with pytest.raises(NodeTooSmallError, match=f"(?i)that m.+ {resource} in all") as caught:
        check_fits(NODE, replace(WHOLE, **{resource: getattr(WHOLE, resource) + 1}))
    assert caught.value.detail["has"] == getattr(CAPACITY, resource)


def test_an_empty_node_has_room_for_one_as_large_as_itself_and_no_more():
    assert has_room(CAPACITY, NONE, WHOLE, ONE_TO_ONE)
    assert not has_room(CAPACITY, CAPACITY, replace(WHOLE, memory=0, disk=0, cpus=1), ONE_TO_ONE)


def test_each_resource_has_its_own_factor():
    twice = Overcommit(cpus=2, memory=1, disk=1)
    assert has_room(CAPACITY, replace(NONE, cpus=8), WHOLE, twice)
    assert not has_room(CAPACITY, replace(NONE, memory=1), WHOLE, twice)
    assert not has_room(CAPACITY, replace(NONE, cpus=9), WHOLE, twice)


amounts = st.integers(1, 12)
limits = st.builds(Limits, amounts, amounts, amounts, st.just(64))
factors = st.sampled_from([1, 1.5, 2, 4])


@given(st.lists(limits, max_size=30), st.builds(Overcommit, factors, factors, factors))
def test_filling_a_node_never_promises_more_than_it_may(asks: list[Limits], overcommit: Overcommit):
    capacity, promised = Capacity(20, 20, 20), NONE
    for each in asks:
        if has_room(capacity, promised, each, overcommit):
            promised = Capacity(
                promised.cpus + each.cpus,
                promised.memory + each.memory,
                promised.disk + each.disk,
            )
    for name in ("cpus", "memory", "disk"):
        assert getattr(promised, name) <= getattr(capacity, name) * getattr(overcommit, name)
