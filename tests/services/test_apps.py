"""Apps: who may open which, and where hutch reaches it."""

from dataclasses import replace

import pytest

from hutch.domain.apps import AppName
from hutch.domain.people import Actor, Scope
from hutch.domain.ports import LOOPBACK, Reach
from hutch.errors import NotFoundError, UntrustedAppError, WrongStateError
from hutch.services import apps, events, instances, ports, shares
from hutch.services.context import Context
from hutch.services.ports import Wish
from hutch.store import containers, nodes
from tests.lab import Lab, with_settings
from tests.operations.scenarios import run


@pytest.fixture
async def box(context: Context, alice: Actor) -> str:
    """A running instance of alice's, with an app at its port 8888; its id."""
    instance, _ = await instances.create(context, alice, instances.Wish("box"))
    await run(context)
    await ports.add(context, alice, "box", Wish(8888, name="jupyter"))
    await run(context)
    return instance.id


async def opens(context: Context, actor: Actor, ref: str = "box", port: int = 8888) -> bool:
    try:
        await apps.open_app(context, actor, AppName(ref, port, ""))
    except NotFoundError:
        return False
    return True


def elsewhere(lab: Lab) -> str:
    """The address of the lab's node as that of another machine, with the same engine."""
    return lab.node.url.replace("file://", "https://192.0.2.1:8443")


async def open_to(context: Context, alice: Actor, *whom: str) -> None:
    await ports.configure(context, alice, "box", "8888", open_to=whom)


