"""What root of one container can do to another container, and to the node: nothing.

Run from inside real containers, prepared as hutch prepares them. Every "cannot" has its "can"
beside it, so that a test does not pass because nothing works at all.
"""

import asyncio
import contextlib
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.agent import processes
from hutch.agent.shut import nodes_of, shut
from hutch.domain.accelerators import OpenedDevice
from hutch.domain.limits import Limits
from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import Device, ExecResult, Power
from hutch.engine.incus import IncusEngine
from hutch.engine.incus.disks import MOST_SLACK, SLACK
from hutch.engine.incus.spec import disk_of
from hutch.errors import EngineError
from hutch.setup.private import PrivateIncus
from hutch.setup.subnets import gateway
from tests.engine.contract import Site, soon

pytestmark = pytest.mark.incus

LIMITS = Limits(cpus=1, memory=256 * MiB, disk=2 * GiB, processes=200)
PORT = 7777

# Answers on TCP, and writes down who sends anything by UDP: what passes in one direction only is
# a hole as well.
LISTENER = f"""
import socket, threading
def tcp():
    server = socket.create_server(("", {PORT}))
    while True:
        connection, _ = server.accept()
        connection.sendall(b"here")
        connection.close()
threading.Thread(target=tcp).start()
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("", {PORT}))
open("/root/ready", "w").close()
while True:
    _, sender = udp.recvfrom(100)
    print(sender[0], file=open("/root/heard", "a"))
"""
CONNECT = f"""
import socket, sys
socket.create_connection((sys.argv[1], {PORT}), 1.5).recv(4)
"""
SEND = f"""
import socket, sys
sender = socket.socket(type=socket.SOCK_DGRAM)
for _ in range(5):
    sender.sendto(b"x", (sys.argv[1], {PORT}))
"""
CLAIM = """
import socket, sys
address, mac = socket.inet_aton(sys.argv[1]), bytes.fromhex(sys.argv[2].replace(":", ""))
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
card.bind(("eth0", 0))
everyone = b"\\xff" * 6
answer = b"\\x00\\x01\\x08\\x00\\x06\\x04\\x00\\x02" + mac + address + everyone + address
for _ in range(5):
    card.send(everyone + mac + b"\\x08\\x06" + answer)
"""
EAT = "kept = bytearray(1 << 30)\nfor i in range(0, len(kept), 4096): kept[i] = 1"


@dataclass
class Machine:
    """A running container, seen as its owner does: as root inside."""

    engine: IncusEngine
    name: str
    address: str
    pid: int
    """Of its first process, as the node sees it."""

    async def run(self, *argv: str, timeout: float = 30.0) -> ExecResult:
        return await self.engine.exec(self.name, argv, timeout=timeout)

    async def sh(self, script: str, timeout: float = 30.0) -> ExecResult:
        return await self.run("sh", "-c", script, timeout=timeout)

    async def python(self, program: str, *arguments: str) -> ExecResult:
        return await self.run("python3", "-c", program, *arguments)

    async def pings(self, address: str, *options: str) -> bool:
        result = await self.run("ping", "-c2", "-i0.2", "-W1", *options, address)
        return result.code == 0

    async def connects(self, address: str) -> bool:
        return (await self.python(CONNECT, address)).code == 0

    async def hears_from(self, address: str) -> bool:
        heard = await self.engine.read_file(self.name, "/root/heard") or b""
        return address.encode() in heard.split()

    async def mac(self) -> str:
        result = await self.run("cat", "/sys/class/net/eth0/address")
        return result.stdout.decode().strip()

    async def works(self) -> bool:
        return (await self.sh("echo alive > /root/alive && sync")).code == 0


async def _boot(site: Site, engine: IncusEngine, incus: PrivateIncus) -> Machine:
    spec = site.spec(limits=LIMITS)
    await engine.create(spec, start=True)
    state = await asyncio.to_thread(incus.api().get, f"/instances/{spec.name}/state")
    machine = Machine(engine, spec.name, spec.address, state["pid"])
    up = "until ip -4 addr show eth0 | grep -q inet; do sleep 0.05; done"
    assert (await machine.sh(up)).code == 0
    started = f"setsid python3 -c {shlex.quote(LISTENER)} > /dev/null 2>&1 &"
    await machine.sh(f"{started} until test -e /root/ready; do sleep 0.05; done")
    return machine


