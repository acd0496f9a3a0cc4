"""Files in and out of real instances, through a real server: what it holds, and what ends it."""

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.system.site import Person, Site

pytestmark = pytest.mark.incus

SIZE = 600 * 1024 * 1024
MOST_MORE = 96 * 1024 * 1024
"""Bytes by which the server may grow while that passes: a few pieces, and what Python keeps."""


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "4GiB", "--cpus", "1")
    return "box"


def peak(site: Site) -> int:
    """The most memory that the server has had at once, in bytes."""
    assert site.server is not None
    lines = Path(f"/proc/{site.server.pid}/status").read_text().splitlines()
    [line] = [each for each in lines if each.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def make_file(path: Path, size: int) -> str:
    """A file that compresses badly, and its digest."""
    digest = hashlib.sha256()
    block = bytes(range(256)) * 4096
    with path.open("wb") as file:
        for number in range(size // len(block)):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


async def test_a_large_file_passes_without_being_held(
    site: Site, alice: Person, box: str, tmp_path: Path
) -> None:
    there = tmp_path / "large"
    digest = make_file(there, SIZE)
    await alice.ok("files", "list", box)
    before = peak(site)
    await alice.ok("files", "put", box, str(there), "large")
    ran = await alice.ok("exec", box, "--", "sha256sum", "large")
    assert ran.out.split()[0] == digest
    await alice.ok("files", "get", box, "large", str(tmp_path / "back"))
    with (tmp_path / "back").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    assert peak(site) - before < MOST_MORE
    owner = (await alice.ok("exec", box, "--", "stat", "-c", "%U:%G", "large")).out
    assert owner == "alice:alice\n"


async def test_the_disk_of_a_stopped_one_is_reached(alice: Person, box: str) -> None:
    await alice.ok("exec", box, "--", "sh", "-c", "mkdir d && echo inside > d/f")
    await alice.ok("stop", box)
    assert (await alice.ok("files", "get", box, "d/f", "-")).out == "inside\n"
    await alice.ok("files", "rename", box, "d/f", "d/g")
    await alice.ok("start", box)
    assert (await alice.ok("exec", box, "--", "cat", "d/g")).out == "inside\n"


async def test_a_full_disk_leaves_nothing_and_the_machine_goes_on(
    alice: Person, box: str, tmp_path: Path
) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(6 * 1024**3)
    ran = await alice.hutch("files", "put", box, str(huge), "huge", "--json")
    assert "disk_full" in ran.err, ran
    listed = (await alice.ok("files", "list", box, "--json")).json()["entries"]
    assert [each["name"] for each in listed if "huge" in each["name"]] == []
    assert [each["name"] for each in listed if each["name"].startswith(".hutch-upload")] == []


async def test_a_transfer_holds_up_no_stop_and_ends_with_a_reason(
    site: Site, alice: Person, box: str
) -> None:
    token = (await alice.ok("token", "create", "t", "--json")).json()["token"]
    began, stopped = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b"first"
        began.set()
        await stopped.wait()

    async with httpx.AsyncClient(timeout=60) as client:
        sending = asyncio.create_task(
            client.put(
                f"{site.url}/api/v1/instances/{box}/files/content",
                params={"path": "slow"},
                headers={"Authorization": f"Bearer {token}"},
                content=slowly(),
            )
        )
        await began.wait()
        await alice.ok("stop", box)
        # This client looks at the answer once it has said everything.
        stopped.set()
        answer = await sending
    assert answer.json()["error"]["code"] == "wrong_state"
    await alice.ok("start", box)
    listed = (await alice.ok("files", "list", box, "--json")).json()["entries"]
    assert "slow" not in {each["name"] for each in listed}
