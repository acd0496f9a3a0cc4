"""`hutch gpu` on a real server: taking, waiting in line, giving back, and what people read."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hutch.domain.accelerators import DeviceNode, FoundAccelerator, Vendor
from hutch.domain.people import Role
from hutch.store import migrate
from tests.agents_fake import FakeAgent, Manner
from tests.cli.pty_session import on_terminal
from tests.cli.server import Person, Server

CARDS = [
    FoundAccelerator(
        address=f"0000:{bus}:00.0",
        vendor=Vendor.SIMULATED,
        model="Simulated A100",
        memory=80 * 2**30,
        nodes=(DeviceNode(f"/dev/hutch-gpu/{number}", 1, 3),),
    )
    for number, bus in enumerate(("3b", "5e"))
]
SHORT = ("node1/3b:00.0", "node1/5e:00.0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(database)
    homes = tmp_path_factory.mktemp("homes")
    started = Server(database, folder, homes, agent_silence_seconds=3600, release_grace_seconds=0)
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def agent(server: Server) -> FakeAgent:
    return server.join(*CARDS)


def _with_machine(server: Server, role: Role = Role.MEMBER) -> Person:
    person = server.person(role)
    assert person.hutch("create", "box").code == 0
    return person


@pytest.fixture
def alice(server: Server, agent: FakeAgent) -> Iterator[Person]:
    person = _with_machine(server)
    yield person
    person.hutch("gpu", "release")


@pytest.fixture
def bob(server: Server, agent: FakeAgent) -> Iterator[Person]:
    person = _with_machine(server)
    yield person
    person.hutch("gpu", "release")


@pytest.fixture
def waiting(alice: Person, bob: Person) -> dict[str, Any]:
    """Bob's lease, which waits for the two that alice holds."""
    alice.hutch("gpu", "take", "2", "--for", "4h")
    return bob.json("gpu", "take", "1", "--no-wait")


# -- taking and giving back --------------------------------------------------------------------


def test_what_is_free_is_attached_and_what_to_do_next_is_said(alice: Person) -> None:
    ran = alice.hutch("gpu", "take", "2", "--for", "4h", "--on", "box")
    assert ran.code == 0
    attached, *next_steps = ran.out.splitlines()
    names = ", ".join(SHORT)
    assert attached.startswith(f"attached: 2 × Simulated A100 ({names}) in box until ")
    assert attached.endswith(" UTC.")
    lease = alice.json("gpu", "list")[0]["holders"][0]["lease"]
    assert next_steps == [
        "Log in:     hutch ssh box",
        f"More time:  hutch gpu extend {lease} --for 2h",
        f"Give back:  hutch gpu release {lease}",
    ]
    ran = alice.hutch("gpu", "release")
    assert (ran.code, ran.out) == (0, "released: 2 GPUs of box.\n")
    assert [each["holders"] for each in alice.json("gpu", "list")] == [[], []]


def test_a_lease_with_json_is_the_apis_own_object(alice: Person) -> None:
    lease = alice.json("gpu", "take", "1", "--model", "a100", "--for", "90m")
    assert (lease["state"], lease["instance"], lease["minutes"]) == ("active", "box", 90.0)
    assert [each["model"] for each in lease["accelerators"]] == ["Simulated A100"]
    (released,) = alice.json("gpu", "release", lease["id"])
    assert (released["id"], released["state"]) == (lease["id"], "ended")
    (past,) = alice.json("gpu", "history")
    assert (past["id"], past["end_reason"]) == (lease["id"], "released")
    assert past["id"] in alice.hutch("gpu", "history").out


def test_what_still_uses_a_gpu_is_ended_before_it_is_said_to_be_back(
    alice: Person, agent: FakeAgent, server: Server
) -> None:
    alice.hutch("gpu", "take", "2", "--on", "box")
    instance = alice.json("show", "box")["id"]
    container = server.do(_container(server, instance))
    agent.open(container, "/dev/hutch-gpu0", "python3", Manner.STUBBORN)
    ran = alice.hutch("gpu", "release", "--on", "box")
    assert (ran.code, ran.out) == (0, "released: 2 GPUs of box.\n")
    assert agent.users("/dev/hutch-gpu0") == []
    assert "Giving back 2 GPUs of box: ending what still uses them" in ran.err


async def _container(server: Server, instance_id: str) -> str:
    from hutch.store import containers

    async with server.context.db.read() as session:
        found = await containers.current(session, instance_id)
    assert found is not None
    return found.engine_name


