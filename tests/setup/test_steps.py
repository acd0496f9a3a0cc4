"""Steps look first, act only if needed, and say what failed and what to do."""

import io

import pytest

from hutch.setup.commands import CommandError, run, run_showing
from hutch.setup.steps import Progress, Reporter, Step, StepFailedError, run_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_step_that_is_done_does_nothing():
    def explode(_: Progress) -> None:
        raise AssertionError

    out = io.StringIO()
    assert run_steps([Step("Pool", lambda: True, explode)], Reporter(out)) == 0
    assert "= Pool: already so" in out.getvalue()


def test_a_step_that_is_not_done_is_done_and_tells():
    out = io.StringIO()
    assert run_steps([Step("Pool", lambda: False, lambda _: "btrfs")], Reporter(out)) == 1
    assert "+ Pool: btrfs (0.0 s)" in out.getvalue()


def test_a_failing_step_stops_all_and_says_what_to_do():
    def fail(_: Progress) -> None:
        run(["false"])

    out = io.StringIO()
    later = Step("Later", lambda: False, lambda _: out.write("LATER"))
    with pytest.raises(StepFailedError) as failed:
        run_steps([Step("Pool", lambda: False, fail, "Free some space."), later], Reporter(out))
    assert "`false` ended with status 1" in str(failed.value)
    assert failed.value.advice == "Free some space."
    assert "LATER" not in out.getvalue()


def test_a_terminal_gets_one_live_line():
    out = Terminal()
    run_steps([Step("Image", lambda: False, lambda p: p("unpacking"))], Reporter(out))
    assert "\r\x1b[2K  ... Image 0 s  unpacking" in out.getvalue()
    assert out.getvalue().endswith("+ Image: done (0.0 s)\n")


def test_a_log_gets_no_line_about_what_is_quick():
    out = io.StringIO()
    run_steps([Step("Image", lambda: False, lambda p: p("unpacking"))], Reporter(out))
    assert "unpacking" not in out.getvalue()


def test_a_failed_command_tells_what_it_said():
    with pytest.raises(CommandError, match="No such file"):
        run(["ls", "/nowhere"])


def test_a_command_that_is_not_there_says_so():
    with pytest.raises(CommandError, match="is not installed"):
        run(["hutch-no-such-program"])
    with pytest.raises(CommandError, match="is not installed"):
        run_showing(["hutch-no-such-program"], print)


def test_a_long_command_shows_its_lines_and_fails_with_the_last_ones():
    seen: list[str] = []
    with pytest.raises(CommandError, match="two"):
        run_showing(["sh", "-c", "echo one; echo two >&2; exit 3"], seen.append)
    assert seen == ["one", "two"]