async def test_the_owner_opens_it_and_nobody_else(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    assert await opens(context, alice)
    for ref in ("box", "box.alice", box):
        assert not await opens(context, bob, ref)


async def test_an_administrator_may_as_everything_else(
    context: Context, ada: Actor, box: str
) -> None:
    assert await opens(context, ada, "box.alice")


async def test_a_guest_opens_it_and_who_may_only_look_does_not(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await shares.add(context, alice, "box", "bob", read_only_view=True)
    assert not await opens(context, bob)
    await shares.add(context, alice, "box", "bob")
    assert await opens(context, bob)
    await shares.remove(context, alice, "box", "bob")
    assert not await opens(context, bob)


async def test_whom_it_is_open_to_opens_it_and_nothing_else(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await ports.add(context, alice, "box", Wish(9999))
    await run(context)
    await open_to(context, alice, "bob")
    assert await opens(context, bob, "box.alice")
    assert await opens(context, bob, box)
    assert not await opens(context, bob, box, 9999)
    with pytest.raises(NotFoundError):
        await instances.show(context, bob, box)
    await open_to(context, alice, "me")
    assert not await opens(context, bob, box)


async def test_everyone_means_everyone_who_is_signed_in(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await open_to(context, alice, "everyone")
    assert await opens(context, bob, box)


async def test_a_token_that_only_reads_opens_nothing(
    context: Context, alice: Actor, ada: Actor, box: str
) -> None:
    await open_to(context, alice, "everyone")
    for who in (alice, ada):
        assert not await opens(context, replace(who, scope=Scope.READ), box)
    assert await opens(context, replace(alice, scope=Scope.BROWSER))


@pytest.mark.parametrize("port", [22, 80, 8889])
async def test_a_port_that_was_not_added_is_none_and_neither_is_that_of_ssh(
    context: Context, alice: Actor, box: str, port: int
) -> None:
    assert not await opens(context, alice, port=port)


async def test_one_that_does_not_run_says_so_to_who_may_open_it_alone(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await instances.stop(context, alice, "box")
    await run(context)
    with pytest.raises(WrongStateError, match="box is stopped"):
        await opens(context, alice)
    assert not await opens(context, bob, box)


async def test_it_is_reached_directly_here_and_by_its_forward_elsewhere(
    context: Context, alice: Actor, lab: Lab, box: str
) -> None:
    async with context.db.read() as session:
        container = await containers.current(session, box)
    assert container is not None
    here = await apps.open_app(context, alice, AppName("box", 8888, ""))
    assert (here.host, here.host_port) == (container.address, 8888)
    async with context.db.write() as session:
        await nodes.update_node(session, lab.node.id, url=elsewhere(lab))
    there = await apps.open_app(context, alice, AppName("box", 8888, ""))
    assert (there.host, there.host_port) == ("192.0.2.1", context.settings.port_first)


async def test_a_local_port_is_reached_at_loopback_here_and_through_the_engine_elsewhere(
    context: Context, alice: Actor, lab: Lab, box: str
) -> None:
    await ports.add(context, alice, "box", Wish(9999, reach=Reach.NODE))
    await run(context)
    here = await apps.open_app(context, alice, AppName("box", 9999, ""))
    assert (here.host, here.host_port) == (LOOPBACK, context.settings.port_first + 1)
    async with context.db.write() as session:
        await nodes.update_node(session, lab.node.id, url=elsewhere(lab))
        node = await nodes.get_node(session, lab.node.id)
        container = await containers.current(session, box)
    assert node is not None
    assert container is not None
    there = await apps.open_app(context, alice, AppName("box", 9999, ""))
    assert (there.engine, there.container) == (context.engines.of(node), container.engine_name)
    assert (there.host, there.host_port) == (LOOPBACK, 9999)


async def test_one_for_the_browser_alone_is_reached_through_the_engine_everywhere(
    context: Context, alice: Actor, bob: Actor, lab: Lab, box: str
) -> None:
    await ports.add(context, alice, "box", Wish(9999, reach=Reach.WEB))
    await run(context)
    async with context.db.read() as session:
        container = await containers.current(session, box)
    assert container is not None
    for url in (lab.node.url, elsewhere(lab)):
        async with context.db.write() as session:
            await nodes.update_node(session, lab.node.id, url=url)
            node = await nodes.get_node(session, lab.node.id)
        assert node is not None
        found = await apps.open_app(context, alice, AppName("box", 9999, ""))
        assert (found.engine, found.container) == (context.engines.of(node), container.engine_name)
        assert (found.host, found.host_port) == (LOOPBACK, 9999)
        await apps.still_open(context, found)
    assert not await opens(context, bob, port=9999)


async def test_what_is_open_is_looked_at_again(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await open_to(context, alice, "bob")
    opening = await apps.open_app(context, bob, AppName(box, 8888, ""))
    await apps.still_open(context, opening)
    await open_to(context, alice, "me")
    with pytest.raises(NotFoundError):
        await apps.still_open(context, opening)


async def test_anothers_app_needs_trust_at_hutchs_own_address(
    context: Context, alice: Actor, bob: Actor, ada: Actor, box: str
) -> None:
    await open_to(context, alice, "everyone")
    name = AppName(box, 8888, "")
    with pytest.raises(UntrustedAppError) as caught:
        await apps.open_app(context, bob, name, only_trusted=True)
    assert caught.value.detail["owner"] == "alice"
    await apps.trust(context, bob, "alice")
    await apps.trust(context, bob, "alice")
    assert (await apps.open_app(context, bob, name, only_trusted=True)).actor is bob
    with pytest.raises(UntrustedAppError):
        await apps.open_app(context, ada, name, only_trusted=True)
    await apps.open_app(context, alice, name, only_trusted=True)
    assert len(await events.list_all(context, ada, action="app.trust")) == 2


async def test_one_lists_what_one_may_open_ones_own_first(
    context: Context, alice: Actor, bob: Actor, box: str
) -> None:
    await instances.create(context, bob, instances.Wish("own"))
    await run(context)
    await ports.add(context, bob, "own", Wish(80))
    await run(context)

    async def listed() -> list[str]:
        found = await apps.list_all(context, bob)
        return [apps.url_of(context.settings, bob, *each) for each in found]

    assert await listed() == ["/apps/own/80/"]
    await open_to(context, alice, "bob")
    assert await listed() == ["/apps/own/80/", "/apps/box.alice/8888/"]
    await open_to(context, alice, "me")
    await shares.add(context, alice, "box", "bob", read_only_view=True)
    assert await listed() == ["/apps/own/80/"]
    await shares.add(context, alice, "box", "bob")
    assert await listed() == ["/apps/own/80/", "/apps/box.alice/8888/"]


async def test_where_hutchs_address_is_known_an_app_is_told_with_it(
    context: Context, alice: Actor, box: str
) -> None:
    (found,) = await apps.list_all(context, alice)
    assert apps.url_of(context.settings, alice, *found) == "/apps/box/8888/"
    known = with_settings(context, public_url="https://hutch.example.org")
    url = apps.url_of(known.settings, alice, *found)
    assert url == "https://hutch.example.org/apps/box/8888/"


async def test_with_a_domain_each_app_has_a_host(context: Context, alice: Actor, box: str) -> None:
    [found] = await apps.list_all(context, alice)
    with_domain = with_settings(
        context, apps_domain="apps.example.org", public_url="https://hutch.example.org:8443"
    )
    url = apps.url_of(with_domain.settings, alice, *found)
    assert url == "https://8888-box.apps.example.org:8443/"
