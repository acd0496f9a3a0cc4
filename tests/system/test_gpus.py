"""Accelerators on real Incus: in within the wait, out with what uses them, and never two holders.

Everything is seen from inside by ssh, and past hutch in Incus and in the processes of the node.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncssh
import pytest
import pytest_asyncio

from hutch.setup.private import PrivateIncus
from hutch.store import leases as lease_rows
from tests.system.lending import GPUS, Box, Lending, lending_at, until
from tests.system.site import open_site

pytestmark = [pytest.mark.incus, pytest.mark.timeout(600)]

QUICK = {"window_minutes": 0.05, "threshold_percent": 5, "warning_minutes": 0.05}
"""A policy of idleness that a test can wait for."""


@pytest_asyncio.fixture(scope="module")
async def lending(
    incus: PrivateIncus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lending]:
    folder = tmp_path_factory.mktemp("lending")
    async with (
        open_site(
            incus, folder, f"sqlite:///{folder / 'hutch.db'}",
            sample_seconds="0.5", release_grace_seconds="3", quota_accelerators=str(GPUS),
        ) as site,
        lending_at(site) as made,
    ):  # fmt: skip
        yield made


@pytest_asyncio.fixture(scope="module")
async def box(lending: Lending) -> Box:
    return await lending.box("alice", "box")


@pytest_asyncio.fixture(scope="module")
async def bobs(lending: Lending) -> Box:
    return await lending.box("bob", "bobs")


@pytest_asyncio.fixture(autouse=True)
async def _back(lending: Lending) -> AsyncIterator[None]:
    """Nobody holds anything when a test begins, and all is whole when it ends."""
    yield
    admin = await lending.admin()
    for lease in await admin.ask("GET", "leases?all=true"):
        if lease["state"] != "detaching":
            await admin.release(lease)
    await until(lambda: _nobody(lending), "leases that do not end")
    await lending.is_whole()


async def _nobody(lending: Lending) -> bool:
    return not await (await lending.admin()).ask("GET", "leases?all=true")


async def ended(lending: Lending, box: Box, lease: dict[str, Any]) -> dict[str, Any]:
    """The lease once it has ended."""

    async def has() -> bool:
        return (await box.api.lease(lease))["state"] == "ended"

    await until(has, "the lease does not end")
    return await box.api.lease(lease)


async def test_they_are_there_inside_once_the_lease_is_active_and_gone_once_it_has_ended(
    lending: Lending, box: Box
) -> None:
    lease = await box.api.taken(2, "box")
    inside = await box.devices()
    assert len(inside) == 2
    for path in inside:
        assert (await box.sh(f"head -c 1 {path} && test -w {path}")).code == 0
    await lending.is_whole()
    await box.api.release(lease)
    assert (await ended(lending, box, lease))["end_reason"] == "released"
    assert await box.devices() == set()


async def test_a_release_ends_what_holds_it_and_nothing_else_and_the_next_gets_it(
    lending: Lending, box: Box, bobs: Box
) -> None:
    mine = await box.api.taken(3, "box")
    kept = await bobs.api.taken(1, "bobs")
    [his_device] = await bobs.devices()
    waiting = await bobs.api.take(2, "bobs")
    first, second, third = sorted(await box.devices())
    polite = await box.runs(first)
    stubborn = await box.runs(second, "stubborn")
    innocent = await box.runs("/dev/null", "stubborn")
    his = await bobs.runs(his_device, "stubborn")
    assert set(lending.holders()) == {
        each.removeprefix("/dev/hutch-gpu") for each in (first, second, his_device)
    }

    await box.api.release(mine)
    await bobs.api.until_state(waiting, "active")
    assert not await polite.is_alive()
    assert not await stubborn.is_alive()
    assert await stubborn.was_asked()
    assert await innocent.is_alive()
    assert not await innocent.was_asked()
    assert await his.is_alive()
    assert not await his.was_asked()
    assert set(lending.holders()) == {his_device.removeprefix("/dev/hutch-gpu")}
    # The machine itself runs on, and its other processes with it.
    assert (await box.sh("systemctl is-system-running")).out.strip() == "running"
    assert {first, second, third} >= await bobs.devices() - {his_device}
    evidence = (await box.api.lease(mine))["evidence"]
    assert {each["user"] for each in evidence["processes"]} == {"alice"}
    told = [each["text"] for each in await box.api.ask("GET", "notices")]
    assert any(text.startswith("python3 in box") for text in told), told
    await bobs.api.release(kept)


async def test_a_second_way_to_the_device_is_of_no_use(lending: Lending, box: Box) -> None:
    lease = await box.api.taken(1, "box")
    [path] = await box.devices()
    laid = await box.sh(f"sudo touch /root/kept && sudo mount --bind {path} /root/kept")
    assert laid.code == 0, laid
    assert (await box.sh("sudo head -c 1 /root/kept")).code == 0
    await box.sh("sudo setsid sh -c 'exec sleep 600 < /root/kept' > /dev/null 2>&1 &")
    hidden = "pgrep -x -f 'sleep 600'"
    await until(lambda: succeeds(box, hidden), "the program does not run")
    await box.api.release(lease)
    await ended(lending, box, lease)
    assert (await box.sh(hidden)).code == 1
    refused = await box.sh("sudo head -c 1 /root/kept")
    assert refused.code != 0
    assert "Permission denied" in refused.err
    await box.sh("sudo umount /root/kept")


async def succeeds(box: Box, command: str) -> bool:
    return (await box.sh(command)).code == 0


async def test_who_sits_at_a_terminal_reads_it_there(lending: Lending, box: Box) -> None:
    lease = await box.api.taken(1, "box")
    [path] = await box.devices()
    where = (await box.person.show("box"))["ssh"]
    async with asyncssh.connect(
        where["host"], where["port"], username=where["user"], client_keys=[str(box.person.key)],
        known_hosts=None, config=None,
    ) as connection:  # fmt: skip
        shell = await connection.create_process(term_type="xterm")
        shell.stdin.write(f"sleep 600 < {path} &\n")
        await until(lambda: _is_held(lending), "the shell's program does not run")
        await box.api.release(lease)
        async with asyncio.timeout(30):
            await shell.stdout.readuntil("accelerators")
    await ended(lending, box, lease)
    again = await box.sh("cat /run/motd.d/90-hutch")
    assert "go back now" in again.out


async def _is_held(lending: Lending) -> bool:
    return bool(lending.holders())


async def test_time_that_is_up_takes_them_back(lending: Lending, box: Box) -> None:
    lease = await box.api.taken(1, "box")
    program = await box.runs(next(iter(await box.devices())), "stubborn")
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with lending.db.write() as session:
        await lease_rows.update_lease(session, lease["id"], expires_at=soon)
    assert (await ended(lending, box, lease))["end_reason"] == "expired"
    assert not await program.is_alive()
    assert await box.devices() == set()


async def test_who_computes_keeps_them_and_who_does_not_is_told_first(
    lending: Lending, box: Box
) -> None:
    admin = await lending.admin()
    await admin.ask("PATCH", "nodes/node1", idle=QUICK)
    lending.site.steer({"*": {"busy": 0.9}})
    try:
        lease = await box.api.taken(2, "box")

        async def has_verdict() -> bool:
            evidence = (await box.api.lease(lease))["evidence"] or {}
            return evidence.get("idleness", {}).get("verdict") == "busy"

        await until(has_verdict, "nobody has looked")
        lending.site.steer({"*": {"busy": 0, "memory": "12GiB"}})
        gone = await ended(lending, box, lease)
        assert gone["end_reason"] == "idle"
        evidence = gone["evidence"]["idleness"]
        assert evidence["verdict"] == "holding"
        assert len(evidence["accelerators"]) == 2
        [warned] = [
            each for each in await box.api.ask("GET", "notices") if each["kind"] == "lease.warned"
            and each["lease"] == lease["id"]
        ]  # fmt: skip
        assert warned["delivered_at"] is not None
    finally:
        lending.site.steer({})
        await admin.ask("PATCH", "nodes/node1", idle=None)


async def test_computing_again_withdraws_it(lending: Lending, box: Box) -> None:
    admin = await lending.admin()
    await admin.ask("PATCH", "nodes/node1", idle={**QUICK, "warning_minutes": 5})
    try:
        lease = await box.api.taken(1, "box")

        async def is_told() -> bool:
            return (await box.api.lease(lease))["announcement"] is not None

        async def is_not_told() -> bool:
            return not await is_told()

        await until(is_told, "nobody was told")
        lending.site.steer({"*": {"busy": 0.9}})
        await until(is_not_told, "it was not withdrawn")
        assert (await box.api.lease(lease))["state"] == "active"
    finally:
        lending.site.steer({})
        await admin.ask("PATCH", "nodes/node1", idle=None)


async def test_restart_rebuild_and_restore_keep_them(lending: Lending, box: Box) -> None:
    lease = await box.api.taken(2, "box")
    inside = await box.devices()
    await box.api.done("POST", "instances/box/snapshots", name="lent")
    for verb, body in (("restart", {}), ("rebuild", {})):
        await box.api.done("POST", f"instances/box/{verb}", **body)
        assert await box.devices() == inside, verb
        await lending.is_whole()
    assert (await box.api.lease(lease))["state"] == "active"


async def test_a_restore_brings_what_leases_say_not_what_the_snapshot_says(
    lending: Lending, box: Box
) -> None:
    first = await box.api.taken(3, "box")
    await box.api.done("POST", "instances/box/snapshots", name="three")
    await box.api.release(first)
    await ended(lending, box, first)
    await box.api.taken(1, "box")
    inside = await box.devices()
    assert len(inside) == 1
    await box.api.done("POST", "instances/box/snapshots/three/restore")
    assert await box.devices() == inside
    await lending.is_whole()


async def test_a_stopped_machine_holds_nothing_and_what_it_held_goes_on(
    lending: Lending, box: Box, bobs: Box
) -> None:
    lease = await box.api.taken(4, "box")
    queued = await box.api.ask("GET", "leases/queue")
    assert queued == []
    await box.runs(next(iter(await box.devices())), "stubborn")
    waiting = await bobs.api.take(4, "bobs")
    await box.api.done("POST", "instances/box/stop")
    await bobs.api.until_state(waiting, "active")
    assert (await box.api.lease(lease))["end_reason"] == "stopped"
    await box.api.done("POST", "instances/box/start")
    assert await box.devices() == set()


async def test_a_deleted_machine_gives_back_what_it_held(lending: Lending) -> None:
    gone = await lending.box("alice", "gone")
    lease = await gone.api.taken(2, "gone")
    await gone.runs(next(iter(await gone.devices())), "stubborn")
    await gone.api.done("DELETE", "instances/gone")
    assert (await ended(lending, gone, lease))["end_reason"] == "deleted"
    again = await lending.box("alice", "gone")
    assert len(await again.devices()) == 0
    await again.api.done("DELETE", "instances/gone")


async def test_what_is_changed_by_hand_is_mended_and_told(
    lending: Lending, box: Box, bobs: Box
) -> None:
    lease = await box.api.taken(1, "box")
    inside = await box.devices()
    [container] = [each for each in await lending.site.incus_list()
                   if any(name.startswith("hutch-gpu") for name in each["devices"])]  # fmt: skip
    [name] = [name for name in container["devices"] if name.startswith("hutch-gpu")]
    device = container["devices"][name]
    removed = await lending.site.incus_command(
        "config", "device", "remove", container["name"], name
    )
    assert removed.code == 0, removed

    async def is_back() -> bool:
        return await box.devices() == inside

    await until(is_back, "a lost device does not come back")
    await box.api.release(lease)
    await ended(lending, box, lease)
    await lending.site.stop()
    added = await lending.site.incus_command(
        "config", "device", "add", container["name"], name, "unix-char",
        *(f"{key}={value}" for key, value in device.items() if key != "type"),
    )  # fmt: skip
    assert added.code == 0, added
    program = await box.runs(next(iter(inside)), "stubborn")
    await lending.site.start()

    async def is_gone() -> bool:
        return await box.devices() == set()

    await until(is_gone, "a device without a lease stays")
    assert not await program.is_alive()
    admin = await lending.admin()
    mended = await admin.ask("GET", "events?action=lease.mended")
    assert {each["detail"]["how"] for each in mended} == {"attached", "detached"}


async def test_a_restart_of_incus_leaves_them_where_they_are(lending: Lending, box: Box) -> None:
    lease = await box.api.taken(2, "box")
    inside = await box.devices()
    program = await box.runs(next(iter(inside)), "stubborn")
    await lending.site.incus.restart()
    assert await box.devices() == inside
    assert await program.is_alive()

    async def is_whole() -> bool:
        return (await box.api.lease(lease))["state"] == "active"

    await until(is_whole, "the lease has ended")
    await box.api.release(lease)
    await ended(lending, box, lease)
    assert not await program.is_alive()


async def test_a_reboot_of_the_node_brings_them_back_with_the_machine(
    lending: Lending, box: Box
) -> None:
    lease = await box.api.taken(2, "box")
    inside = await box.devices()
    await lending.site.kill_agent()
    await lending.site.incus.reboot()
    await lending.site.start_agent(GPUS)

    async def are_back() -> bool:
        with contextlib.suppress(AssertionError):
            return await box.devices() == inside
        return False

    await until(are_back, "the devices are not back")
    assert (await box.api.lease(lease))["state"] == "active"
    await lending.is_whole()
