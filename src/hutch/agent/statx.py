"""What an open file is, told by the kernel from what it has: no file system is asked.

A person may bring a file system of their own into their machine (FUSE), and let every question to
it wait for ever. `os.stat` would wait with it; statx(2) with AT_STATX_DONT_SYNC does not.
"""

import ctypes
import os
import stat
from dataclasses import dataclass

_AT_FDCWD = -100
_DONT_SYNC = 0x4000
_TYPE, _NLINK, _INO = 0x001, 0x004, 0x100


class _Statx(ctypes.Structure):
    """`struct statx` of linux/stat.h, which the kernel never changes but at the end."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("_spare", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("times", ctypes.c_uint64 * 8),
        ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32),
        ("dev_major", ctypes.c_uint32),
        ("dev_minor", ctypes.c_uint32),
        ("_rest", ctypes.c_uint64 * 14),
    )


_libc = ctypes.CDLL(None, use_errno=True)
# glibc has it since 2.28, musl since 1.2.5.
_call = _libc.statx


@dataclass(frozen=True, slots=True)
class CharacterDevice:
    """An open character device."""

    rdev: int
    """Which device it is, as `os.makedev` numbers it."""
    identity: tuple[int, int]
    """Which node it was opened by: the numbers of the file system and of the file in it."""
    is_deleted: bool


def character_device(path: str) -> CharacterDevice | None:
    """What is at a path of /proc; None when that is no character device, or has gone."""
    found = _Statx()
    wanted = _TYPE | _NLINK | _INO
    if _call(_AT_FDCWD, os.fsencode(path), _DONT_SYNC, wanted, ctypes.byref(found)) != 0:
        return None
    if not stat.S_ISCHR(found.mode):
        return None
    return CharacterDevice(
        os.makedev(found.rdev_major, found.rdev_minor),
        (os.makedev(found.dev_major, found.dev_minor), found.ino),
        found.nlink == 0,
    )