@pytest_asyncio.fixture(scope="module")
async def machines(
    incus_site: Site, incus_engine: IncusEngine, incus: PrivateIncus
) -> AsyncIterator[tuple[Machine, Machine]]:
    pair = [await _boot(incus_site, incus_engine, incus) for _ in range(2)]
    yield pair[0], pair[1]
    for each in pair:
        await incus_engine.delete(each.name)


@pytest.fixture
def mallory(machines: tuple[Machine, Machine]) -> Machine:
    return machines[0]


@pytest.fixture
def alice(machines: tuple[Machine, Machine]) -> Machine:
    return machines[1]


@pytest.fixture(scope="module")
def bridge(incus: PrivateIncus) -> str:
    return str(gateway(incus.subnet))


def node_reaches(address: str) -> bool:
    try:
        with socket.create_connection((address, PORT), 2) as connection:
            return connection.recv(4) == b"here"
    except OSError:
        return False


def node_sends(address: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, PORT))


def neighbour(address: str) -> str:
    """The MAC address at which the node believes an address to be."""
    found = subprocess.run(["ip", "neigh", "show", address], capture_output=True, text=True)
    return found.stdout


class TestNetwork:
    async def test_works_at_all(self, mallory: Machine, alice: Machine, bridge: str):
        for machine in (mallory, alice):
            assert await machine.pings(bridge)
            assert await asyncio.to_thread(node_reaches, machine.address)
            node_sends(machine.address)
            assert await soon(lambda machine=machine: machine.hears_from(bridge))

    async def test_does_not_lead_to_another_one(self, mallory: Machine, alice: Machine):
        assert not await mallory.pings(alice.address)
        assert not await mallory.connects(alice.address)
        await mallory.python(SEND, alice.address)
        assert not await alice.hears_from(mallory.address)

    async def test_does_not_lead_to_another_one_through_the_gateway(
        self, mallory: Machine, alice: Machine, bridge: str
    ):
        # Both route to each other through the bridge's own address: even two that agree to meet.
        for here, there in ((mallory, alice), (alice, mallory)):
            assert (await here.run("ip", "route", "add", there.address, "via", bridge)).code == 0
        try:
            assert not await mallory.pings(alice.address)
            assert not await mallory.connects(alice.address)
            await mallory.python(SEND, alice.address)
            assert not await alice.hears_from(mallory.address)
        finally:
            for here, there in ((mallory, alice), (alice, mallory)):
                await here.run("ip", "route", "del", there.address, "via", bridge)
        assert await mallory.pings(bridge)

    async def test_lets_nobody_take_another_address(
        self, mallory: Machine, alice: Machine, bridge: str, incus_site: Site
    ):
        # One that nobody has shows more: its answers would not go astray to somebody else.
        for address in (alice.address, incus_site.address()):
            added = await mallory.run("ip", "addr", "add", f"{address}/32", "dev", "eth0")
            assert added.code == 0
            try:
                assert not await mallory.pings(bridge, "-I", address)
                assert await asyncio.to_thread(node_reaches, alice.address)
            finally:
                await mallory.run("ip", "addr", "del", f"{address}/32", "dev", "eth0")
        assert await mallory.pings(bridge)

    async def test_lets_nobody_change_their_mac_address(
        self, mallory: Machine, alice: Machine, bridge: str
    ):
        own = await mallory.mac()
        for other in ("02:00:00:00:00:01", await alice.mac()):
            assert (await mallory.run("ip", "link", "set", "eth0", "address", other)).code == 0
            try:
                assert not await mallory.pings(bridge)
                assert await asyncio.to_thread(node_reaches, alice.address)
            finally:
                await mallory.run("ip", "link", "set", "eth0", "address", own)
            # The system inside asks for its address anew when its card has changed.
            assert await soon(lambda: mallory.pings(bridge))

    async def test_believes_no_claim_to_an_address_of_another(
        self, mallory: Machine, alice: Machine, bridge: str
    ):
        assert await asyncio.to_thread(node_reaches, alice.address)
        for address in (alice.address, bridge):
            assert (await mallory.python(CLAIM, address, await mallory.mac())).code == 0
        assert await mallory.mac() not in neighbour(alice.address)
        assert await asyncio.to_thread(node_reaches, alice.address)
        seen_by_alice = await alice.run("ip", "neigh")
        assert (await mallory.mac()).encode() not in seen_by_alice.stdout


