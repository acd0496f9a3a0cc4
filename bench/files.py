"""Files: `hutch files` against `scp`, in turns, to and from one instance on the same Incus.

| what     | hutch                            | scp                                  |
|----------|----------------------------------|--------------------------------------|
| upload   | `hutch files put`, until it ends | `scp FILE bench@…:`, until it ends   |
| download | `hutch files get`, until it ends | `scp bench@…:FILE .`, until it ends  |

Both start a program and log in, and write to the account's home; scp encrypts as well.
The server's memory is its peak during all of it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from bench import lab, machine, ssh
from bench.byhand import Size
from bench.figures import Comparison, Measure, Report, median
from bench.lab import Hutch, contest
from bench.lifecycle import Clock, in_turn
from bench.server import HUTCH

MEBIBYTES = int(os.environ.get("HUTCH_BENCH_FILE_MIB", "256"))
"""The file's size. For a large one, once and without scp: `--whole 5GiB` (bench/whole.py)."""
_BOX = "files"
_PIECE = 1024 * 1024


def measure(rounds: int) -> Report:
    report = Report(f"Files of {MEBIBYTES} MiB", machine.facts())
    clock = Clock()
    with contest(Size()) as (hutch, _), tempfile.TemporaryDirectory() as folder:
        disk = f"{max(4, 3 * MEBIBYTES // 1024 + 2)}GiB"
        begun = hutch.client.create_instance(_BOX, disk=disk)
        hutch.finish(begun["operation"])
        door = lab.door(begun["instance"])
        hutch.log_in(door)
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(MEBIBYTES):
                file.write(os.urandom(_PIECE))
        before = hutch.server.memory()[1]
        for number in range(rounds):
            in_turn(
                number,
                lambda: _with_hutch(clock, hutch, source),
                lambda: _with_scp(clock, hutch, door, source),
            )
        peak = hutch.server.memory()[1]
    report.facts["load at the end"] = f"{machine.load():.2f}"
    s = clock.samples
    report.comparisons = [
        Comparison("upload", s["put"], s["put by scp"]),
        Comparison("download", s["get"], s["get by scp"]),
    ]
    size = MEBIBYTES * 1024 * 1024 / 1e6
    report.measures = [
        Measure("upload", size / median(s["put"]), "MB/s"),
        Measure("download", size / median(s["get"]), "MB/s"),
        Measure("upload by scp", size / median(s["put by scp"]), "MB/s"),
        Measure("download by scp", size / median(s["get by scp"]), "MB/s"),
        Measure("the server's peak of memory grew by", peak - before, "MB"),
    ]
    return report


def _with_hutch(clock: Clock, hutch: Hutch, source: Path) -> None:
    back = source.with_name("back")
    with clock("put"):
        _run(hutch, "put", _BOX, str(source), "by-hutch", "--yes")
    with clock("get"):
        _run(hutch, "get", _BOX, "by-hutch", str(back), "--yes")
    _check(source, back)


def _run(hutch: Hutch, *words: str) -> None:
    subprocess.run(
        [*HUTCH, "files", *words], env=hutch.environment(), check=True, stdout=subprocess.DEVNULL
    )


def _with_scp(clock: Clock, hutch: Hutch, door: ssh.Door, source: Path) -> None:
    back = source.with_name("back")
    there = f"{door.user}@{door.host}:by-scp"
    with clock("put by scp"):
        _scp(hutch, door, str(source), there)
    with clock("get by scp"):
        _scp(hutch, door, there, str(back))
    _check(source, back)


def _scp(hutch: Hutch, door: ssh.Door, source: str, target: str) -> None:
    known = hutch.key.with_name(f"known-{door.port}")
    known.write_text(f"bench {door.host_key}\n")
    subprocess.run(
        [
            "scp", "-q", "-F", "none", "-i", str(hutch.key), "-P", str(door.port),
            "-o", f"UserKnownHostsFile={known}", "-o", "HostKeyAlias=bench",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            source, target,
        ],
        check=True,
    )  # fmt: skip


def _check(source: Path, back: Path) -> None:
    """What came back is what went there, or the numbers mean nothing."""
    subprocess.run(["cmp", "--silent", str(source), str(back)], check=True)
    back.unlink()
