"""On a real Incus: who holds a device inside a container is found and ended, and nobody else."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.agent import processes, revoke
from hutch.agent.simulated import Simulated
from hutch.agent.watch import Watch
from hutch.domain.accelerators import OpenedDevice, Process, Revoked, Verb
from hutch.domain.ids import new_engine_name
from hutch.domain.limits import Limits
from hutch.engine.base import ContainerSpec, Device, DeviceKind, ExecResult
from hutch.engine.incus import IncusEngine
from hutch.setup.private import PrivateIncus

pytestmark = pytest.mark.incus

FOLDER = Path("/dev/hutch-gpu-test")
LIMITS = Limits(cpus=1, memory=512 * 1024**2, disk=2 * 1024**3, processes=512)


@pytest.fixture(scope="module")
def gpus() -> Iterator[Simulated]:
    """Two simulated accelerators with devices of their own."""
    made = Simulated(2, "Simulated GPU", 24 * 1024**3, Path("/nowhere"), FOLDER)
    made.make_devices()
    yield made
    Simulated(0, "", 0, Path("/nowhere"), FOLDER).make_devices()
    FOLDER.rmdir()


@dataclass
class Box:
    """A container with the two accelerators."""

    engine: IncusEngine
    name: str
    running: list["asyncio.Task[object]"] = field(default_factory=list["asyncio.Task[object]"])

    async def sh(self, script: str, user: int = 0) -> ExecResult:
        return await self.engine.exec(
            self.name, ["bash", "-c", script], user=user, group=user, timeout=60
        )

    async def keep(self, script: str, name: str, user: int = 0) -> int:
        """Start a program that goes on; its process id on the node once it is ready."""
        work = self.engine.exec(
            self.name, ["bash", "-c", script], user=user, group=user, timeout=600
        )
        self.running.append(asyncio.create_task(work))
        ready = f"until test -s /run/{name}; do sleep 0.05; done; cat /run/{name}"
        inside = (await self.sh(ready)).stdout.decode().strip()
        return next(
            pid
            for pid in processes.members(self.name)
            if Path(f"/proc/{pid}/status").read_text().partition("NSpid:\t")[2].split("\n")[0]
            .split()[-1] == inside
        )  # fmt: skip

    async def attach(self, number: int) -> None:
        await self.engine.attach(self.name, [device(number)])

    async def detach(self, number: int) -> None:
        await self.engine.detach(self.name, [device(number).name])


def device(number: int) -> Device:
    return Device(
        f"gpu-{number}",
        DeviceKind.CHAR,
        source=f"{FOLDER}/{number}",
        path=f"/dev/hutch-gpu{number}",
    )


def opened(number: int) -> OpenedDevice:
    return OpenedDevice(1, 3, f"/dev/hutch-gpu{number}")


async def make(engine: IncusEngine, incus: PrivateIncus, number: int) -> Box:
    name = new_engine_name()
    address = str(incus.subnet.network_address + number)
    await engine.create(ContainerSpec(name, "base", LIMITS, address), start=True)
    box = Box(engine, name)
    # Not before the system inside has its own /run.
    booted = "until test -S /run/systemd/private; do sleep 0.05; done"
    added = await box.sh(f"{booted}; chmod 1777 /run; useradd -u 1000 ai")
    assert added.code == 0, added.stderr
    return box


async def unmake(box: Box) -> None:
    await box.engine.delete(box.name)
    for each in box.running:
        each.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await each


@pytest_asyncio.fixture(scope="module")
async def boxes(
    incus: PrivateIncus, incus_engine: IncusEngine, gpus: Simulated
) -> AsyncIterator[tuple[Box, Box]]:
    made = [await make(incus_engine, incus, number) for number in (60, 61)]
    yield made[0], made[1]
    for each in made:
        await unmake(each)


@pytest_asyncio.fixture
async def box(boxes: tuple[Box, Box]) -> AsyncIterator[Box]:
    """A container with both devices and no program of a test's."""
    made = boxes[0]
    for number in (0, 1):
        await made.attach(number)
    yield made
    await made.sh("pkill -KILL -x sleep; rm -f /run/holder* /run/innocent*")
    for number in (0, 1):
        await made.detach(number)


