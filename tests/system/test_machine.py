"""What a person does with a machine of their own: the real command, real ssh, real containers."""

import asyncio
import json
import time

import pytest
import pytest_asyncio

from tests.system.site import Person, Ran, Site, new_key

pytestmark = pytest.mark.incus

SOON = 5.0
"""Seconds within which a change of keys must have arrived in running machines."""


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    """A running machine of alice's."""
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    return "box"


async def until_ssh(person: Person, name: str, *, works: bool, **how: object) -> float:
    """Seconds until ssh is let in, or is refused."""
    begun = time.monotonic()
    instance = await person.show(name)
    while True:
        ran: Ran = await person.ssh(instance, "true", **how)  # pyright: ignore[reportArgumentType]
        if (ran.code == 0) is works:
            return time.monotonic() - begun
        assert time.monotonic() - begun < 4 * SOON, ran
        await asyncio.sleep(0.1)


async def test_ssh_leads_into_a_machine_with_ones_own_name_and_sudo(
    alice: Person, box: str
) -> None:
    instance = await alice.show(box)
    ran = await alice.ssh(instance, "whoami; hostname; sudo id -un; cat /proc/1/comm; nproc")
    assert ran.code == 0, ran
    assert ran.out.split()[:4] == ["alice", "box", "root", "systemd"]


async def test_the_command_finds_the_way_by_itself(alice: Person, box: str) -> None:
    assert (await alice.ok("ssh", box, "--", "whoami")).out == "alice\n"
    strange = "$HOME; echo two  spaces"
    assert (await alice.ok("ssh", box, "--", "printf", "%s", strange)).out == strange


async def test_exec_passes_input_output_exit_code_and_strange_arguments(
    alice: Person, box: str
) -> None:
    ran = await alice.hutch("exec", box, "--", "cat", stdin=b"x" * 100_000)
    assert (ran.code, len(ran.out)) == (0, 100_000)
    assert (await alice.hutch("exec", box, "--", "sh", "-c", "exit 7")).code == 7
    strange = "$(touch /tmp/pwned); `id` && rm -rf ~ | cat > /tmp/pwned #"
    ran = await alice.ok("exec", box, "--", "printf", "%s", strange)
    assert ran.out == strange
    assert (await alice.hutch("exec", box, "--", "ls", "/tmp/pwned")).code == 2
    assert (await alice.ok("exec", box, "--", "id", "-un")).out.strip() == "alice"


async def test_a_list_for_scripts_has_what_scripts_need(alice: Person, box: str) -> None:
    (listed,) = (await alice.ok("list", "--json")).json()
    assert listed["name"] == box
    assert listed["state"] == "running"
    assert (listed["node"], listed["image"]) == ("node1", "base")
    assert (listed["cpus"], listed["memory"], listed["disk"]) == (1, 512 * 2**20, 3 * 2**30)
    assert {"host", "port"} <= set(listed["ssh"])


async def test_keys_arrive_and_leave_within_seconds_and_others_are_never_touched(
    alice: Person, box: str
) -> None:
    instance = await alice.show(box)
    by_hand = await new_key(alice.home / "by_hand")
    public = (alice.home / "by_hand.pub").read_text()
    added = await alice.ssh(
        instance, f"umask 077; echo '{public.strip()}' >> ~/.ssh/authorized_keys"
    )
    assert added.code == 0

    second = await new_key(alice.home / "second")
    registered = (await alice.ok("key", "add", f"{second}.pub", "--json")).json()
    assert await until_ssh(alice, box, works=True, key=second) < SOON
    await alice.ok("key", "remove", registered["id"])
    assert await until_ssh(alice, box, works=False, key=second) < SOON

    assert (await alice.ssh(instance, "true", key=by_hand)).code == 0
    assert await alice.says(instance, "cat ~/.ssh/authorized_keys") == public


async def test_a_stopped_machine_gets_new_keys_when_it_starts(alice: Person, box: str) -> None:
    await alice.ok("stop", box)
    late = await new_key(alice.home / "late")
    await alice.ok("key", "add", f"{late}.pub")
    await alice.ok("start", box)
    assert (await alice.ssh(await alice.show(box), "true", key=late)).code == 0


async def test_limits_change_while_it_runs_and_are_shown_beside_what_is_used(
    alice: Person, box: str
) -> None:
    await alice.ok("set", box, "--memory", "768MiB")
    shown = (await alice.ok("show", box, "--json")).json()
    assert shown["memory"] == 768 * 2**20
    ran = await alice.ssh(shown, "free -b | awk '/Mem/ {print $2}'")
    assert int(ran.out) == 768 * 2**20
    text = (await alice.ok("show", box)).out
    assert "768MiB" in text
    assert " of " in text


async def test_a_snapshot_brings_files_back_and_leaves_a_way_back(alice: Person, box: str) -> None:
    instance = await alice.show(box)
    await alice.ssh(instance, "echo first > ~/note; sync")
    await alice.ok("snapshot", "create", box, "one")
    await alice.ssh(instance, "echo second > ~/note; sync")
    await alice.ok("snapshot", "restore", box, "one", "--yes")
    assert await alice.says(instance, "cat ~/note") == "first\n"
    names = [each["name"] for each in (await alice.ok("snapshot", "list", box, "--json")).json()]
    (way_back,) = [name for name in names if name.startswith("before-restore")]
    await alice.ok("snapshot", "restore", box, way_back, "--yes")
    assert await alice.says(instance, "cat ~/note") == "second\n"
    await alice.ok("snapshot", "delete", box, "one", "--yes")


