"""The bridge's network never overlaps one that is in use."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.setup.subnets import BLOCKS, NoFreeSubnetError, choose_subnet, gateway


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network:
    """A network somewhere in or around the private ranges."""
    block = draw(st.sampled_from([*BLOCKS, IPv4Network("0.0.0.0/0")]))
    offset = draw(st.integers(0, block.num_addresses - 1))
    prefix = draw(st.integers(max(block.prefixlen, 9), 32))
    return IPv4Network((int(block.network_address) + offset, prefix), strict=False)


@given(st.sets(networks(), max_size=40), st.sets(networks(), max_size=3), st.integers(16, 28))
def test_the_chosen_network_is_private_and_free(
    used: set[IPv4Network], uplinks: set[IPv4Network], prefix: int
):
    try:
        chosen = choose_subnet(used, uplinks, prefix)
    except NoFreeSubnetError:
        assert all(any(part.overlaps(net) for net in used) for block in BLOCKS for part in [block])
        return
    assert chosen.prefixlen == prefix
    assert any(chosen.subnet_of(block) for block in BLOCKS)
    assert not any(chosen.overlaps(network) for network in used)


def test_the_default_is_large_enough_for_two_thousand_instances():
    assert choose_subnet([]).num_addresses - 3 >= 2000


def test_a_default_route_does_not_use_up_everything():
    assert choose_subnet([IPv4Network("0.0.0.0/0")])


def test_the_block_of_the_institute_is_avoided_while_another_is_free():
    chosen = choose_subnet([], [IPv4Network("10.3.4.0/24")])
    assert not chosen.subnet_of(BLOCKS[0])


def test_a_block_that_is_routed_elsewhere_as_a_whole_is_left_alone():
    chosen = choose_subnet([BLOCKS[0], BLOCKS[1]])
    assert chosen.subnet_of(BLOCKS[2])


def test_everything_in_use_is_said():
    with pytest.raises(NoFreeSubnetError):
        choose_subnet(BLOCKS)


def test_the_gateway_is_the_first_address():
    assert gateway(IPv4Network("10.1.16.0/20")) == IPv4Address("10.1.16.1")
