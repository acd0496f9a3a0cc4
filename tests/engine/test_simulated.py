"""What the simulated engine adds to the contract: it outlives processes, it scales, it fails."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

import hutch
from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Vendor
from hutch.domain.limits import Limits
from hutch.domain.nodes import Capacity
from hutch.domain.sizes import GiB, MiB
from hutch.engine.base import Change, ContainerSpec, Device, DeviceKind, Engine, Power
from hutch.engine.simulated import AS_INCUS, Faults, SimulatedEngine, database, state
from hutch.engine.simulated.faults import METHODS
from hutch.errors import (
    ConfigurationError,
    EngineConflictError,
    EngineError,
    EngineUnavailableError,
)

LIMITS = Limits(cpus=1, memory=256 * MiB, disk=2 * GiB, processes=256)


def spec(number: int = 1) -> ContainerSpec:
    address = f"10.0.{number // 250}.{number % 250 + 2}"
    return ContainerSpec(f"hutch-{number:08x}", "base", LIMITS, address)


NAME = spec().name
CARD = FoundAccelerator(
    "0000:3b:00.0",
    Vendor.NVIDIA,
    "NVIDIA A100-PCIE-40GB",
    memory=40 * GiB,
    uuid="GPU-6ddadebd-dafe-2db9-f10f-125719770fd3",
    nodes=(DeviceNode("/dev/nvidia3", 195, 3),),
)


def simulated(number: int) -> Device:
    """A simulated accelerator's device."""
    source, path = f"/dev/hutch-gpu/{number}", f"/dev/hutch-gpu{number}"
    return Device(f"gpu-{number:02}", DeviceKind.CHAR, source=source, path=path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "engine.db"


@pytest_asyncio.fixture
async def engine(path: Path) -> AsyncIterator[SimulatedEngine]:
    engine = SimulatedEngine(path)
    yield engine
    await engine.close()


@pytest_asyncio.fixture
async def other(engine: SimulatedEngine, path: Path) -> AsyncIterator[SimulatedEngine]:
    """A second one over the same state, as another process has it."""
    other = SimulatedEngine(path)
    yield other
    await other.close()


def test_is_an_engine(path: Path):
    engine: Engine = SimulatedEngine(path)
    assert engine


class Elsewhere:
    """A process of its own that runs a script with arguments."""

    def __init__(self, script: str, *arguments: object) -> None:
        preamble = (
            "import asyncio, sys\n"
            "from pathlib import Path\n"
            "from hutch.engine.simulated import SimulatedEngine\n"
            "from tests.engine.test_simulated import spec\n"
        )
        root = Path(hutch.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-c", preamble + script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}:{Path(__file__).parents[2]}"},
        )

    def lines(self) -> Iterator[str]:
        assert self._process.stdout
        for line in self._process.stdout:
            yield line.strip()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        code = self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()
        return code


CREATES_FOR_EVER = """
async def main():
    engine = SimulatedEngine(Path(sys.argv[1]))
    for number in range(1, 100_000):
        await engine.create(spec(number), start=True)
        print(spec(number).name, flush=True)
asyncio.run(main())
"""

CREATES_TEN_AND_LABELS_THEM = """
async def main():
    engine = SimulatedEngine(Path(sys.argv[1]))
    for number in range(1, 11):
        await engine.create(spec(number), start=True)
    for number in range(100):
        await engine.set_labels(spec(1).name, {f"user.{sys.argv[2]}.{number}": "1"})
asyncio.run(main())
"""


