"""Ports: which are granted, which are refused, and when they go."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.operations import OperationState
from hutch.domain.people import Actor
from hutch.domain.ports import OpenTo, PortState, Protocol, Reach
from hutch.engine.base import Forward
from hutch.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    HutchError,
    InvalidDurationError,
    InvalidInputError,
    InvalidLimitError,
    InvalidNameError,
    NameTakenError,
    NoPortLeftError,
    NotFoundError,
    PortTakenError,
    QuotaExceededError,
    WrongStateError,
)
from hutch.reconcilers.ports import Ports
from hutch.services import instances, listening, nodes, ports, shares
from hutch.services.context import Context
from hutch.services.listening import listening_ports
from hutch.services.ports import Wish
from hutch.store import containers
from hutch.store import nodes as node_rows
from tests.lab import Clock, Lab, with_settings
from tests.operations.scenarios import assert_whole, end, run

ADDRESS = "192.0.2.1"


@pytest.fixture
async def box(context: Context, alice: Actor) -> str:
    """A running instance of alice's; its id."""
    instance, _ = await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    return instance.id


async def opened(context: Context, actor: Actor, ref: str, target: int, **wish: Any) -> Any:
    """A port that is open."""
    _, port, operation = await ports.add(context, actor, ref, Wish(target, **wish))
    await run(context)
    assert (await end(context, operation)).state is OperationState.DONE
    return port


async def leading(context: Context, instance_id: str) -> set[Forward]:
    """The forwards that the engine has, but for that of SSH."""
    async with context.db.read() as session:
        container = await containers.current(session, instance_id)
        assert container is not None
        node = await node_rows.get_node(session, container.node_id)
    assert node is not None
    seen = await context.engines.of(node).get(container.engine_name)
    assert seen is not None
    return {each for each in seen.forwards if each.target_port != 22}


async def test_a_port_leads_from_the_nodes_address_to_the_instance(
    context: Context, alice: Actor, box: str
) -> None:
    port = await opened(context, alice, "box", 8888, name="jupyter")
    first = context.settings.port_first
    assert (port.host_port, port.name, port.reach) == (first, "jupyter", Reach.NETWORK)
    [forward] = await leading(context, box)
    assert forward == Forward(f"port-{port.id}", ADDRESS, first, 8888, "tcp")
    _, [listed] = await ports.list_all(context, alice, "box")
    assert listed == replace(port, state=PortState.OPEN)
    await assert_whole(context)


async def test_a_local_port_leads_from_the_nodes_loopback(
    context: Context, alice: Actor, box: str
) -> None:
    await opened(context, alice, "box", 8888, reach=Reach.NODE)
    [forward] = await leading(context, box)
    assert forward.listen_address == "127.0.0.1"


