"""Host ports that tests claim are nobody else's, until whoever has them ends."""

import subprocess
import sys
from contextlib import ExitStack

from tests.ports import claimed

_HOLDS = "from tests.ports import claimed; import contextlib, sys; s = contextlib.ExitStack(); \
b = s.enter_context(claimed()); print(b.first, flush=True); sys.stdin.read()"


def test_ports_are_one_run_s_alone_until_it_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        with claimed() as one, claimed() as two:
            assert len({one.first, two.first, theirs}) == 3
            assert one.last < two.first or two.last < one.first
        other.kill()
    assert theirs in _free()


def test_ports_are_those_that_neither_hutch_nor_the_kernel_gives_away() -> None:
    with claimed() as block:
        assert 10_000 <= block.first < block.last < 22_000


def _free() -> set[int]:
    """Where the first blocks begin that nobody has."""
    with ExitStack() as stack:
        return {stack.enter_context(claimed()).first for _ in range(8)}