class TestState:
    async def test_outlives_a_killed_process(self, path: Path):
        process = Elsewhere(CREATES_FOR_EVER, path)
        made = [name for name, _ in zip(process.lines(), range(200), strict=False)]
        process.kill()

        engine = SimulatedEngine(path)
        found = {each.name: each for each in await engine.containers()}
        assert len(made) == 200
        assert all(found[name].power is Power.RUNNING for name in made)
        await engine.create(spec(200_000))
        await engine.close()

    async def test_may_be_opened_and_written_by_many_at_once(self, path: Path):
        processes = [Elsewhere(CREATES_TEN_AND_LABELS_THEM, path, each) for each in "abcd"]
        assert [process.wait() for process in processes] == [0] * 4
        engine = SimulatedEngine(path)
        assert len(await engine.containers()) == 10
        labelled = await engine.get(spec(1).name)
        assert labelled is not None
        assert len(labelled.labels) == 400
        await engine.close()

    async def test_waits_for_another_that_is_writing(self, engine: SimulatedEngine, path: Path):
        await engine.create(spec())
        writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE containers SET labels = ?", ['{"theirs": "1"}'])
        threading.Timer(0.2, writer.execute, ["COMMIT"]).start()
        await engine.set_labels(NAME, {"ours": "1"})
        found = await engine.get(NAME)
        assert found is not None
        assert set(found.labels) == {"theirs", "ours"}
        writer.close()

    async def test_is_seen_by_another_at_once(
        self, engine: SimulatedEngine, other: SimulatedEngine
    ):
        assert await other.containers() == []
        await engine.create(spec())
        assert [each.name for each in await other.containers()] == [NAME]
        await other.start(NAME)
        assert [each.power for each in await engine.containers()] == [Power.RUNNING]
        await engine.delete(NAME)
        assert await other.containers() == []

    async def test_keeps_what_was_attached(self, engine: SimulatedEngine, path: Path):
        engine.add_accelerator(CARD)
        gpu, char = Device("gpu-a", DeviceKind.GPU, pci=CARD.address), simulated(0)
        await engine.create(replace(spec(), has_nvidia_driver=True))
        await engine.attach(NAME, [gpu, char])
        again = SimulatedEngine(path)
        found = await again.get(NAME)
        assert found is not None
        assert (found.devices, found.has_nvidia_driver) == ((char, gpu), True)
        assert await again.containers() == [found]
        assert await again.accelerators() == [CARD]
        await again.close()

    async def test_from_before_there_were_devices_is_taken_over(
        self, engine: SimulatedEngine, path: Path
    ):
        await engine.create(spec())
        await engine.close()
        old = sqlite3.connect(path)
        old.executescript(
            "DROP TABLE devices; DROP TABLE accelerators;"
            "ALTER TABLE containers DROP COLUMN nvidia_driver"
        )
        old.close()
        engine = SimulatedEngine(path, images=["other"])
        await engine.attach(NAME, [simulated(0)])
        assert [each.devices for each in await engine.containers()] == [(simulated(0),)]
        assert await engine.images() == ["base"]
        await engine.close()

    async def test_that_is_broken_is_unavailable(self, path: Path):
        path.parent.mkdir()
        path.write_bytes(b"not a database " * 100)
        with pytest.raises(EngineUnavailableError):
            SimulatedEngine(path)

    async def test_that_is_closed_is_unavailable(self, path: Path):
        engine = SimulatedEngine(path)
        await engine.close()
        with pytest.raises(EngineUnavailableError):
            await engine.containers()

    async def test_lists_only_what_is_hutchs(self, engine: SimulatedEngine):
        await engine.create(replace(spec(), name="postgres"))
        assert await engine.containers() == []
        assert await engine.get("postgres") is not None
        await engine.stop("postgres")
        await engine.start("postgres")
        assert await engine.containers() == []


class TestTwoThousand:
    async def test_are_listed_in_a_few_milliseconds(self, path: Path):
        engine = SimulatedEngine(path)
        for number in range(2000):
            await engine.create(spec(number), start=True)
        await engine.containers()

        async def milliseconds(number: int) -> float:
            await engine.set_labels(spec(number).name, {"n": str(number)})
            began = time.perf_counter()
            assert len(await engine.containers()) == 2000
            return 1000 * (time.perf_counter() - began)

        median = statistics.median([await milliseconds(number) for number in range(50)])
        await engine.close()
        assert median < 20, f"{median:.1f} ms"


