import base64
import json

import pytest

from tests.cli.server import Person, run_hutch

AWKWARD = ["$(id)", "`id`", ";id", "|id", "&& id", "a b", "'", '"', "*", "~", "-n", "--json", "ü"]


@pytest.fixture
def box(alice: Person) -> Person:
    assert alice.hutch("create", "box").code == 0
    return alice


def test_output_and_exit_code_are_those_of_the_program(box: Person) -> None:
    assert box.hutch("exec", "box", "--", "echo", "hello").out == "hello\n"
    assert box.hutch("exec", "box", "--", "true").code == 0
    assert box.hutch("exec", "box", "--", "false").code == 1
    missing = box.hutch("exec", "box", "--", "no-such-program")
    assert missing.code == 127
    assert "no-such-program" in missing.err


@pytest.mark.parametrize("argument", AWKWARD)
def test_every_argument_arrives_as_it_was_typed(box: Person, argument: str) -> None:
    assert box.hutch("exec", "box", "--", "echo", argument).out == f"{argument}\n"


def test_bytes_go_in_and_come_out_unchanged(box: Person) -> None:
    raw = bytes(range(256))
    assert box.hutch("exec", "box", "--", "cat", stdin=raw).stdout == raw


def test_options_of_the_program_are_its_own(box: Person) -> None:
    assert box.hutch("exec", "box", "--", "id", "-u").out.strip() != "0"
    assert box.hutch("exec", "--root", "box", "--", "id", "-u").out == "0\n"
    assert box.hutch("exec", "box", "--root", "--", "id", "-u").out == "0\n"


def test_json_has_the_answer_of_the_api(box: Person) -> None:
    answer = box.hutch("exec", "box", "--json", "--", "echo", "hi")
    assert answer.code == 0
    content = json.loads(answer.out)
    assert base64.b64decode(content["stdout"]) == b"hi\n"
    assert content["code"] == 0


def test_the_programs_json_option_is_not_ours(box: Person) -> None:
    assert box.hutch("exec", "none", "--", "echo", "--json").err.startswith("Error: ")


def test_without_a_program_there_is_nothing_to_run(box: Person) -> None:
    assert box.hutch("exec", "box").code == 2


def test_a_stopped_instance_runs_nothing(box: Person) -> None:
    box.hutch("stop", "box")
    ran = box.hutch("exec", "box", "--", "true")
    assert ran.code == 5
    assert "hutch start box" in ran.err


def test_a_read_only_token_runs_nothing(box: Person) -> None:
    made = box.json("token", "create", "look", "--read")
    reader = {**box.signed_in, "HUTCH_TOKEN": made["token"]}
    assert run_hutch("list", **reader).code == 0
    assert run_hutch("exec", "box", "--", "true", **reader).code == 4
