"""Host ports for tests: two runs at once on one machine must not take each other's.

Blocks lie below those that Linux takes for connections of its own, and outside of those that a
hutch on this machine gives away (22000 to 29999, 30000 to 32767).
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FIRST, _END, _SIZE = 10_000, 22_000, 500


@dataclass(frozen=True)
class Block:
    """Host ports, both ends of them included."""

    first: int
    last: int


@contextmanager
def claimed() -> Iterator[Block]:
    """Ports that are this process's until the end of the block, however it ends."""
    folder = Path(tempfile.gettempdir()) / f"hutch-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for first in range(_FIRST, _END, _SIZE):
        with (folder / str(first)).open("w") as lock:
            try:
                # The kernel lets go of it with the process. The file stays: one that is taken away
                # could be locked by two.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield Block(first, first + _SIZE - 1)
            return
    raise RuntimeError(f"All host ports for tests are claimed in {folder}.")