class TestReboot:
    async def test_brings_back_what_ran(self, engine: SimulatedEngine):
        await engine.create(spec(1), start=True)
        await engine.create(spec(2))
        before = await engine.status()
        engine.reboot()
        assert (await engine.status()).boot_id != before.boot_id
        powers = {each.name: each.power for each in await engine.containers()}
        assert powers == {spec(1).name: Power.RUNNING, spec(2).name: Power.STOPPED}

    async def test_without_restore_leaves_all_stopped(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        await engine.containers()
        engine.reboot(restore=False)
        assert [each.power for each in await engine.containers()] == [Power.STOPPED]


class TestByHand:
    async def test_a_frozen_container_is_neither_running_nor_stopped(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        engine.freeze(NAME)
        assert [each.power for each in await engine.containers()] == [Power.OTHER]
        with pytest.raises(EngineError):
            await engine.exec(NAME, ["true"])
        with pytest.raises(EngineConflictError):
            await engine.start(NAME)
        await engine.stop(NAME)
        await engine.start(NAME)

    async def test_limits_can_be_lost(self, engine: SimulatedEngine):
        await engine.create(spec())
        engine.lose_limits(NAME)
        assert [each.limits for each in await engine.containers()] == [None]
        await engine.set_limits(NAME, LIMITS)
        assert [each.limits for each in await engine.containers()] == [LIMITS]

    async def test_images_come_and_go(self, engine: SimulatedEngine):
        engine.add_image("cuda")
        engine.remove_image("base")
        assert await engine.images() == ["cuda"]


class TestAccelerators:
    async def test_are_none_until_some_are_put_in(self, engine: SimulatedEngine):
        assert await engine.accelerators() == []
        engine.add_accelerator(CARD)
        assert await engine.accelerators() == [CARD]
        engine.lose_accelerator(CARD.address)
        assert await engine.accelerators() == []

    async def test_are_attached_by_address_or_by_the_path_of_a_node(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        devices = [
            Device("a", DeviceKind.GPU, pci=CARD.address),
            Device("b", DeviceKind.CHAR, source="/dev/nvidia3"),
        ]
        for device in devices:
            with pytest.raises(EngineError):
                await engine.attach(NAME, [device])
        engine.add_accelerator(CARD)
        await engine.attach(NAME, devices)
        result = await engine.exec(NAME, ["stat", "-c", "%t %T", "/dev/nvidia3"])
        assert result.stdout == b"c3 3\n"

    async def test_that_are_simulated_need_no_putting_in(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        await engine.attach(NAME, [simulated(0), simulated(15)])
        result = await engine.exec(NAME, ["stat", "-c", "%t %T", "/dev/hutch-gpu15"])
        assert result.stdout == b"1 3\n"

    @pytest.mark.parametrize("folder", ["hutch-gpu", "hutch-ab12-gpu", "hutch-gpu-7480"])
    async def test_that_are_simulated_may_be_in_the_folder_of_any_hutch(
        self, engine: SimulatedEngine, folder: str
    ):
        await engine.create(spec(), start=True)
        inside = "/dev/hutch-gpu0"
        await engine.attach(
            NAME, [Device("a", DeviceKind.CHAR, source=f"/dev/{folder}/0", path=inside)]
        )
        with pytest.raises(EngineError):
            await engine.attach(
                NAME, [Device("b", DeviceKind.CHAR, source=f"/dev/{folder}/x", path=inside)]
            )


class TestFullness:
    async def test_of_the_pool_refuses_another_container(self, path: Path):
        room = state.IMAGE_SIZE + 2 * state.FOOTPRINT
        engine = SimulatedEngine(path, capacity=Capacity(cpus=8, memory=8 * GiB, disk=room))
        await engine.create(spec(1))
        await engine.create(spec(2))
        with pytest.raises(EngineError, match="space"):
            await engine.create(spec(3))
        await engine.create(spec(2))
        await engine.delete(spec(1).name)
        await engine.create(spec(3))
        status = await engine.status()
        assert (status.disk, status.disk_used) == (room, room)
        await engine.close()

    async def test_of_one_disk_fails_inside_and_nowhere_else(self, engine: SimulatedEngine):
        small = replace(LIMITS, disk=state.IMAGE_SIZE + 1000)
        await engine.create(replace(spec(1), limits=small), start=True)
        await engine.create(spec(2), start=True)
        for name, code in ((spec(1).name, 1), (spec(2).name, 0)):
            result = await engine.exec(name, ["tee", "/root/big"], stdin=bytes(1001))
            assert result.code == code
        assert await engine.read_file(spec(1).name, "/root/big") is None
        assert (await engine.usage(spec(2).name)).disk == state.IMAGE_SIZE + 1001


class TestPrograms:
    async def test_paths_are_relative_to_the_directory(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        await engine.exec(NAME, ["/usr/bin/tee", "file"], stdin=b"x", cwd="/root")
        assert await engine.read_file(NAME, "/root/file") == b"x"
        assert (await engine.exec(NAME, ["head", "-c", "1", "/root/file"])).stdout == b"x"
        assert (await engine.exec(NAME, ["head", "-c", "1", "/none"])).code == 1
        assert (await engine.exec(NAME, ["head"])).code == 1

    async def test_scripts_are_not_run(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        result = await engine.exec(NAME, ["sh", "-c", "echo hello"])
        assert (result.code, result.stdout) == (127, b"")

    async def test_the_environment_has_what_was_given(self, engine: SimulatedEngine):
        await engine.create(spec(), start=True)
        result = await engine.exec(NAME, ["printenv"], environment={"A": "1", "B": "2"})
        assert result.stdout.endswith(b"USER=root\nA=1\nB=2\n")
        assert (await engine.exec(NAME, ["printenv", "C"])).code == 1
        assert (await engine.exec(NAME, ["hostname"])).stdout == f"{NAME}\n".encode()


class TestProvisioning:
    @pytest.mark.parametrize(
        ("verb", "arguments", "stdin", "code"),
        [
            ("person", ["ada", "turing"], b"QQ==\nQQ==\nQQ==\n", 0),
            ("person", ["ada", "turing"], b"not base64!\nQQ==\nQQ==\n", 1),
            ("person", ["ada", "turing"], b"QQ==\n", 2),
            ("person", ["ada"], b"QQ==\nQQ==\nQQ==\n", 2),
            ("person", ["root", "turing"], b"QQ==\nQQ==\nQQ==\n", 3),
            ("keys", ["ada"], b"QQ==\n", 3),
            ("dance", [], b"", 2),
        ],
    )
    async def test_fails_as_the_script_would(
        self, engine: SimulatedEngine, verb: str, arguments: list[str], stdin: bytes, code: int
    ):
        await engine.create(spec(), start=True)
        script = f"# hutch-provision: {verb}\nset -eu\n"
        result = await engine.exec(NAME, ["sh", "-c", script, "hutch", *arguments], stdin=stdin)
        assert result.code == code
        assert bool(result.stderr) == (code != 0)
        assert (await engine.read_file(NAME, "/etc/hostname") is not None) == (code == 0)

    async def test_fails_on_a_full_disk_and_leaves_nothing(self, engine: SimulatedEngine):
        full = replace(LIMITS, disk=state.IMAGE_SIZE)
        await engine.create(replace(spec(), limits=full), start=True)
        argv = ["sh", "-c", "# hutch-provision: person\n", "hutch", "ada", "turing"]
        assert (await engine.exec(NAME, argv, stdin=b"QQ==\n" * 3)).code == 1
        assert await engine.read_file(NAME, "/etc/hostname") is None


class TestChanges:
    @pytest_asyncio.fixture
    async def changes(self, engine: SimulatedEngine) -> AsyncIterator[Change]:
        changes = engine.changes()
        assert (await anext(changes)).name is None
        return changes

    async def test_from_before_the_first_is_waited_for_are_kept(self, engine: SimulatedEngine):
        changes = engine.changes()
        await engine.create(spec())
        assert await anext(changes) == Change(None, "connected")
        assert await anext(changes) == Change(NAME, "created")

    async def test_by_another_process_are_noticed(
        self, changes: AsyncIterator[Change], other: SimulatedEngine
    ):
        await other.create(replace(spec(), name="postgres", address="10.9.9.9"))
        await other.create(spec())
        assert await anext(changes) == Change(NAME, "created")
        await other.start(NAME)
        assert await anext(changes) == Change(NAME, "started")

    async def test_by_this_one_come_at_once(
        self, engine: SimulatedEngine, changes: AsyncIterator[Change]
    ):
        for number in range(20):
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            began = time.monotonic()
            await engine.create(spec(number))
            assert (await waiting).name == spec(number).name
            assert time.monotonic() - began < 0.2

    async def test_that_are_forgotten_are_owned_up_to(
        self,
        engine: SimulatedEngine,
        changes: AsyncIterator[Change],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(database, "CHANGES_KEPT", 10)
        await engine.create(spec())
        await engine.containers()
        for number in range(1, 1200):
            await engine.set_labels(NAME, {"n": str(number)})
        assert (await anext(changes)).name is None
        assert (await engine.containers())[0].labels == {"n": "1199"}

    async def test_after_an_absence_begin_with_look_again(
        self, engine: SimulatedEngine, other: SimulatedEngine, changes: AsyncIterator[Change]
    ):
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.01)
        engine.faults.die()
        await asyncio.sleep(0.3)
        await other.create(spec())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        engine.faults.revive()
        assert await waiting == Change(None, "reconnected")
        await other.start(NAME)
        assert await anext(changes) == Change(NAME, "started")


class TestFaults:
    async def test_slow(self, engine: SimulatedEngine):
        engine.faults.slow(0.1)
        engine.faults.slow(0.0, "status")

        async def seconds(method: str) -> float:
            began = time.monotonic()
            await getattr(engine, method)()
            return time.monotonic() - began

        assert await seconds("images") >= 0.1
        assert await seconds("status") < 0.1

    async def test_fail_so_many_times(self, engine: SimulatedEngine):
        engine.faults.fail("create", times=2, error=EngineConflictError, message="busy")
        assert await engine.containers() == []
        for _ in range(2):
            with pytest.raises(EngineConflictError, match="busy"):
                await engine.create(spec())
            assert await engine.get(NAME) is None
        await engine.create(spec())

    async def test_fail_when_it_is_done_already(self, engine: SimulatedEngine):
        engine.faults.fail("create", error=EngineUnavailableError, after=True)
        with pytest.raises(EngineUnavailableError):
            await engine.create(spec())
        assert await engine.get(NAME) is not None

    async def test_hang_until_released(self, engine: SimulatedEngine):
        engine.faults.hang("create")
        waiting = asyncio.create_task(engine.create(spec()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await engine.get(NAME) is None
        engine.faults.release("create")
        await waiting
        assert await engine.get(NAME) is not None

    async def test_a_cancelled_hanging_call_did_nothing(self, engine: SimulatedEngine):
        engine.faults.hang()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.create(spec())
        engine.faults.release()
        assert await engine.get(NAME) is None

    async def test_die_takes_what_waits_along(self, engine: SimulatedEngine):
        engine.faults.hang("create")
        waiting = asyncio.create_task(engine.create(spec()))
        await asyncio.sleep(0.05)
        engine.faults.die()
        with pytest.raises(EngineUnavailableError):
            await waiting
        with pytest.raises(EngineUnavailableError):
            await engine.containers()
        engine.faults.clear()
        assert await engine.containers() == []

    @pytest.mark.parametrize("method", sorted(METHODS - {"changes"}))
    async def test_reach_every_method(self, engine: SimulatedEngine, method: str):
        arguments = {
            "create": [spec()],
            "exec": [NAME, ["true"]],
            "terminal": [NAME, ["true"]],
            "connect": [NAME, 8888],
            "images": [],
            "accelerators": [],
            "containers": [],
            "status": [],
            "set_forward": [NAME, None],
            "set_limits": [NAME, LIMITS],
            "prepare": [NAME],
            "set_labels": [NAME, {}],
            "read_file": [NAME, "/etc/hosts"],
            **{key: [NAME, "s1"] for key in ("snapshot", "restore", "delete_snapshot")},
            "remove_forward": [NAME, "ssh"],
            **{key: [NAME, []] for key in ("attach", "detach")},
            "set_nvidia_driver": [NAME, True],
            "wait_for_banner": [NAME, "192.0.2.1", 22],
        }.get(method, [NAME])
        named = {
            "wait_for_banner": {"timeout": 0.1},
            "terminal": {"environment": {}, "columns": 80, "rows": 24},
            "prepare": {"limits": LIMITS, "forward": None, "labels": {}},
        }.get(method, {})
        engine.faults.die()
        begun = getattr(engine, method)(*arguments, **named)
        with pytest.raises(EngineUnavailableError):
            await (begun.__aenter__() if hasattr(begun, "__aenter__") else begun)

    def test_of_no_method_are_refused(self):
        faults = Faults()
        for ask in (faults.fail, faults.hang, faults.release, partial(faults.slow, 0.1)):
            with pytest.raises(ValueError, match="creat"):
                ask("creat")

    def test_the_latency_of_incus_names_real_methods(self):
        assert AS_INCUS.keys() <= METHODS
        assert Faults(latency=AS_INCUS).delay("create") == AS_INCUS["create"]


class TestFaultsFromOutside:
    @pytest.fixture
    def ask(self, path: Path):
        asked = path.with_name(path.name + ".faults.json")

        def ask(wanted: object) -> None:
            """Say it anew, or with None that all is well."""
            if wanted is None:
                asked.unlink()
            else:
                asked.write_text(wanted if isinstance(wanted, str) else json.dumps(wanted))

        return ask

    async def test_come_and_go_with_the_file(self, engine: SimulatedEngine, ask):
        ask({"dead": True})
        with pytest.raises(EngineUnavailableError):
            await engine.containers()
        ask({"dead": False})
        await engine.containers()
        ask({"dead": True, "hang": []})
        with pytest.raises(EngineUnavailableError):
            await engine.containers()
        ask(None)
        await engine.containers()

    async def test_fail_and_slow_and_hang(self, engine: SimulatedEngine, ask):
        ask(
            {
                "latency": {"create": 0.1},
                "hang": ["start"],
                "fail": [{"method": "stop", "error": "EngineConflictError", "times": 1}],
            }
        )
        began = time.monotonic()
        await engine.create(spec())
        assert time.monotonic() - began >= 0.1
        with pytest.raises(EngineConflictError):
            await engine.stop(NAME)
        await engine.stop(NAME)
        starting = asyncio.create_task(engine.start(NAME))
        await asyncio.sleep(0.1)
        assert not starting.done()
        ask(None)
        await starting

    async def test_may_ask_for_the_latency_of_incus(self, engine: SimulatedEngine, ask):
        ask({"latency": "incus"})
        began = time.monotonic()
        await engine.create(spec())
        assert time.monotonic() - began >= AS_INCUS["create"]

    async def test_half_a_file_changes_nothing(self, engine: SimulatedEngine, ask):
        ask({"dead": True})
        with contextlib.suppress(EngineUnavailableError):
            await engine.containers()
        ask('{"dead": fal')
        with pytest.raises(EngineUnavailableError):
            await engine.containers()

    @pytest.mark.parametrize(
        "wanted",
        [
            {"fail": [{"method": "creat"}]},
            {"fail": [{"method": "create", "error": "KeyError"}]},
            {"hang": ["creat"]},
            {"latency": {"create": "long"}},
            [],
        ],
    )
    async def test_nonsense_is_refused_aloud(self, engine: SimulatedEngine, ask, wanted: object):
        ask(wanted)
        with pytest.raises(ConfigurationError):
            await engine.containers()