def is_alive(pid: int) -> bool:
    return processes.started(pid) is not None


def hold(number: int, name: str = "holder") -> str:
    return f"exec 3<>/dev/hutch-gpu{number}; echo $$ > /run/{name}; exec sleep 600"


IDLE = "echo $$ > /run/innocent; exec sleep 600"


def carry_out(verb: Verb, box: Box, *numbers: int) -> list[Process]:
    return list(revoke.carry_out(verb, box.name, [opened(each) for each in numbers]).processes)


async def test_who_holds_a_device_is_named_as_in_the_container(box: Box):
    pid = await box.keep(hold(0), "holder", user=1000)
    [named] = carry_out(Verb.SHUT, box, 0)
    assert (named.pid, named.command, named.container, named.user) == (
        pid, "sleep", box.name, "ai",
    )  # fmt: skip
    assert carry_out(Verb.SHUT, box, 1) == []


async def test_what_is_shut_nobody_opens_any_more_and_it_is_told_of_no_other(box: Box):
    holder = await box.keep(hold(1, "holder1"), "holder1")
    first, second = opened(0), opened(1)
    assert (await box.sh("exec 7< /dev/hutch-gpu0")).code == 0
    assert revoke.carry_out(Verb.SHUT, box.name, [first]) == Revoked(is_shut=True)
    assert (await box.sh("exec 7< /dev/hutch-gpu0")).code != 0
    assert (await box.sh("exec 7< /dev/hutch-gpu1")).code == 0
    both = revoke.carry_out(Verb.SHUT, box.name, [first, second])
    assert both.is_shut
    assert [each.pid for each in both.processes] == [holder]
    # One that is out may have been laid elsewhere before: of that nobody knows.
    await box.detach(0)
    assert not revoke.carry_out(Verb.SHUT, box.name, [first]).is_shut
    assert not revoke.carry_out(Verb.SHUT, box.name, [first, second]).is_shut


async def test_only_the_holder_is_ended(box: Box):
    holder = await box.keep(hold(0), "holder")
    other = await box.keep(hold(1, "holder1"), "holder1")
    innocent = await box.keep(IDLE, "innocent")
    assert [each.pid for each in carry_out(Verb.END, box, 0)] == [holder]
    assert not is_alive(holder)
    assert is_alive(other)
    assert is_alive(innocent)
    assert carry_out(Verb.SHUT, box, 0) == []
    assert (await box.sh("systemctl is-system-running")).stdout != b""


async def test_a_holder_of_the_same_device_in_another_container_goes_on(
    boxes: tuple[Box, Box], box: Box
):
    other = boxes[1]
    await other.attach(0)
    mine, others = await box.keep(hold(0), "holder"), await other.keep(hold(0), "holder")
    outside = os.open(FOLDER / "0", os.O_RDWR)
    carry_out(Verb.END, box, 0)
    assert not is_alive(mine)
    assert is_alive(others)
    os.close(outside)
    await other.detach(0)


async def test_a_holder_is_found_when_the_device_was_taken_away(box: Box):
    # The path reads `/ (deleted)` then, and the other device's still its own.
    holder = await box.keep(hold(0), "holder")
    other = await box.keep(hold(1, "holder1"), "holder1")
    await box.detach(0)
    link = Path(f"/proc/{holder}/fd/3").readlink()
    assert str(link) != "/dev/hutch-gpu0"
    assert [each.pid for each in carry_out(Verb.END, box, 0)] == [holder]
    assert is_alive(other)


async def test_a_holder_in_namespaces_of_its_own_is_found(box: Box):
    script = (
        "unshare --mount --pid --user --map-root-user --fork bash -c"
        " 'exec 3<>/dev/hutch-gpu0; echo ready > /run/holder; exec sleep 600'"
    )
    box.running.append(
        asyncio.create_task(
            box.engine.exec(box.name, ["bash", "-c", script], user=1000, group=1000, timeout=600)
        )
    )
    await box.sh("until test -s /run/holder; do sleep 0.05; done")
    named = carry_out(Verb.END, box, 0)
    assert len(named) == 1
    assert not is_alive(named[0].pid)
    assert carry_out(Verb.SHUT, box, 0) == []