async def test_ports_for_the_browser_alone_take_no_number_and_lead_from_nowhere(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    few = with_settings(context, port_last=context.settings.port_first)
    first, second = [await opened(few, alice, "box", each, reach=Reach.WEB) for each in (80, 81)]
    taker = await opened(few, alice, "box", 8888)
    assert (first.host_port, second.host_port) == (None, None)
    [forward] = await leading(context, box)
    assert forward.name == f"port-{taker.id}"
    _, listed = await ports.list_all(context, alice, "box")
    assert [(each.target_port, each.state) for each in listed] == [
        (8888, PortState.OPEN), (80, PortState.OPEN), (81, PortState.OPEN),
    ]  # fmt: skip
    await instances.restart(context, alice, "box")
    await run(context)
    assert [each.target_port for each in await leading(context, box)] == [8888]
    with pytest.raises(ConflictError, match="leads to tcp port 80 of box already"):
        await ports.add(context, alice, "box", Wish(80))
    await ports.remove(context, alice, "box", "80")
    await run(context)
    _, listed = await ports.list_all(context, alice, "box")
    assert [each.target_port for each in listed] == [8888, 81]
    await assert_whole(context)


@pytest.mark.parametrize("wish", [{"protocol": Protocol.UDP}, {"host_port": 30000}])
async def test_a_port_for_the_browser_alone_is_tcp_and_has_no_host_port(
    context: Context, alice: Actor, box: str, wish: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match="for the browser alone"):
        await ports.add(context, alice, "box", Wish(80, reach=Reach.WEB, **wish))
    assert (await ports.list_all(context, alice, "box"))[1] == []


async def test_tcp_and_udp_have_numbers_of_their_own(
    context: Context, alice: Actor, box: str
) -> None:
    tcp = await opened(context, alice, "box", 53)
    udp = await opened(context, alice, "box", 53, protocol=Protocol.UDP)
    assert tcp.host_port == udp.host_port
    assert {each.protocol for each in await leading(context, box)} == {"tcp", "udp"}
    with pytest.raises(ConflictError, match="both"):
        await ports.remove(context, alice, "box", "53")
    await ports.remove(context, alice, "box", "53/udp")
    await run(context)
    assert {each.protocol for each in await leading(context, box)} == {"tcp"}


async def test_a_removed_port_leads_nowhere_and_is_free_again(
    context: Context, alice: Actor, box: str
) -> None:
    port = await opened(context, alice, "box", 8888, name="jupyter")
    await ports.remove(context, alice, "box", "jupyter")
    _, [closing] = await ports.list_all(context, alice, "box")
    assert closing.state is PortState.CLOSING
    await run(context)
    assert await leading(context, box) == set()
    assert await ports.list_all(context, alice, "box") == (
        await instances.show(context, alice, box), [],
    )  # fmt: skip
    again = await opened(context, alice, "box", 9999)
    assert again.host_port == port.host_port


@pytest.mark.parametrize("change", ["restart", "rebuild", "stop and start", "another address"])
async def test_a_port_is_kept(
    context: Context, alice: Actor, ada: Actor, box: str, change: str
) -> None:
    port = await opened(context, alice, "box", 8888)
    local = await opened(context, alice, "box", 9999, reach=Reach.NODE)
    address = ADDRESS
    match change:
        case "restart":
            await instances.restart(context, alice, "box")
        case "rebuild":
            await instances.rebuild(context, alice, "box")
        case "stop and start":
            await instances.stop(context, alice, "box")
            await run(context)
            await instances.start(context, alice, "box")
        case _:
            address = "192.0.2.77"
            await nodes.set_address(context, ada, "node1", address)
    await run(context)
    assert await leading(context, box) == {
        Forward(f"port-{port.id}", address, port.host_port, 8888),
        Forward(f"port-{local.id}", "127.0.0.1", local.host_port, 9999),
    }


async def test_a_port_of_ones_choice_is_given_when_it_is_free(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    wanted = context.settings.port_first + 7
    assert (await opened(context, alice, "box", 80, host_port=wanted)).host_port == wanted
    await instances.create(context, bob, instances.Wish("other"))
    await run(context)
    with pytest.raises(PortTakenError):
        await ports.add(context, bob, "other", Wish(80, host_port=wanted))


@pytest.mark.parametrize("host_port", [-1, 0, 1, 22, 80, 7480, 22000, 29999, 32768, 65536, 10**9])
async def test_a_port_outside_the_range_is_refused(
    context: Context, alice: Actor, box: str, host_port: int
) -> None:
    with pytest.raises(InvalidLimitError) as caught:
        await ports.add(context, alice, "box", Wish(80, host_port=host_port))
    assert "30000 to 32767" in caught.value.hint


@pytest.mark.parametrize("target", [-1, 0, 65536, 10**9])
async def test_a_port_that_no_instance_has_is_refused(
    context: Context, alice: Actor, box: str, target: int
) -> None:
    with pytest.raises(InvalidLimitError):
        await ports.add(context, alice, "box", Wish(target))


async def test_what_the_node_itself_listens_at_is_never_given(
    context: Context, alice: Actor, box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = context.settings.port_first
    heard: list[str] = []

    def listens(_node: object, protocol: str = "tcp") -> frozenset[int]:
        heard.append(protocol)
        return frozenset({first, first + 1})

    monkeypatch.setattr(ports, "listening_ports", listens)
    assert (await opened(context, alice, "box", 80)).host_port == first + 2
    with pytest.raises(PortTakenError):
        await ports.add(context, alice, "box", Wish(81, host_port=first + 1))
    await opened(context, alice, "box", 53, protocol=Protocol.UDP)
    assert heard == ["tcp", "tcp", "udp"]


def test_sockets_that_wait_for_anyone_are_found_in_both_tables(tmp_path: Path, lab: Lab) -> None:
    node = replace(lab.node, url="unix:///var/lib/incus/unix.socket")
    head = "  sl  local_address rem_address   st\n"
    (tmp_path / "tcp").write_text(
        f"{head}   0: 0100007F:1F90 00000000:0000 0A\n   1: 0100007F:0016 0200007F:9999 01\n"
    )
    (tmp_path / "udp").write_text(f"{head}   0: 00000000:0035 00000000:0000 07\n")
    (tmp_path / "udp6").write_text(f"{head}   0: {'0' * 32}:14E9 {'0' * 32}:0000 07\n")
    assert listening_ports(node, "tcp", tables=tmp_path) == {8080}
    assert listening_ports(node, "udp", tables=tmp_path) == {53, 5353}
    assert listening_ports(lab.node, "udp", tables=tmp_path) == frozenset()


def test_a_real_socket_is_found(lab: Lab) -> None:
    import socket

    node = replace(lab.node, url="unix:///var/lib/incus/unix.socket")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert bound.getsockname()[1] in listening.listening_ports(node, "udp")


async def test_the_range_has_an_end(context: Context, alice: Actor, box: str) -> None:
    small = with_settings(context, port_first=31000, port_last=31001)
    assert (await opened(small, alice, "box", 80)).host_port == 31000
    assert (await opened(small, alice, "box", 81)).host_port == 31001
    with pytest.raises(NoPortLeftError):
        await ports.add(small, alice, "box", Wish(82))


async def test_the_quota_counts_the_ports_of_all_ones_instances(
    context: Context, alice: Actor, box: str
) -> None:
    small = with_settings(context, quota_ports=2)
    await instances.create(context, alice, instances.Wish("other"))
    await run(context)
    await opened(small, alice, "box", 80)
    await opened(small, alice, "other", 80)
    with pytest.raises(QuotaExceededError, match="quota of ports: 2 allowed, 2 held"):
        await ports.add(small, alice, "box", Wish(81))
    await ports.remove(small, alice, "other", "80")
    await run(context)
    await opened(small, alice, "box", 81)


async def test_two_at_once_never_exceed_the_quota_nor_share_a_port(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    small = with_settings(context, quota_ports=2)
    for name in ("b1", "b2", "b3"):
        await instances.create(context, alice, instances.Wish(name))
    await run(context)

    async def one(ref: str) -> int | None:
        try:
            return (await ports.add(small, alice, ref, Wish(80)))[1].host_port
        except HutchError:
            return None

    given_ports = await asyncio.gather(*(one(ref) for ref in ("box", "b1", "b2", "b3")))
    granted = [port for port in given_ports if port is not None]
    assert len(granted) == len(set(granted)) == 2


async def test_the_same_port_inside_is_led_to_once(
    context: Context, alice: Actor, box: str
) -> None:
    await opened(context, alice, "box", 8888)
    with pytest.raises(ConflictError, match="already"):
        await ports.add(context, alice, "box", Wish(8888))
    with pytest.raises(ConflictError, match="already"):
        await ports.add(context, alice, "box", Wish(22))
    with pytest.raises(ConflictError, match="box's SSH server already"):
        await ports.add(context, alice, "box", Wish(22, reach=Reach.WEB))


async def test_names_are_checked_and_given(context: Context, alice: Actor, box: str) -> None:
    assert (await opened(context, alice, "box", 80)).name == "tcp-80"
    for name in ("", "Web", "a b", "a/b", "-a", "8888", "a" * 33, "$(id)", "web\n"):
        with pytest.raises(InvalidNameError):
            await ports.add(context, alice, "box", Wish(81, name=name))
    for name in ("tcp-80", "ssh"):
        with pytest.raises(NameTakenError):
            await ports.add(context, alice, "box", Wish(81, name=name))
    await opened(context, alice, "box", 81, name="tcp-82")
    assert (await opened(context, alice, "box", 82)).name == "tcp-82-2"


async def test_the_port_of_ssh_is_not_a_persons_to_remove(
    context: Context, alice: Actor, box: str
) -> None:
    for which in ("ssh", "22"):
        with pytest.raises(NotFoundError):
            await ports.remove(context, alice, "box", which)
        with pytest.raises(NotFoundError):
            await ports.configure(context, alice, "box", which, span="1h")


async def test_a_port_goes_when_its_time_has_come(
    context: Context, alice: Actor, clock: Clock, box: str
) -> None:
    at = clock.stop()
    port = await opened(context, alice, "box", 8888, span="8h")
    assert port.until == at + timedelta(hours=8)
    ending = Ports(context)
    assert await ending.reconcile() == timedelta(hours=8).total_seconds()
    clock.forward(hours=8, seconds=-1)
    assert await ending.reconcile() == 1.0
    await run(context)
    assert len(await leading(context, box)) == 1
    clock.forward(seconds=1)
    assert await ending.reconcile() is None
    await run(context)
    assert await leading(context, box) == set()
    assert (await ports.list_all(context, alice, "box"))[1] == []


async def test_the_end_waits_for_what_is_being_done_and_comes_soon_after(
    context: Context, alice: Actor, clock: Clock, box: str
) -> None:
    clock.stop()
    await opened(context, alice, "box", 8888, span="1h")
    await instances.restart(context, alice, "box")
    clock.forward(hours=1)
    assert await Ports(context).reconcile() == 1.0
    await run(context)
    await Ports(context).reconcile()
    await run(context)
    assert await leading(context, box) == set()


async def test_the_end_can_be_put_off(
    context: Context, alice: Actor, clock: Clock, box: str
) -> None:
    at = clock.stop()
    await opened(context, alice, "box", 8888, span="1h")
    clock.forward(minutes=50)
    await ports.configure(context, alice, "box", "8888", span="1h")
    clock.forward(minutes=50)
    await Ports(context).reconcile()
    await run(context)
    _, [port] = await ports.list_all(context, alice, "box")
    assert port.until == at + timedelta(minutes=110)
    for never in ("0h", "soon", "-1h", "99999999d"):
        with pytest.raises(InvalidDurationError):
            await ports.configure(context, alice, "box", "8888", span=never)


@pytest.mark.parametrize(
    ("whom", "open_to", "people"),
    [
        (["me"], OpenTo.OWNER, ()),
        (["everyone"], OpenTo.EVERYONE, ()),
        (["bob", "ada"], OpenTo.PEOPLE, ("ada", "bob")),
        (["bob", "alice"], OpenTo.PEOPLE, ("bob",)),
    ],
)
async def test_a_port_is_open_to_whom_its_owner_says(
    context: Context, alice: Actor, box: str, whom: list[str], open_to: OpenTo, people: tuple[str]
) -> None:
    port = await opened(context, alice, "box", 8888, open_to=whom)
    assert (port.open_to, port.people) == (open_to, people)
    _, changed = await ports.configure(context, alice, "box", "8888", open_to=["me"])
    assert (changed.open_to, changed.people) == (OpenTo.OWNER, ())
    _, changed = await ports.configure(context, alice, "box", "8888", open_to=whom)
    _, [listed] = await ports.list_all(context, alice, "box")
    assert (listed.open_to, listed.people) == (open_to, people)


@pytest.mark.parametrize("whom", [[], ["me", "everyone"], ["me", "bob"]])
async def test_a_port_is_not_open_to_several_things_at_once(
    context: Context, alice: Actor, box: str, whom: list[str]
) -> None:
    with pytest.raises(InvalidInputError):
        await ports.add(context, alice, "box", Wish(8888, open_to=whom))
    assert (await ports.list_all(context, alice, "box"))[1] == []


async def test_a_port_is_not_open_to_nobody(context: Context, alice: Actor, box: str) -> None:
    with pytest.raises(NotFoundError):
        await ports.add(context, alice, "box", Wish(8888, open_to=["nobody"]))
    assert (await ports.list_all(context, alice, "box"))[1] == []


async def test_another_persons_instance_does_not_exist_and_a_guest_only_looks(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await opened(context, alice, "box", 8888)
    for ref in (box, "box", "alice/box"):
        with pytest.raises(NotFoundError):
            await ports.add(context, bob, ref, Wish(80))
        with pytest.raises(NotFoundError):
            await ports.list_all(context, bob, ref)
        with pytest.raises(NotFoundError):
            await ports.remove(context, bob, ref, "8888")
    assert await ports.list_own(context, bob) == []
    await shares.add(context, alice, "box", "bob")
    assert [port.target_port for _, port in await ports.list_own(context, bob)] == [8888]
    with pytest.raises(ForbiddenError):
        await ports.add(context, bob, "box", Wish(80))
    with pytest.raises(ForbiddenError):
        await ports.remove(context, bob, "box", "8888")


async def test_an_instance_that_is_busy_or_moving_is_waited_for(
    context: Context, alice: Actor, box: str
) -> None:
    await instances.restart(context, alice, "box")
    with pytest.raises(WrongStateError):
        await ports.add(context, alice, "box", Wish(80))
    await run(context)
    await ports.add(context, alice, "box", Wish(80))
    with pytest.raises(BusyError):
        await ports.add(context, alice, "box", Wish(81))
    _, [only] = await ports.list_all(context, alice, "box")
    assert only.target_port == 80


async def test_a_port_that_the_engine_refuses_is_given_back(
    context: Context, alice: Actor, lab: Lab, box: str
) -> None:
    engine = context.engines.of(lab.node)
    engine.faults.fail("set_forward")  # type: ignore[attr-defined]
    _, port, operation = await ports.add(context, alice, "box", Wish(8888))
    await run(context)
    assert (await end(context, operation)).state is OperationState.FAILED
    assert (await ports.list_all(context, alice, "box"))[1] == []
    assert (await opened(context, alice, "box", 8888)).host_port == port.host_port


async def test_a_start_mends_what_was_changed_by_hand(
    context: Context, alice: Actor, lab: Lab, box: str
) -> None:
    port = await opened(context, alice, "box", 8888)
    [kept] = await leading(context, box)
    async with context.db.read() as session:
        container = await containers.current(session, box)
    assert container is not None
    engine = context.engines.of(lab.node)
    await engine.remove_forward(container.engine_name, kept.name)
    await engine.set_forward(
        container.engine_name, Forward("left-over", ADDRESS, port.host_port, 80)
    )
    await instances.stop(context, alice, "box")
    await run(context)
    await instances.start(context, alice, "box")
    await run(context)
    assert await leading(context, box) == {kept}


async def test_ports_go_with_the_instance(context: Context, alice: Actor, box: str) -> None:
    port = await opened(context, alice, "box", 8888)
    await instances.delete(context, alice, "box")
    await run(context)
    await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    assert (await opened(context, alice, "box", 8888)).host_port == port.host_port


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(Protocol)), max_size=12))
def test_whatever_is_asked_for_no_two_get_the_same(wishes: list[tuple[int, Protocol]]) -> None:
    """The rule of allocation alone: of a choice, and of none."""
    from hutch.domain.ports import claim_port, pick_port

    taken: dict[Protocol, set[int]] = {each: set() for each in Protocol}
    for wanted, protocol in wishes:
        mine = taken[protocol]
        try:
            if wanted:
                port = claim_port(30000 + wanted, 30000, 30003, mine)
            else:
                port = pick_port(30000, 30003, mine)
        except (PortTakenError, InvalidLimitError, NoPortLeftError):
            assert wanted == 4 or 30000 + wanted in mine or len(mine) == 4
            continue
        assert 30000 <= port <= 30003
        assert port not in mine
        mine.add(port)