def test_more_time_is_given_unless_somebody_waits(alice: Person, bob: Person) -> None:
    lease = alice.json("gpu", "take", "2", "--for", "4h")
    longer = alice.json("gpu", "extend", "--for", "2h")
    assert longer["expires_at"] > lease["expires_at"]
    assert "2 GPUs are in box until" in alice.hutch("gpu", "extend", lease["id"]).out
    bob.hutch("gpu", "take", "1", "--no-wait")
    ran = alice.hutch("gpu", "extend", "--on", "box")
    assert ran.code == 5
    assert bob.name in ran.err


# -- waiting -----------------------------------------------------------------------------------


def test_who_need_not_wait_here_is_told_the_place_and_what_to_do(
    waiting: dict[str, Any], alice: Person, bob: Person
) -> None:
    assert waiting["state"] == "queued"
    ran = bob.hutch("gpu", "take", "1", "--no-wait")
    assert ran.code == 0
    first, *rest = ran.out.splitlines()
    assert first.startswith("You wait for 1 GPU: 2nd in line on node1; starts about ")
    assert f"waiting for {alice.name} until " in first
    assert [line.split(":")[0] for line in rest] == ["Why and how long", "Leave the line"]


def test_why_is_told_in_whole_sentences(
    waiting: dict[str, Any], alice: Person, bob: Person
) -> None:
    told = bob.hutch("gpu", "why").out.splitlines()
    assert told[0].startswith(f"Lease {waiting['id']}: 1 GPU for box on node1, asked for at ")
    assert told[1] == "It is the first in line on node1."
    assert told[2].startswith(f"It waits for GPUs that others hold: {alice.name} until ")
    assert told[3].startswith("If everybody keeps theirs to the end, it starts at about ")
    assert told[4] == f"Leave the line: hutch gpu release {waiting['id']}"
    behind = bob.json("gpu", "take", "1", "--no-wait")
    assert (
        f"It is 2nd in line on node1, behind {bob.name} (1 GPU)."
        in bob.hutch("gpu", "why", behind["id"]).out
    )
    assert len(bob.json("gpu", "why")) == 2
    active = alice.json("gpu", "list")[0]["holders"][0]["lease"]
    assert "does not wait" in alice.hutch("gpu", "why", active).out
    assert "no GPU" in alice.hutch("gpu", "why").err
    assert alice.hutch("gpu", "why", waiting["id"]).code == 3


def test_the_overview_tells_of_the_labs_gpus_of_ones_own_and_of_the_line(
    waiting: dict[str, Any], alice: Person, bob: Person
) -> None:
    told = alice.hutch("overview").out.splitlines()
    assert told[1].endswith("2 of 4 GPUs.")
    lab = told.index("The lab has 2 GPUs: 0 free, waiting: 1.")
    assert "2 GPUs in box until" in told[lab + 1]
    assert told.index("What to do:") > lab
    assert any(waiting["id"] in line for line in bob.hutch("overview").out.splitlines())
    seen = alice.json("overview")
    assert (len(seen["accelerators"]), len(seen["queue"])) == (2, 1)
    bob.hutch("gpu", "release")
    alice.hutch("gpu", "release")
    assert "The lab has 2 GPUs: 2 free, nobody waits." in bob.hutch("overview").out


def test_the_line_is_shown_to_everyone(waiting: dict[str, Any], alice: Person, bob: Person) -> None:
    head, row = alice.hutch("gpu", "queue").out.splitlines()
    assert head.split()[:4] == ["NODE", "PLACE", "WHO", "GPUS"]
    assert row.split()[:4] == ["node1", "1", bob.name, "1"]
    assert row.endswith("devices")
    (seen,) = alice.json("gpu", "queue")
    assert (seen["owner"], seen["instance"]) == (bob.name, None)
    assert "Lease" in bob.hutch("gpu", "list").err
    bob.hutch("gpu", "release", waiting["id"])
    assert "Nobody waits" in alice.hutch("gpu", "queue").err


def test_a_live_line_tells_the_place_until_the_gpu_is_there(
    waiting: dict[str, Any], alice: Person, bob: Person
) -> None:
    bob.hutch("gpu", "release", waiting["id"])
    session = on_terminal(bob, "gpu", "take", "1", COLUMNS="200")
    session.expect("1 GPU for box: 1st in line on node1; starts about ")
    session.expect(f"waiting for {alice.name} until ")
    alice.hutch("gpu", "release")
    session.expect("attached: 1 × Simulated A100")
    assert session.end() == 0


def test_a_log_gets_a_line_for_each_change(
    waiting: dict[str, Any], alice: Person, bob: Person
) -> None:
    bob.hutch("gpu", "release", waiting["id"])
    releasing = threading.Timer(0.5, lambda: alice.hutch("gpu", "release"))
    releasing.start()
    ran = bob.hutch("gpu", "take", "1")
    releasing.join()
    assert ran.code == 0
    assert ran.err.splitlines()[0].startswith("1 GPU for box: 1st in line on node1; ")
    assert len(ran.err.splitlines()) == len(set(ran.err.splitlines()))


