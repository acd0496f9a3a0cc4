"""One large file, there and back, whole: `python -m bench files --whole 5GiB`.

1. `hutch files put` sends a file of random bytes to an instance;
2. `hutch files get` brings it back, is interrupted at about the half, and is given again;
3. the sum of what was sent, of what is there and of what came back is compared.

The server's peak of memory is counted anew before each of the two. A rate is the file's size by
the time from the start of the command to its end; of the way back both commands' time, together.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import lab, machine
from bench.byhand import Size
from bench.figures import Measure, Report
from bench.lab import Hutch, contest
from bench.server import HUTCH
from hutch.domain.sizes import GiB, format_size

_BOX = "whole"
_PIECE = 1024 * 1024
_MOST_PATIENCE = 3600.0


def measure(size: int) -> Report:
    """Send `size` bytes there and back. RuntimeError when anything comes back otherwise."""
    report = Report(f"A file of {format_size(size)}, there and back", machine.facts())
    with contest(Size()) as (hutch, _), tempfile.TemporaryDirectory() as folder:
        begun = hutch.client.create_instance(_BOX, disk=format_size(2 * size + 2 * GiB))
        hutch.finish(begun["operation"])
        source, back = Path(folder) / "source", Path(folder) / "back"
        sent = _make(source, size)
        before = hutch.server.memory()[0]

        hutch.server.forget_peak()
        up = _timed(lambda: _put(hutch, source))
        up_peak = hutch.server.memory()[1]
        _same("there", sent, _sum_there(hutch))
        source.unlink()

        hutch.server.forget_peak()
        first = _timed(lambda: _get_half(hutch, back, size))
        part = _part(back).stat().st_size
        second = _timed(lambda: _get(hutch, back))
        down_peak, after = hutch.server.memory()[1], hutch.server.memory()[0]
        _same("here", sent, _sum(back))
    report.facts["load at the end"] = f"{machine.load():.2f}"
    took = f"{first:.1f} and {second:.1f} s"
    report.measures = [
        Measure("upload", size / up / 1e6, "MB/s", note=f"{up:.1f} s"),
        Measure("download", size / (first + second) / 1e6, "MB/s", note=took),
        Measure("interrupted at", 100 * part / size, "%"),
        Measure("the server's memory before", before, "MB"),
        Measure("its peak during the upload", up_peak, "MB"),
        Measure("its peak during the download", down_peak, "MB"),
        Measure("the server's memory after", after, "MB"),
    ]
    report.notes = [f"SHA-256 of what was sent, was there and came back: {sent}"]
    return report


def _make(path: Path, size: int) -> str:
    """Fill a file with random bytes; their sum."""
    found = hashlib.sha256()
    with path.open("wb") as file:
        left = size
        while left:
            piece = os.urandom(min(_PIECE, left))
            found.update(piece)
            file.write(piece)
            left -= len(piece)
    return found.hexdigest()


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_there(hutch: Hutch) -> str:
    """What the instance itself says."""
    words = ("exec", _BOX, "--", "sha256sum", f"/home/{lab.PERSON}/whole")
    done = subprocess.run(
        [*HUTCH, *words], env=hutch.environment(), check=True, capture_output=True, text=True
    )
    return done.stdout.split()[0]


def _same(where: str, expected: str, found: str) -> None:
    if found != expected:
        raise RuntimeError(f"what is {where} is not what was sent: {found}, not {expected}")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _put(hutch: Hutch, source: Path) -> None:
    if _files(hutch, "put", _BOX, str(source), "whole").wait() != 0:
        raise RuntimeError("the upload failed")


def _get(hutch: Hutch, back: Path) -> None:
    """The rest. The part of the first time must still be what it goes on with."""
    if not _part(back).exists():
        raise RuntimeError("the interrupted download left nothing to go on with")
    if _files(hutch, "get", _BOX, "whole", str(back)).wait() != 0:
        raise RuntimeError("the download failed")


def _get_half(hutch: Hutch, back: Path, size: int) -> None:
    """Until half of it is here; then end it, as hard as there is."""
    process = _files(hutch, "get", _BOX, "whole", str(back))
    end = time.monotonic() + _MOST_PATIENCE
    part = _part(back)
    while not part.exists() or part.stat().st_size < size / 2:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the download ended, or came to a halt, before the half")
        time.sleep(0.05)
    process.kill()
    if process.wait() == 0:
        raise RuntimeError("the interrupted download says that it is whole")


def _part(back: Path) -> Path:
    return back.with_name(f".{back.name}.hutch-part")


def _files(hutch: Hutch, *words: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [*HUTCH, "files", *words], env=hutch.environment(), stdin=quiet, stdout=quiet, stderr=quiet
    )