class TestRoot:
    def test_is_nobody_outside(self, mallory: Machine, alice: Machine):
        for machine in (mallory, alice):
            status = Path(f"/proc/{machine.pid}/status").read_text()
            uids = next(line for line in status.splitlines() if line.startswith("Uid:"))
            assert all(int(uid) >= 65536 for uid in uids.split()[1:]), uids

    def test_shares_no_uid_with_another_container(self, mallory: Machine, alice: Machine):
        ranges: list[range] = []
        for machine in (mallory, alice):
            for kind in ("uid_map", "gid_map"):
                _, start, length = Path(f"/proc/{machine.pid}/{kind}").read_text().split()
                assert int(start) >= 65536
                if kind == "uid_map":
                    ranges.append(range(int(start), int(start) + int(length)))
        assert ranges[0].stop <= ranges[1].start or ranges[1].stop <= ranges[0].start

    async def test_sees_no_process_of_the_node_or_of_another(
        self, mallory: Machine, alice: Machine
    ):
        sign = "987654.25"
        outside = await asyncio.create_subprocess_exec("sleep", sign)
        try:
            await alice.sh(f"setsid sleep {sign} > /dev/null 2>&1 &")
            look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
            assert sign in Path(f"/proc/{outside.pid}/cmdline").read_text()
            assert sign.encode() in (await alice.sh(look)).stdout
            assert sign.encode() not in (await mallory.sh(look)).stdout
        finally:
            outside.kill()
            await outside.wait()
            await alice.sh(f"pkill -f {sign}")

    async def test_finds_no_socket_of_the_engine(self, mallory: Machine, bridge: str):
        sockets = await mallory.sh("find / -type s 2>/dev/null; ls -A /dev/incus /dev/lxd")
        assert b"systemd" in sockets.stdout  # it finds what there is
        assert b"incus" not in sockets.stdout
        assert b"lxd" not in sockets.stdout
        assert b"unix.socket" not in sockets.stdout
        tried = await mallory.sh(f"curl -ksS -m 2 https://{bridge}:8443/")
        assert tried.code != 0

    async def test_reaches_no_device_of_the_node(self, mallory: Machine):
        for kind, numbers in (("b", "254 0"), ("b", "8 0"), ("c", "1 1")):
            tried = await mallory.sh(f"mknod /root/d {kind} {numbers} && head -c1 /root/d")
            assert tried.code != 0, (kind, numbers)
            assert not tried.stdout
        assert (await mallory.sh("echo b > /proc/sysrq-trigger")).code != 0
        assert (await mallory.sh("echo x > /proc/sys/kernel/core_pattern")).code != 0


KEEP = """
touch /root/kept && mount --bind {path} /root/kept
touch /root/there
there="mount --bind {path} /root/there && touch /root/kept-there && sleep 600"
setsid unshare --mount --propagation private sh -c "$there" > /dev/null 2>&1 &
until test -e /root/kept-there; do sleep 0.05; done
"""
OPEN = "exec 7< /root/kept"
OPEN_ELSEWHERE = "nsenter -t $(pgrep -nx sleep) -m sh -c 'exec 7< /root/there'"


@pytest.fixture
def device(incus_site: Site) -> Device:
    return incus_site.device()


