"""A colleague comes in with a key of their own, over real ssh, and is out again at once."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.system.site import Person, Site, new_key

pytestmark = pytest.mark.incus

SOON = 5.0
"""Seconds within which a change must have arrived in a running machine."""


@pytest_asyncio.fixture(scope="module")
async def bob(site: Site) -> Person:
    return await site.person("bob")


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    """A running machine of alice's."""
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    return "box"


async def until_let_in(alice: Person, bob: Person, *, works: bool) -> float:
    """Seconds until bob's key opens the machine, or no longer does."""
    instance = await alice.show("box")
    begun = time.monotonic()
    while True:
        ran = await bob.ssh(instance, "whoami")
        if (ran.code == 0) is works:
            assert ran.out == ("alice\n" if works else "")
            return time.monotonic() - begun
        assert time.monotonic() - begun < 4 * SOON, ran
        await asyncio.sleep(0.1)


async def test_a_colleague_is_in_at_once_and_out_at_once(
    alice: Person, bob: Person, box: str
) -> None:
    await until_let_in(alice, bob, works=False)
    await alice.ok("share", box, "bob")
    assert await until_let_in(alice, bob, works=True) < SOON
    assert (await bob.ok("ssh", "alice/box", "--", "hostname")).out == "box\n"
    assert (await bob.ok("exec", box, "--", "id", "-un")).out == "alice\n"
    await alice.ok("unshare", box, "bob")
    assert await until_let_in(alice, bob, works=False) < SOON
    assert (await bob.hutch("show", box)).code == 3


async def test_a_key_that_is_removed_and_a_person_who_is_shut_out_are_out(
    site: Site, alice: Person, bob: Person, box: str
) -> None:
    ada = await site.person("ada", key=False)
    await alice.ok("share", box, "bob")
    await until_let_in(alice, bob, works=True)
    second = await new_key(bob.home / "second")
    added = (await bob.ok("key", "add", f"{second}.pub", "--json")).json()
    instance = await alice.show(box)
    async with asyncio.timeout(SOON):
        while (await bob.ssh(instance, "true", key=second)).code != 0:
            await asyncio.sleep(0.1)
    await bob.ok("key", "remove", added["id"])
    async with asyncio.timeout(SOON):
        while (await bob.ssh(instance, "true", key=second)).code == 0:
            await asyncio.sleep(0.1)
    await ada.ok("user", "disable", "bob", "--yes")
    assert await until_let_in(alice, bob, works=False) < SOON
    await ada.ok("user", "enable", "bob")
    assert await until_let_in(alice, bob, works=True) < SOON
    await bob.ok("login", "--url", site.url, "bob", "--password-stdin",
                 stdin=site.passwords["bob"].encode())  # fmt: skip


async def test_a_share_ends_by_itself_when_its_time_has_come(
    alice: Person, bob: Person, box: str
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=4)
    await alice.ok("share", box, "bob", "--until", end.isoformat())
    await until_let_in(alice, bob, works=True)
    await until_let_in(alice, bob, works=False)
    late = (datetime.now(UTC) - end).total_seconds()
    assert -0.2 < late < SOON
    assert "shared with" not in (await alice.ok("show", box)).out