def test_ctrl_c_keeps_the_place_and_says_how_to_see_and_leave_it(
    waiting: dict[str, Any], bob: Person
) -> None:
    session = on_terminal(bob, "gpu", "take", "1", COLUMNS="200")
    session.expect("2nd in line")
    session.interrupt()
    assert session.end() == 130
    (mine,) = [each for each in bob.json("gpu", "queue") if each["id"] != waiting["id"]]
    assert "You keep your place in the line." in session.seen
    assert f"hutch gpu why {mine['id']}" in session.seen
    assert f"hutch gpu release {mine['id']}" in session.seen
    ran = bob.hutch("gpu", "release", mine["id"])
    assert (ran.code, ran.out) == (0, "You no longer wait for 1 GPU for box.\n")


def test_a_lease_that_ends_in_the_line_is_a_failure_with_its_reason(
    waiting: dict[str, Any], bob: Person
) -> None:
    bob.hutch("gpu", "release", waiting["id"])
    session = on_terminal(bob, "gpu", "take", "1", COLUMNS="200")
    session.expect("1st in line")
    bob.hutch("gpu", "release")
    assert session.end() == 1
    assert "The lease ended before the GPUs were there: left the line." in session.seen
    assert "hutch gpu take 1" in session.seen


# -- what there is -----------------------------------------------------------------------------


def test_the_list_tells_whose_each_is_and_until_when(alice: Person, bob: Person) -> None:
    lease = alice.json("gpu", "take", "1", "--for", "4h")
    until = lease["expires_at"][:16].replace("T", " ")
    mine = alice.hutch("gpu", "list")
    head, *rows = mine.out.splitlines()
    assert head.split("  ")[0] == "GPU"
    assert [row.split("  ")[0] for row in rows] == list(SHORT)
    (held,) = [row for row in rows if "you: box" in row]
    assert "Simulated A100  80GiB   you: box  " + until in held
    (free,) = [row for row in rows if "free" in row]
    assert free.endswith("ok")
    assert f"Lease {lease['id']}: 1 GPU in box until " in mine.err
    theirs = bob.hutch("gpu", "list").out
    assert alice.name in theirs
    assert "box" not in theirs
    assert "#" not in theirs


def test_where_there_is_no_gpu_the_way_to_one_is_shown(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("empty")
    database = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(database)
    empty = Server(database, folder, tmp_path_factory.mktemp("homes"))
    empty.start()
    try:
        person = empty.person()
        ran = person.hutch("gpu", "list")
        assert (ran.code, ran.out) == (0, "")
        assert "hutch agent --simulated-gpus 4" in ran.err
        assert person.json("gpu", "list") == []
        assert "hutch gpu take 1" in person.hutch("gpu", "history").err
        assert "2" in person.hutch("report", "gpu").err
        assert person.hutch("notice", "list").code == 0
        person.hutch("create", "box")
        ran = person.hutch("gpu", "take", "1")
        assert ran.code == 6
        assert "no accelerators" in ran.err
    finally:
        empty.stop()


# -- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "name"),
    [
        (["take"], 2, "usage"),
        (["take", "many"], 2, "usage"),
        (["take", "0"], 6, "invalid_limit"),
        (["take", "-1"], 2, "usage"),
        (["take", "3"], 6, "no_such_accelerator"),
        (["take", "1", "--model", "H100"], 6, "no_such_accelerator"),
        (["take", "1", "--for", "0h"], 6, "invalid_duration"),
        (["take", "1", "--for", "4"], 6, "invalid_duration"),
        (["take", "1", "--for", "99d"], 6, "invalid_duration"),
        (["take", "1", "--on", "nothing"], 3, "not_found"),
        (["release"], 5, "wrong_state"),
        (["release", "nothing"], 3, "not_found"),
        (["release", "--on", "nothing"], 3, "not_found"),
        (["extend", "nothing"], 3, "not_found"),
        (["why", "nothing"], 3, "not_found"),
        (["history", "--all"], 4, "forbidden"),
        (["withdraw", "node1/3b:00.0", "--reason", "x"], 4, "forbidden"),
        (["withdraw", "node1/3b:00.0"], 2, "usage"),
        (["restore", "node1/zz"], 3, "not_found"),
        (["share", "node1/3b:00.0", "--with", "2"], 4, "forbidden"),
        (["share", "--with", "2"], 2, "usage"),
    ],
    ids=lambda value: str(value),
)
def test_each_mistake_has_its_code(alice: Person, command: list[str], code: int, name: str) -> None:
    ran = alice.hutch("gpu", *command)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("Error: ")
    ran = alice.hutch("gpu", *command, "--json")
    assert (ran.code, json.loads(ran.err)["error"]["code"]) == (code, name)