class TestDevices:
    @pytest.mark.parametrize("is_shut", [False, True], ids=["as Incus leaves it", "shut"])
    async def test_of_the_node_are_gone_only_once_their_node_is_shut(
        self, mallory: Machine, device: Device, is_shut: bool
    ):
        # What root inside can do against it: lay the device's node in a second place, also where
        # nobody else sees it. No process has it open meanwhile.
        await mallory.engine.attach(mallory.name, [device])
        keep = await mallory.sh(KEEP.format(path=device.path))
        assert keep.code == 0, keep.stderr
        if is_shut:
            found = processes.find_container(mallory.name, processes.members(mallory.name))
            assert found
            assert shut(nodes_of(found, [OpenedDevice(1, 3, str(device.path))]))
        await mallory.engine.detach(mallory.name, [device.name])

        assert (await mallory.sh(f"test -e {device.path}")).code != 0
        for change in ("true", "chmod 666 /root/kept", "chown root /root/kept"):
            await mallory.sh(change)
            for way in (OPEN, OPEN_ELSEWHERE):
                opened = await mallory.sh(way)
                assert (opened.code == 0) is not is_shut, (change, way, opened.stderr)
                assert is_shut is (b"Permission denied" in opened.stderr)
        await mallory.sh("umount /root/kept; pkill -x sleep; rm /root/kept-there")

    async def test_cannot_be_kept_by_filling_the_disk(self, mallory: Machine, device: Device):
        engine, name = mallory.engine, mallory.name
        await engine.attach(name, [device])
        for number in range(MOST_SLACK // SLACK + 2):
            await mallory.sh(f"cat /dev/zero > /root/zeros-{number}; sync", timeout=120)
            with contextlib.suppress(EngineError):
                await engine.set_labels(name, {"number": str(number)})
        with pytest.raises(EngineError, match=r"full|quota exceeded"):
            await engine.set_labels(name, {"number": "last"})

        await engine.detach(name, [device.name])
        assert (await mallory.sh(f"test -e {device.path}")).code != 0
        # Nor must a lease fail because of it.
        await engine.attach(name, [device])
        assert (await mallory.sh(f"test -e {device.path}")).code == 0
        await engine.detach(name, [device.name])
        found = await engine.get(name)
        assert found
        assert found.devices == ()
        assert (await mallory.sh("rm /root/zeros-*")).code == 0
        await engine.set_limits(name, LIMITS)


class TestLimits:
    async def test_of_memory_end_what_exceeds_it(self, mallory: Machine, alice: Machine):
        result = await mallory.python(EAT)
        assert result.code != 0
        assert (await mallory.engine.usage(mallory.name)).memory <= LIMITS.memory
        assert await mallory.works()
        assert await alice.works()

    async def test_of_processes_hold_when_one_forks_without_end(
        self, mallory: Machine, alice: Machine
    ):
        fork = "import os\nwhile True:\n  if not os.fork(): os.execvp('sleep', ['sleep', '91'])"
        result = await mallory.python(fork)
        assert result.code != 0
        assert b"BlockingIOError" in result.stderr
        assert (await mallory.engine.usage(mallory.name)).processes <= LIMITS.processes
        assert await alice.works()
        # Nothing more can run inside, so its owner cannot help themselves: hutch can.
        await mallory.engine.stop(mallory.name, timeout=0)
        await mallory.engine.start(mallory.name)
        assert await mallory.works()

    async def test_of_processor_time_hold(self, mallory: Machine):
        before = (await mallory.engine.usage(mallory.name)).cpu_seconds
        spin = "timeout 2 sh -c 'while :; do :; done'"
        await mallory.sh(f"{spin} & {spin} & {spin} & wait")
        used = (await mallory.engine.usage(mallory.name)).cpu_seconds - before
        assert 0.1 < used < 2 * LIMITS.cpus * 1.35

    async def test_of_the_disk_stop_one_and_no_other(self, mallory: Machine, alice: Machine):
        full = await mallory.sh("cat /dev/zero > /root/zeros", timeout=120)
        assert full.code != 0
        assert b"quota" in full.stderr or b"space" in full.stderr
        usage = await mallory.engine.usage(mallory.name)
        assert 0.9 * LIMITS.disk < usage.disk <= LIMITS.disk + 64 * MiB
        assert await alice.works()

    async def test_a_full_disk_does_not_lock_its_owner_out(
        self, mallory: Machine, incus_site: Site, incus: PrivateIncus
    ):
        def root_disk() -> int:
            return disk_of(incus.api().get(f"/instances/{mallory.name}"))

        engine, name = mallory.engine, mallory.name
        await mallory.sh("cat /dev/zero > /root/more-zeros", timeout=120)
        await engine.stop(name, timeout=0)
        await engine.start(name)
        forward = incus_site.forward()
        await engine.set_forward(name, forward)
        await engine.snapshot(name, "full")
        found = await engine.get(name)
        assert found
        assert (found.power, found.forwards) == (Power.RUNNING, (forward,))
        assert found.limits == LIMITS, "the room it was given shows"
        assert root_disk() > LIMITS.disk
        await engine.delete_snapshot(name, "full")
        assert (await mallory.sh("rm /root/*zeros")).code == 0
        assert await mallory.works()
        # There is only so much of that room: it is taken back, and can be given once more.
        await engine.stop(name)
        assert root_disk() == LIMITS.disk
        await engine.start(name)