async def test_who_is_asked_ends_in_order(box: Box):
    script = (
        "exec 3<>/dev/hutch-gpu0; trap 'echo asked > /run/holder-asked; exit' TERM;"
        " echo $$ > /run/holder; while :; do sleep 0.05; done"
    )
    holder = await box.keep(script, "holder")
    carry_out(Verb.ASK, box, 0)
    await box.sh("until test -e /run/holder-asked; do sleep 0.05; done")
    while is_alive(holder):
        await asyncio.sleep(0.02)


def end(box: Box) -> None:
    carry_out(Verb.END, box, 0)


def end_as_its_unit_does(box: Box) -> None:
    """With the node's file system read-only, which is all that the agent's unit lets it see."""
    program = (
        "from hutch.agent import revoke; from hutch.domain.accelerators import OpenedDevice, Verb;"
        f"revoke.carry_out(Verb.END, {box.name!r}, [OpenedDevice(1, 3, '/dev/hutch-gpu0')])"
    )
    script = 'mount -o remount,ro,bind / && ! touch /var/lib/x 2>&1 && exec "$@"'
    subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
         sys.executable, "-c", program],
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize("end_it", [end, end_as_its_unit_does])
async def test_a_second_way_to_a_device_is_shut(box: Box, end_it: Callable[[Box], None]):
    await box.sh("touch /root/kept && mount --bind /dev/hutch-gpu0 /root/kept")
    opens = "exec 7<> /root/kept"
    assert (await box.sh(opens)).code == 0
    end_it(box)
    await box.detach(0)
    for change in ("true", "chmod 666 /root/kept", "chown root /root/kept"):
        await box.sh(change)
        refused = await box.sh(opens)
        assert refused.code != 0
        assert b"Permission denied" in refused.stderr
    # The other device, and what everyone has, are as they were.
    assert (await box.sh("exec 7<> /dev/hutch-gpu1; echo x > /dev/null")).code == 0
    assert Path("/dev/null").stat().st_mode & 0o777 == 0o666
    assert (FOLDER / "0").stat().st_mode & 0o777 == 0o666
    await box.sh("umount /root/kept; rm /root/kept")
    # It can be lent again.
    await box.attach(0)
    assert (await box.sh("exec 7<> /dev/hutch-gpu0")).code == 0


STORE = """
import array, os, socket
opened = os.open("/dev/hutch-gpu0", os.O_RDWR)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [opened]))
notify.sendmsg([b"FDSTORE=1\\nFDNAME=kept"], [rights])
"""


async def test_the_first_process_is_named_and_never_ended_or_the_machine_would_stop(box: Box):
    # Whoever wants to keep a device can give it to systemd: it holds it for a service.
    first = next(pid for pid in processes.members(box.name) if _is_first(pid))
    await box.sh(f"cat > /run/holder.py <<'END'\n{STORE}END")
    kept = await box.sh(
        "systemd-run --quiet --unit keeper -p Type=oneshot -p FileDescriptorStoreMax=1"
        " -p NotifyAccess=all -p RemainAfterExit=yes python3 /run/holder.py"
    )
    assert kept.code == 0, kept.stderr
    assert [each.pid for each in carry_out(Verb.END, box, 0)] == [first]
    assert is_alive(first)
    assert (await box.sh("systemctl stop keeper")).code == 0
    assert carry_out(Verb.SHUT, box, 0) == []


def _is_first(pid: int) -> bool:
    told = Path(f"/proc/{pid}/status").read_text().partition("NSpid:\t")[2].split("\n")[0]
    return told.split()[1:] == ["1"]


async def test_what_people_see_names_the_machine_and_the_program(box: Box, gpus: Simulated):
    holder = await box.keep(hold(0), "holder", user=1000)
    _, readings = Watch(gpus, root=FOLDER).look()
    [told] = readings[0].processes
    assert (told.pid, told.container, told.user, told.command) == (
        holder, box.name, "ai", "sleep",
    )  # fmt: skip
    assert readings[1].processes == ()


async def test_a_container_that_does_not_run_has_nobody(box: Box):
    assert revoke.carry_out(Verb.END, "hutch-00000000", [opened(0)]) == Revoked()
