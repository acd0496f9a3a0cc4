"""`hutch shell` on a real terminal."""

import fcntl
import re
import signal
import struct
import termios

import pytest

from tests.cli.pty_session import on_terminal
from tests.cli.server import Person


@pytest.fixture
def box(alice: Person) -> Person:
    assert alice.hutch("create", "box").code == 0
    return alice


def test_a_shell_takes_keys_and_size_and_ends(box: Person) -> None:
    session = on_terminal(box, "shell", "box")
    session.expect("$ ")
    session.type("echo he''llo\r")
    session.expect("\r\nhello\r\n")
    fcntl.ioctl(session.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
    session.process.send_signal(signal.SIGWINCH)
    while "50 132" not in session.seen:
        session.type("stty size\r")
        session.expect("stty size")
        session.seen = session.seen.replace("stty size", "", 1)
        session.expect("\r\n$ ")
    # Ctrl-C is for the shell inside, not for the command here.
    session.type("flood\r")
    session.expect("lazy dog")
    session.type("\x03")
    session.expect("^C")
    session.type("exit\r")
    assert session.end() == 0


def test_who_leaves_can_come_back(box: Person) -> None:
    session = on_terminal(box, "shell", "box")
    session.expect("$ ")
    session.type("echo before\r")
    session.expect("\r\nbefore\r\n$ ")
    session.type("~")
    session.type(".")
    assert session.end() == 0
    found = re.search(r"--session ([0-9a-f]{32})", session.seen)
    assert found, session.seen
    again = on_terminal(box, "shell", "box", "--session", found[1])
    again.expect("\r\nbefore\r\n$ ")
    again.type("exit\r")
    assert again.end() == 0
    assert "a new one" not in again.seen
    late = on_terminal(box, "shell", "box", "--session", found[1])
    late.expect("That shell has ended. This is a new one.")
    late.expect("$ ")
    late.type("exit\r")
    assert late.end() == 0


def test_without_a_terminal_it_says_what_to_use(box: Person) -> None:
    ran = box.hutch("shell", "box")
    assert ran.code == 2
    assert "hutch exec" in ran.err


def test_what_is_refused_is_told(box: Person) -> None:
    session = on_terminal(box, "shell", "nobodys")
    assert session.end() == 3
    assert "There is no instance 'nobodys'" in session.seen
