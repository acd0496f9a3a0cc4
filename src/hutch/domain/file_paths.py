"""Paths of files inside an instance, as people give them: bytes, since Linux has no other kind."""

from hutch.errors import InvalidPathError

LONGEST = 4095
"""Bytes: what Linux takes."""


def absolute(given: bytes, home: bytes) -> bytes:
    """The path that is meant: from `home` on unless it begins with `/`; without `//`, `.` and a `/`
    at its end. The empty one is `home`.

    Raises InvalidPathError for one that holds NUL or `..`, or is too long.
    """
    if b"\0" in given:
        raise InvalidPathError(
            "The path contains a NUL character.", hint="Linux has none in its names: leave it out."
        )
    whole = given if given.startswith(b"/") else home + b"/" + given
    parts = [part for part in whole.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise InvalidPathError(
            "The path contains `..`, which leads elsewhere than it seems where there are links.",
            hint="Name the place itself, from / on.",
        )
    path = b"/" + b"/".join(parts)
    if len(path) > LONGEST:
        raise InvalidPathError(f"The path is longer than {LONGEST} bytes.", hint="Shorten it.")
    return path


def folder_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


def name_of(path: bytes) -> bytes:
    """The last part; empty for `/`."""
    return path.rpartition(b"/")[2]


def join(folder: bytes, name: bytes) -> bytes:
    return folder.rstrip(b"/") + b"/" + name
