"""Numbers that the processes of one gateway share, so that a limit holds for all of them together.

A piece of memory with a row for each process, which writes there and nowhere else, and reads what
all have written: so nobody waits for anybody. In a row a name has two places out of many, chosen by
a keyed hash; of what stands there the smaller one counts (a count-min sketch), so two names that
share a place do not get in each other's way.
"""

import hashlib
import mmap
import os

_PLACES = 1 << 15
_TABLES = 3
_ROW = _TABLES * 2 * _PLACES
_KEY = 16
_NUMBER = 4
_MOST = 2**32 - 1

PEOPLE, FAILURES, SINCE = range(_TABLES)
"""Connections of a person; failed logins of an address, and the second of the first of them."""


class Board:
    """One process's view: its own row, and the sums over all rows."""

    def __init__(self, memory: "mmap.mmap | bytearray", row: int, rows: int) -> None:
        whole = memoryview(memory)
        self._key = bytes(whole[:_KEY])
        self._numbers = whole[_KEY : _KEY + _size(rows)].cast("I")
        self._own = row * _ROW
        self._rows = range(0, rows * _ROW, _ROW)

    @classmethod
    def alone(cls) -> "Board":
        """For a process that shares nothing."""
        return cls(bytearray(_KEY + _size(1)), 0, 1)

    @classmethod
    def of(cls, file: int, row: int, rows: int) -> "Board":
        """In memory that `make` has made."""
        return cls(mmap.mmap(file, _KEY + _size(rows)), row, rows)

    def places(self, table: int, name: str) -> tuple[int, int]:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._key).digest()
        first = int.from_bytes(digest[:4], "big") % _PLACES
        second = int.from_bytes(digest[4:], "big") % _PLACES
        at = table * 2 * _PLACES
        return at + first, at + _PLACES + second

    def add(self, table: int, name: str, by: int) -> None:
        """Count in this process's row; never below nothing."""
        for place in self.places(table, name):
            self.put(place, self.own(place) + by)

    def total(self, table: int, name: str) -> int:
        """What all processes have counted."""
        return min(
            sum(self._numbers[row + place] for row in self._rows)
            for place in self.places(table, name)
        )

    def own(self, place: int) -> int:
        return self._numbers[self._own + place]

    def put(self, place: int, number: int) -> None:
        self._numbers[self._own + place] = max(0, min(number, _MOST))

    def column(self, place: int) -> list[int]:
        """What stands at a place in each row."""
        return [self._numbers[row + place] for row in self._rows]

    def clear(self, row: int) -> None:
        """Forget what a process had counted, which is gone."""
        at = row * _ROW
        self._numbers[at : at + _ROW] = memoryview(bytes(_ROW * _NUMBER)).cast("I")


def make(rows: int) -> int:
    """Memory for so many processes, as an open file that they can be given."""
    file = os.memfd_create("hutch-gateway")
    os.truncate(file, _KEY + _size(rows))
    os.write(file, os.urandom(_KEY))
    return file


def _size(rows: int) -> int:
    return rows * _ROW * _NUMBER
