"""How the libraries of a node's NVIDIA driver come into a container, on a real Incus.

There is no NVIDIA card here. What is real is everything up to NVIDIA's own program: Incus, LXC
and its hook run, and a stand-in for `nvidia-container-cli` notes what it was asked for.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.engine.base import Power
from hutch.engine.incus import IncusEngine
from hutch.errors import EngineError
from hutch.setup.private import PrivateIncus
from tests.engine.contract import Site, seen
from tests.engine.incus_fixtures import RealNodeFiles, needs_incus, node_address
from tests.ports import claimed

pytestmark = pytest.mark.incus

STAND_IN = """#!/bin/sh
case " $* " in *" configure "*) ;; *) exit 1 ;; esac
for last; do :; done
test ! -e {broken} || {{ echo "nvidia-container-cli: driver error: version mismatch" >&2; exit 1; }}
echo "$*" >> "$last/etc/given"
"""
# LXC's own, told where the stand-in is: LXC gives its hooks a PATH of its own.
HOOK = """#!/bin/sh
PATH={folder}:$PATH exec /usr/share/lxc/hooks/nvidia "$@"
"""


def executable(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file: while it is there, the driver of the node is broken."""
    return tmp_path_factory.mktemp("nvidia") / "broken"


@pytest_asyncio.fixture(scope="module")
async def site(broken: Path, node_files: RealNodeFiles) -> AsyncIterator[Site]:
    needs_incus()
    folder = broken.parent
    executable(folder / "nvidia-container-cli", STAND_IN.format(broken=broken))
    executable(folder / "nvidia", HOOK.format(folder=folder))
    # The hook runs as root of the container, which is nobody here.
    for each in (folder, *folder.parents):
        each.chmod(each.stat().st_mode | 0o111)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=":")
        patch.setenv("INCUS_LXC_HOOK", str(folder))
        async with PrivateIncus() as incus:
            subnet = str(incus.subnet)
            engine = IncusEngine(
                incus.url, project=incus.project, pool=incus.pool, network=incus.network
            )
            with claimed() as ports:
                yield Site(engine, "base", subnet, node_address(), node_files, ports.first)
            await engine.close()


@pytest.fixture
def engine(site: Site) -> IncusEngine:
    assert isinstance(site.engine, IncusEngine)
    return site.engine


async def given(engine: IncusEngine, name: str) -> list[str]:
    """What NVIDIA's program was asked for, at each start."""
    content = await engine.read_file(name, "/etc/given") or b""
    return content.decode().splitlines()


async def test_they_are_put_in_at_each_start_and_no_card_with_them(
    engine: IncusEngine, site: Site
) -> None:
    spec = site.spec(has_nvidia_driver=True)
    await engine.create(spec, start=True)
    (asked,) = await given(engine, spec.name)
    assert {"--compute", "--utility", "--no-cgroups"} <= set(asked.split())
    assert "--device" not in asked
    await engine.stop(spec.name, timeout=0)
    await engine.start(spec.name)
    assert len(await given(engine, spec.name)) == 2
    await engine.delete(spec.name)


async def test_they_come_to_a_machine_from_before_at_its_next_start(
    engine: IncusEngine, site: Site
) -> None:
    spec = site.spec()
    await engine.create(spec, start=True)
    assert await given(engine, spec.name) == []
    for wanted in (True, False):
        # Also asked of one that runs: what runs is not disturbed.
        for _ in range(2):
            await engine.set_nvidia_driver(spec.name, wanted)
        found = await seen(engine, spec.name)
        assert (found.has_nvidia_driver, found.power) == (wanted, Power.RUNNING)
        await engine.stop(spec.name, timeout=0)
        await engine.start(spec.name)
        assert len(await given(engine, spec.name)) == 1
    await engine.delete(spec.name)


async def test_a_broken_driver_keeps_what_wants_it_from_starting_and_that_can_be_given_up(
    engine: IncusEngine, site: Site, broken: Path
) -> None:
    spec = site.spec(has_nvidia_driver=True)
    broken.touch()
    try:
        with pytest.raises(EngineError) as refused:
            await engine.create(spec, start=True)
        assert type(refused.value) is EngineError
        for _ in range(2):
            # Also right after one that failed, when Incus says for a while that it runs.
            with pytest.raises(EngineError):
                await engine.start(spec.name)
        assert (await seen(engine, spec.name)).power is Power.STOPPED
        await engine.set_nvidia_driver(spec.name, False)
        await engine.create(spec, start=True)
        assert (await seen(engine, spec.name)).power is Power.RUNNING
    finally:
        broken.unlink()
        await engine.delete(spec.name)
