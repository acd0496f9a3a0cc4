"""What is printed where: for people, for pipes and for programs."""

import json
import os
import subprocess

import pytest

from hutch.cli.terminal import clean
from tests.cli.pty_session import on_terminal
from tests.cli.server import PROGRAM, Person, Server


def test_a_terminal_gets_colours_and_a_pipe_does_not(alice: Person) -> None:
    alice.hutch("create", "box")
    session = on_terminal(alice, "list")
    assert session.end() == 0
    assert "\x1b[32mrunning\x1b[0m" in session.seen
    assert "\x1b" not in alice.hutch("list").out


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(alice: Person, variables: dict[str, str]) -> None:
    alice.hutch("create", "box")
    session = on_terminal(alice, "list", **variables)
    assert session.end() == 0
    assert "running" in session.seen
    assert "\x1b" not in session.seen


def test_colours_do_not_move_the_columns(alice: Person) -> None:
    alice.hutch("create", "box")
    session = on_terminal(alice, "list")
    session.end()
    plain = session.seen.replace("\r", "")
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert plain == alice.hutch("list").out


def test_output_on_a_pipe_is_whole_however_narrow_the_terminal(alice: Person) -> None:
    name = "a" + "b" * 62
    alice.hutch("create", name)
    alice.variables["COLUMNS"] = "20"
    out = alice.process("list").stdout.decode()
    assert name in out
    assert len(out.splitlines()) == 2
    assert all(line == line.rstrip() for line in out.splitlines())


def test_every_column_stands_under_its_title(alice: Person) -> None:
    alice.hutch("create", "box")
    head, row = alice.hutch("list").out.splitlines()
    at = head.index("IMAGE")
    assert row[at:].split()[0] == "base"


def test_a_reader_that_has_seen_enough_ends_it_quietly(alice: Person) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [*PROGRAM, "list", "--json"],
        env={"PATH": os.environ["PATH"], **alice.signed_in},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(write)
    assert ended.returncode == 141
    assert ended.stderr == b""


def test_an_old_encoding_gets_escapes_and_no_crash(alice: Person) -> None:
    alice.variables |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = alice.process("create", "Ünïcode")
    assert ended.returncode == 6
    assert b"\\xdc" in ended.stderr


def test_control_characters_are_replaced() -> None:
    assert clean("a\x1b[31mb\x07\u202ec") == "a�[31mb��c"
    assert clean("ü — …") == "ü — …"


def test_json_stays_ascii_and_unbroken(server: Server, alice: Person) -> None:
    ran = alice.hutch("show", "Ünïcode\x1b[2J", "--json")
    assert ran.stderr.isascii()
    assert b"\x1b" not in ran.stderr
    assert "Ünïcode" in json.loads(ran.err)["error"]["message"]