def test_a_stopped_machine_and_a_full_quota_are_said(server: Server, alice: Person) -> None:
    ada = server.person(Role.ADMIN)
    ada.hutch("quota", "set", alice.name, "--gpus", "1")
    alice.hutch("gpu", "take", "1")
    ran = alice.hutch("gpu", "take", "1")
    assert ran.code == 5
    assert "1 allowed, 1 held, 1 more" in ran.err
    lowered = ada.hutch("quota", "set", alice.name, "--gpus", "0")
    assert "Nothing is taken away" in lowered.err
    alice.hutch("gpu", "release")
    alice.hutch("stop", "box")
    ran = alice.hutch("gpu", "take", "1", "--on", "box")
    assert ran.code == 5
    assert "hutch start box" in ran.err


# -- administrators ----------------------------------------------------------------------------


def test_a_gpu_is_taken_out_of_service_shared_and_brought_back(
    server: Server, alice: Person
) -> None:
    ada = server.person(Role.ADMIN)
    ran = ada.hutch("gpu", "withdraw", SHORT[1], "--reason", "a fan is broken")
    assert ran.code == 0
    assert SHORT[1] in ran.out
    try:
        listed = alice.hutch("gpu", "list").out.splitlines()
        assert listed[2].endswith("out of service: a fan is broken")
        assert "free" not in listed[2]
    finally:
        assert ada.hutch("gpu", "restore", "5e:00.0").code == 0
    assert ada.json("gpu", "share", "--all", "--with", "2")[1]["sharers"] == 2
    try:
        alice.hutch("gpu", "take", "1")
        assert f"{alice.name}/box (1 of 2)" in ada.hutch("gpu", "list").out
        held = next(each for each in alice.json("gpu", "list") if each["holders"])
        assert ada.hutch("gpu", "share", held["id"], "--with", "1").code == 5
        alice.hutch("gpu", "release")
    finally:
        assert "one lease at a time" in ada.hutch("gpu", "share", "--all", "--with", "1").out


# -- reports and notices -----------------------------------------------------------------------


def test_hours_are_reported_as_a_table_as_csv_and_as_json(server: Server, alice: Person) -> None:
    ada = server.person(Role.ADMIN)
    alice.hutch("gpu", "take", "2")
    report = alice.json("report", "gpu")
    (row,) = report["rows"]
    assert (report["by"], row["name"], row["leases"]) == ("person", alice.name, 1)
    month = report["first"]
    head, line = alice.hutch("report", "gpu", "--month", month).out.splitlines()
    assert head.split()[0] == "PERSON"
    assert line.split()[:2] == [alice.name, "1"]
    head, line = alice.hutch("report", "gpu", "--by", "month", "--csv").out.splitlines()
    assert head == "first,last,month,model,leases,held_hours,busy_hours"
    assert line.split(",")[1:5] == [month, month, "", "1"]
    everybodys = ada.hutch("report", "gpu", "--by", "accelerator").out
    assert "node1/0000:3b:00.0" in everybodys
    assert "total" in everybodys
    assert alice.name in ada.hutch("report", "gpu", "--csv").out
    assert ada.json("report", "gpu", "--mine")["rows"] == []
    for options in (["--month", month, "--since", month], ["--csv", "--json"], ["--by", "king"]):
        assert alice.hutch("report", "gpu", *options).code == 2, options
    assert alice.hutch("report", "gpu", "--month", "2026").code == 6


def test_notices_are_listed_and_read(server: Server, alice: Person) -> None:
    from hutch.services import announcements, leases

    lease_id = alice.json("gpu", "take", "1")["id"]

    async def warn() -> None:
        async with server.context.db.write() as session:
            from hutch.store import leases as stored

            lease = await stored.get_lease(session, lease_id)
            assert lease is not None
            await announcements.tell(session, server.context, lease, "lease.warned", "Hurry.")

    assert leases.MOST
    server.do(warn())
    ran = alice.hutch("notice", "list")
    assert ran.out.splitlines()[1].split()[-2:] == ["new", "Hurry."]
    assert alice.json("notice", "list", "--unread")[0]["text"] == "Hurry."
    assert alice.json("notice", "read") == {"marked": 1}
    assert "read" in alice.hutch("notice", "list").out
    assert alice.json("notice", "list", "--unread") == []