async def test_rebuild_keeps_name_port_and_host_key_and_forgets_the_disk(
    alice: Person, box: str
) -> None:
    before = await alice.show(box)
    await alice.ssh(before, "touch ~/was-here")
    await alice.ok("rebuild", box, "--yes")
    after = await alice.show(box)
    assert after["ssh"] == before["ssh"]
    # The known_hosts line from before still fits: ssh would refuse otherwise.
    ran = await alice.ssh(before, "hostname; ls ~/was-here")
    assert ran.out == "box\n"
    assert "No such file" in ran.err


async def test_a_stop_by_hand_is_shown_not_fought_and_start_mends_it(
    site: Site, alice: Person, box: str
) -> None:
    (name,) = await site.engine_names()
    await site.incus_command("stop", "--force", name)
    async with asyncio.timeout(15):
        while (shown := await alice.show(box))["drift"] is None:
            await asyncio.sleep(0.1)
    assert shown["drift"]["code"] == "stopped_outside"
    assert shown["state"] == "stopped"
    assert "hutch start box" in (await alice.ok("show", box)).err
    # Several comparisons later it is still as the hand left it.
    await asyncio.sleep(3 * float(site.env["HUTCH_RECONCILE_SECONDS"]))
    (seen,) = await site.incus_list()
    assert seen["status"] == "Stopped"
    await alice.ok("start", box)
    assert await alice.reaches(box) == box
    assert (await alice.show(box))["drift"] is None


async def test_the_machine_does_not_notice_that_the_server_is_killed(
    site: Site, alice: Person, box: str
) -> None:
    instance = await alice.show(box)
    await site.kill()
    assert await alice.says(instance, "hostname") == "box\n"
    refused = await alice.hutch("list")
    assert refused.code == 7
    assert site.url in refused.err
    await site.start()
    assert (await alice.show(box))["ssh"] == instance["ssh"]


async def test_everything_that_ran_runs_again_after_the_node_comes_back(
    site: Site, alice: Person, box: str
) -> None:
    await alice.ok("create", "asleep", "--memory", "512MiB", "--disk", "3GiB")
    await alice.ok("stop", "asleep")
    before = await alice.show(box)
    await site.kill()
    await site.incus.reboot()
    await site.start()
    await until_ssh(alice, box, works=True)
    after = await alice.show(box)
    assert after["ssh"] == before["ssh"]
    assert after["drift"] is None
    assert await alice.reaches(box) == box
    assert (await alice.show("asleep"))["state"] == "stopped"
    await alice.ok("delete", "asleep", "--yes")


async def test_a_restart_of_incus_alone_is_survived(site: Site, alice: Person, box: str) -> None:
    await site.incus.kill()
    await site.incus.restart()
    await until_ssh(alice, box, works=True)
    await alice.ok("snapshot", "create", box, "after-restart")
    await alice.ok("snapshot", "delete", box, "after-restart", "--yes")


async def test_another_persons_machine_does_not_exist(site: Site, alice: Person, box: str) -> None:
    bob = await site.person("bob")
    instance = await alice.show(box)
    for words in (("show", instance["id"]), ("stop", instance["id"]), ("show", "alice/box")):
        ran = await bob.hutch(*words)
        assert ran.code in {3, 4}, (words, ran)
    assert (await bob.ok("list", "--json")).json() == []
    stranger = await bob.ssh(instance, "true")
    assert stranger.code == 255
    assert "Permission denied" in stranger.err, (
        stranger,
        await alice.ssh(instance, "sudo journalctl -n 50 --no-pager"),
    )


async def test_an_engine_that_is_down_is_said_and_waited_for(
    site: Site, alice: Person, box: str
) -> None:
    await site.incus.kill()
    async with asyncio.timeout(30):
        while (await alice.hutch("create", "no", "--no-wait", "--json")).code != 7:
            await alice.hutch("delete", "no", "--yes", "--no-wait")
            await asyncio.sleep(0.2)
    assert (await alice.ok("list", "--json")).code == 0, "looking needs no engine"
    begun = await alice.hutch("restart", box, "--no-wait", "--json")
    assert begun.code == 0, begun
    await site.incus.restart()
    await until_ssh(alice, box, works=True)
    assert json.loads(begun.out)


async def test_delete_asks_and_leaves_nothing_in_incus(site: Site, alice: Person, box: str) -> None:
    refused = await alice.hutch("delete", box)
    assert refused.code == 2, "without a terminal, and without --yes, nothing is deleted"
    async with asyncio.timeout(60):
        while (await alice.hutch("delete", box, "--yes")).code == 5:
            await asyncio.sleep(0.5)
        while (await alice.ok("list", "--json")).json():
            await asyncio.sleep(0.5)
    assert await site.engine_names() == set()


async def test_the_server_stops_gracefully(site: Site) -> None:
    assert await site.stop() == 0
    assert "Traceback" not in (site.folder / "server.log").read_text()
    await site.start()
