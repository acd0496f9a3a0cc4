import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain import names
from hutch.domain.ids import new_engine_name, new_id
from hutch.errors import InvalidNameError

NASTY = [
    "",
    " ",
    "-",
    "-a",
    "a-",
    "1a",
    "A",
    "a_b",
    "a.b",
    "a b",
    "a\n",
    "\na",
    "a\0b",
    "../a",
    "a/b",
    "a;b",
    "$(id)",
    "`id`",
    "a|b",
    "a&b",
    "a'b",
    'a"b',
    "a*",
    "~a",
    "ü",
    "naïve",
    "а",  # Cyrillic
    "ａ",  # full width
    "a" + "١",  # an Arabic digit
    "é",
    "👩‍🔬",
    "a" * 64,
    "a" * 100_000,
]

LETTERS = string.ascii_lowercase
INNER = string.ascii_lowercase + string.digits + "-"


def labels(most: int) -> st.SearchStrategy[str]:
    """Names that are valid by the definition in words, made another way than by its pattern."""
    return st.text(INNER, min_size=0, max_size=most - 2).flatmap(
        lambda inner: st.builds(
            lambda first, last: first + inner + last,
            st.sampled_from(LETTERS),
            st.sampled_from(LETTERS + string.digits),
        )
    )


@pytest.mark.parametrize("check", [names.instance_name, names.user_name, names.snapshot_name])
@pytest.mark.parametrize("name", NASTY, ids=lambda name: ascii(name[:20]))
def test_a_nasty_name_is_refused(check, name: str):
    with pytest.raises(InvalidNameError):
        check(name)


@pytest.mark.parametrize("check", [names.instance_name, names.user_name, names.snapshot_name])
@pytest.mark.parametrize("name", ["a", "ab", "a1", "a-1", "a--b", "z" * 32])
def test_a_good_name_is_returned_as_it_is(check, name: str):
    assert check(name) == name


def test_the_longest_names():
    assert names.instance_name("a" * 63)
    assert names.snapshot_name("a" * 63)
    with pytest.raises(InvalidNameError):
        names.user_name("a" * 33)


@given(labels(63))
def test_every_label_is_a_name_of_instances_and_snapshots(name: str):
    assert names.instance_name(name) == name
    assert names.snapshot_name(name) == name


@given(st.text())
def test_whatever_is_accepted_is_harmless(name: str):
    for check in (names.instance_name, names.user_name, names.snapshot_name):
        try:
            check(name)
        except InvalidNameError:
            continue
        assert name.isascii()
        assert set(name) <= set(INNER)
        assert name[0] in LETTERS
        assert not name.endswith("-")
        assert len(name) <= 63


@pytest.mark.parametrize("name", ["root", "daemon", "www-data", "sshd", "sudo", "hutch"])
def test_an_account_of_the_system_is_no_persons_name(name: str):
    with pytest.raises(InvalidNameError, match=name):
        names.user_name(name)
    assert names.instance_name(name) == name


def test_the_error_shows_only_the_beginning_of_a_long_name():
    with pytest.raises(InvalidNameError) as caught:
        names.instance_name("A" * 1_000_000)
    assert len(caught.value.message) < 200
    assert len(caught.value.detail["given"]) < 100
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["my laptop", "ada@desk", "CI token 2", "a", "x" * 64, "a+b.c_d-e"]
)
def test_a_title_may_be_what_people_write(text: str):
    assert names.title("key", text) == text


@pytest.mark.parametrize("text", ["", " a", "a\n", "<b>", "a\tb", "x" * 65, "é", "\x1b[31m", "-a"])
def test_a_title_holds_no_markup_and_no_control_characters(text: str):
    with pytest.raises(InvalidNameError):
        names.title("key", text)


def test_ids_are_opaque_and_differ():
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    assert re.fullmatch("hutch-[0-9a-f]{8}", new_engine_name())
