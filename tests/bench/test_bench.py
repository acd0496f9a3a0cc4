"""The parts of the benchmarks that need no clock and no machine, and one short run of the rest."""

import json

import pytest
from bench.byhand import Machine, Size, create_argv, forward_argv
from bench.figures import Comparison, Measure, Report, median, percentile, shown, table
from bench.load import Phase, Request, loopback_port, read_phase
from bench.population import Person, Population

from bench import __main__ as command_line
from bench import api, databases, leases, operations, scheduler


def test_the_median_is_the_middle_or_between_the_two_middle_ones() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    with pytest.raises(ValueError):
        median([])


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.95) == 95.0
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 1.0) == 100.0
    assert percentile([7.0], 0.01) == 7.0
    for share in (0.0, 1.1):
        with pytest.raises(ValueError):
            percentile(values, share)


def test_a_ratio_compares_medians_and_is_held_against_its_aim() -> None:
    faster = Comparison("start", [1.0, 1.1, 9.0], [1.0, 1.0, 1.0], most=1.2)
    assert faster.ratio == pytest.approx(1.1)
    assert faster.met
    assert not Comparison("start", [1.3], [1.0], most=1.2).met
    assert Comparison("start", [1.3], [1.0]).met is None


def test_a_measure_may_have_a_most_or_a_least() -> None:
    assert Measure("memory", 199.0, "MB", most=200).met
    assert not Measure("memory", 201.0, "MB", most=200).met
    assert Measure("rate", 501.0, "requests/s", least=500).met
    assert not Measure("rate", 499.0, "requests/s", least=500).met
    assert Measure("rate", 499.0, "requests/s").met is None


def test_a_table_leaves_out_columns_that_say_nothing() -> None:
    assert table(["", "a", ""], [["x", "1", ""], ["longer", "2", ""]]).splitlines() == [
        "|        | a   |",
        "|--------|-----|",
        "| x      | 1   |",
        "| longer | 2   |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.0123"), (1.2345, "1.23"), (45.67, "45.7"), (1234.5, "1,234")],
)
def test_numbers_are_shown_with_three_digits_that_matter(value: float, text: str) -> None:
    assert shown(value) == text


def test_a_report_says_the_same_as_text_and_as_json() -> None:
    report = Report(
        "Title",
        {"load": "0.1"},
        [Comparison("start", [1.3], [1.0], most=1.2)],
        [Measure("rate", 501.0, "requests/s", least=500)],
        ["A note."],
    )
    text, data = report.as_text(), json.loads(json.dumps(report.as_json()))
    for part in ("## Title", "- load: 0.1", "1.30", "missed", "501 requests/s", "met", "A note."):
        assert part in text
    assert data["comparisons"][0]["hutch"] == [1.3]
    assert data["comparisons"][0]["met"] is False
    assert data["measures"][0]["met"] is True


def test_by_hand_gets_the_limits_and_the_isolation_that_hutch_gives() -> None:
    argv = create_argv(Machine("hand-1", "10.0.0.9", 30500), Size(2, 2**30, 2**31), "pool", "br0")
    assert argv[:4] == ["incus", "init", "byhand", "hand-1"]
    for word in (
        "security.idmap.isolated=true",
        "limits.cpu.allowance=200ms/100ms",
        "limits.memory=1073741824",
        "root,size=2147483648",
        "eth0,ipv4.address=10.0.0.9",
        "eth0,security.port_isolation=true",
    ):
        assert word in argv


def test_a_port_by_hand_goes_through_the_kernel_or_through_a_process() -> None:
    machine = Machine("hand-1", "10.0.0.9", 30500)
    in_kernel, by_process = (forward_argv(machine, "192.0.2.1", nat=nat) for nat in (True, False))
    assert "nat=true" in in_kernel
    assert "connect=tcp:10.0.0.9:22" in in_kernel
    assert "nat=true" not in by_process
    assert "listen=tcp:192.0.2.1:30500" in by_process


def test_a_request_is_http_with_the_token_in_its_header() -> None:
    head, _, body = (
        Request("change", "PATCH", "/x", "secret", '{"a": 1}').as_bytes().partition(b"\r\n\r\n")
    )
    assert head.startswith(b"PATCH /x HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret" in head
    assert b"Content-Length: 8" in head
    assert body == b'{"a": 1}'


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:7480", "https://example.org", "http://127.0.0.1"]
)
def test_no_server_but_one_on_loopback_is_ever_loaded(url: str) -> None:
    with pytest.raises(ValueError):
        loopback_port(url)


def test_loopback_is_loaded_at_its_port() -> None:
    assert loopback_port("http://127.0.0.1:7480") == 7480


@pytest.mark.parametrize(
    "wrong", [{"connections": 1000}, {"connections": 0}, {"seconds": 3600}, {"count": 10**9}]
)
def test_a_load_without_bounds_is_refused(wrong: dict[str, int]) -> None:
    given = {"name": "p", "connections": 1, "count": 1, "seconds": 1, "requests": []}
    with pytest.raises(ValueError):
        read_phase(given | wrong)


def test_the_load_is_bounded_and_the_same_in_every_run() -> None:
    members = tuple(Person(f"p{n}", f"token{n}", ("box0", "box1")) for n in range(3))
    lab = Population(Person("ada", "token", ()), members)
    phases = api.plan_phases(lab)
    assert phases == api.plan_phases(lab)
    assert [phase.check() for phase in phases] == phases
    mixed: Phase = phases[-1]
    kinds = {request.kind for request in mixed.requests}
    assert kinds == {
        "own list",
        "one instance",
        "me",
        "operations",
        "keys",
        "page of all",
        "change",
    }


def test_the_command_line_knows_every_subject_and_refuses_nonsense() -> None:
    for what in command_line.SUBJECTS:
        assert command_line.parse([what]).what == what
    assert command_line.parse(["files", "--whole", "5GiB"]).whole == 5 * 1024**3
    for wrong in (
        ["nothing"],
        ["api", "--rounds", "0"],
        ["api", "--rounds", "many"],
        ["files", "--whole", "much"],
        ["api", "--whole", "5GiB"],
    ):
        with pytest.raises(SystemExit):
            command_line.parse(wrong)


def test_operations_are_counted_from_request_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "KINDS", ("sqlite",))
    report = operations.measure(1, count=3)
    named = {each.what for each in report.measures}
    for verb in ("create", "stop", "start", "delete"):
        assert {f"sqlite: {verb}, requests granted", f"sqlite: {verb}, carried out"} <= named
    assert all(each.value > 0 for each in report.measures)


def test_the_scheduler_is_measured_and_compared_with_its_plain_twin() -> None:
    report = scheduler.measure(1, sizes=(2, 4), small=3)
    named = {each.what: each.value for each in report.measures}
    assert "4 nodes, 32 accelerators, 24 leases" in named
    assert named["so much longer does plainness take"] > 1
    assert all(each.value > 0 for each in report.measures)


def test_a_lab_to_be_measured_is_the_same_in_every_run() -> None:
    assert scheduler.make_lab(3) == scheduler.make_lab(3)


def test_grants_are_timed_beside_a_plain_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "KINDS", ("sqlite",))
    report = leases.measure(1, node_count=1)
    assert {each.what for each in report.comparisons} == {
        "sqlite: one after the other",
        "sqlite: from an end to the next in line",
        "sqlite: 16 at once",
    }
    assert all(each.ratio > 0 for each in report.comparisons)
    assert len(report.comparisons[0].hutch) == leases.ACCELERATORS
