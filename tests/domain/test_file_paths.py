import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.file_paths import absolute, folder_of, join, name_of
from hutch.errors import InvalidPathError

HOME = b"/home/alice"


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        (b"", HOME),
        (b"a", HOME + b"/a"),
        (b"./a//b/", HOME + b"/a/b"),
        (b"/", b"/"),
        (b"//etc/./hosts", b"/etc/hosts"),
        (b"~", HOME + b"/~"),
        (b"..a/b..", HOME + b"/..a/b.."),
        (b"\xff\n", HOME + b"/\xff\n"),
    ],
)
def test_a_path_begins_at_the_root_or_at_home(given_: bytes, meant: bytes):
    assert absolute(given_, HOME) == meant


@pytest.mark.parametrize("bad", [b"..", b"a/..", b"/../x", b"a/../../b", b"a\0b", b"x" * 4096])
def test_what_leads_up_holds_nul_or_is_too_long_is_refused(bad: bytes):
    with pytest.raises(InvalidPathError):
        absolute(bad, HOME)


@given(st.binary(max_size=100))
def test_what_is_meant_is_plain_and_means_itself(given_: bytes):
    try:
        path = absolute(given_, HOME)
    except InvalidPathError:
        assert b"\0" in given_ or b".." in given_
        return
    assert path.startswith(b"/")
    assert not {b"", b".", b".."} & set(path[1:].split(b"/")) or path == b"/"
    assert absolute(path, b"/elsewhere") == path
    assert absolute(join(folder_of(path), name_of(path)), b"/elsewhere") == path
