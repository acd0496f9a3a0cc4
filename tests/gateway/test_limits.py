"""Who may come, and who has to go for it."""

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.gateway.board import PEOPLE, Board, make
from hutch.gateway.limits import WAITING_PER_ADDRESS, Limits, unit
from hutch.settings import Settings


@dataclass(eq=False)
class Caller:
    address: str
    gone: bool = False

    def abort(self) -> None:
        self.gone = True


@dataclass
class Watch:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    clock: Watch = field(default_factory=Watch)
    limits: Limits = field(init=False)

    def open(self, **settings: int) -> Limits:
        return Limits(Settings(**settings), self.clock)


@pytest.fixture
def door() -> Door:
    return Door()


def test_one_more_than_waits_at_most_costs_the_oldest_of_the_same_address_its_place(
    door: Door,
) -> None:
    limits = door.open()
    crowd = [Caller("a") for _ in range(WAITING_PER_ADDRESS)]
    other = Caller("b")
    for caller in (other, *crowd, Caller("a")):
        limits.begin(caller)
    assert [caller.gone for caller in crowd[:2]] == [True, False]
    assert not other.gone
    assert limits.waiting == WAITING_PER_ADDRESS + 1


def test_when_all_places_are_taken_the_address_with_most_gives_one_up(door: Door) -> None:
    limits = door.open(gateway_waiting=8)
    few, many = Caller("a"), [Caller("b") for _ in range(7)]
    for caller in (few, *many, Caller("c")):
        limits.begin(caller)
    assert not few.gone
    assert [caller.gone for caller in many] == [True] + [False] * 6
    assert limits.waiting == 8


def test_who_logs_in_or_goes_gives_the_place_back_once(door: Door) -> None:
    limits = door.open()
    caller = Caller("a")
    limits.begin(caller)
    limits.end(caller)
    limits.end(caller)
    assert limits.waiting == 0


def test_an_address_that_fails_too_often_is_turned_away_for_a_while(door: Door) -> None:
    limits = door.open(gateway_failures=3, login_window_seconds=60)
    for _ in range(3):
        assert limits.admit("a") == ""
        limits.fail("a")
    assert "Too many attempts from a. Try again in 6" in limits.admit("a")
    assert limits.admit("b") == ""
    door.clock.now += 61
    assert limits.admit("a") == ""


def test_an_address_that_comes_too_often_is_turned_away_for_a_minute(door: Door) -> None:
    limits = door.open()
    for _ in range(1200):
        assert limits.admit("a") == ""
    assert limits.admit("a") != ""
    door.clock.now += 61
    assert limits.admit("a") == ""


def test_a_person_and_everyone_have_so_many_connections_at_most(door: Door) -> None:
    limits = door.open(gateway_connections=3, gateway_connections_per_person=2)
    assert [limits.enter("alice") for _ in range(2)] == ["", ""]
    assert "You have 2 connections to this gateway, and may have 2" in limits.enter("alice")
    assert limits.enter("bob") == ""
    assert "as many connections as it may" in limits.enter("carol")
    limits.leave("alice")
    assert limits.enter("carol") == ""


def test_processes_count_together(door: Door) -> None:
    file = make(3)
    first, second, gone = (
        Limits(
            Settings(gateway_connections_per_person=2, gateway_failures=3, login_window_seconds=60),
            door.clock, Board.of(file, row, 3),
        )
        for row in range(3)
    )  # fmt: skip
    assert first.enter("alice") == gone.enter("alice") == ""
    assert "You have 2 connections" in second.enter("alice")
    first.fail("a")
    door.clock.now += 30
    for _ in range(2):
        second.fail("a")
    assert "Too many attempts from a" in gone.admit("a")
    assert gone.admit("b") == ""
    # What a process had that is gone is nobody's any more.
    Board.of(file, 0, 3).clear(2)
    assert second.enter("alice") == ""
    # Each forgets what it has seen after its own minute.
    door.clock.now += 31
    assert first.admit("a") == ""
    os.close(file)


@given(st.lists(st.text(max_size=8), max_size=300))
def test_nobody_is_counted_as_more_than_they_are(names: list[str]) -> None:
    board = Board.alone()
    for name in names:
        board.add(PEOPLE, name, 1)
    for name in names:
        assert board.total(PEOPLE, name) >= names.count(name)
    assert sum(board.total(PEOPLE, name) != names.count(name) for name in set(names)) <= 1
    for name in names:
        board.add(PEOPLE, name, -1)
    assert {board.total(PEOPLE, name) for name in names} <= {0}


def test_what_counts_as_one_address() -> None:
    assert unit("192.0.2.7") == "192.0.2.7"
    assert unit("::ffff:192.0.2.7") == "192.0.2.7"
    assert unit("2001:db8:1:2:3::4") == unit("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert unit("fe80::1%eth0") == "fe80::/64"
