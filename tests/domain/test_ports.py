import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.ports import RESERVED_ADDRESSES, pick_address, pick_port
from hutch.errors import NoAddressLeftError, NoPortLeftError

ports = st.integers(20000, 20030)


@given(ports, ports, st.sets(ports))
def test_the_lowest_free_port_is_picked(first: int, last: int, taken: set[int]):
    free = [port for port in range(first, last + 1) if port not in taken]
    if free:
        assert pick_port(first, last, taken) == free[0]
        assert pick_port(first, last, list(taken)) == free[0]
    else:
        with pytest.raises(NoPortLeftError):
            pick_port(first, last, taken)


def test_a_range_is_used_up_to_its_last_port_and_no_further():
    taken: set[int] = set()
    for expected in range(20000, 20010):
        assert pick_port(20000, 20009, taken) == expected
        taken.add(expected)
    with pytest.raises(NoPortLeftError, match="20000 to 20009"):
        pick_port(20000, 20009, taken)


def test_ports_outside_the_range_do_not_matter():
    assert pick_port(20000, 20009, {1, 22, 19999, 20010}) == 20000


@given(st.integers(8, 32), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 300)))
def test_a_picked_address_is_free_and_an_instances_to_have(
    prefix: int, number: int, taken: set[int]
):
    network = ipaddress.IPv4Network((number, prefix), strict=False)
    base, end = int(network.network_address), int(network.broadcast_address)
    used = {str(ipaddress.IPv4Address(base + each)) for each in taken if base + each <= end}
    try:
        picked = pick_address(str(network), used)
    except NoAddressLeftError:
        candidates = range(base + RESERVED_ADDRESSES, end)
        assert all(str(ipaddress.IPv4Address(each)) in used for each in candidates)
        return
    address = ipaddress.IPv4Address(picked)
    assert picked not in used
    assert address in network
    assert address != network.broadcast_address
    assert int(address) - base >= RESERVED_ADDRESSES
    lower = range(base + RESERVED_ADDRESSES, int(address))
    assert all(str(ipaddress.IPv4Address(each)) in used for each in lower)


def test_two_thousand_fit_into_a_large_subnet_and_differ():
    taken: set[str] = set()
    for _ in range(2000):
        taken.add(pick_address("10.90.0.0/20", taken))
    assert len(taken) == 2000


@pytest.mark.parametrize("subnet", ["10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/32"])
def test_a_subnet_of_reserved_addresses_alone_has_none(subnet: str):
    with pytest.raises(NoAddressLeftError, match=subnet):
        pick_address(subnet, [])


def test_a_subnet_may_be_written_as_the_gateways_address():
    assert pick_address("10.0.0.1/24", []) == "10.0.0.10"
