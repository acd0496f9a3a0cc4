"""`ssh lab ...`: the commands of hutch for whoever has nothing but ssh."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from hutch.cli.app import OVER_SSH, build
from hutch.cli.exits import FAILED, MEANINGS
from hutch.services import keys
from hutch.services import tokens as sign_ins
from hutch.store import migrate, tokens
from tests.cli.pty_session import Session
from tests.gateway.house import PASSWORD, House, Resident, Running, open_house
from tests.system.site import new_key, run


@pytest_asyncio.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One of its own, with a server that carries out what is asked for."""
    folder = tmp_path_factory.mktemp("served")
    url = f"sqlite:///{folder / 'hutch.db'}"
    migrate.upgrade(url)
    async with open_house(folder, url) as opened:
        await opened.start_server()
        yield opened


@pytest_asyncio.fixture(scope="module")
async def gateway(house: House) -> AsyncIterator[Running]:
    started = await house.gateway(gateway_address="lab.example.org")
    yield started
    await started.stop()


def on_terminal(who: Resident, gateway: Running, *command: str, columns: int = 100) -> Session:
    """`ssh -tt`, whose own streams are a terminal of that width."""
    terminal, its = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", "30"], stdin=its, check=True)
    process = subprocess.Popen(
        ["ssh", *who.options(gateway), "-tt", "anybody@127.0.0.1", *command],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(its)
    return Session(process, terminal)


async def test_ssh_alone_shows_ones_machines_and_what_to_do(
    gateway: Running, alice: Resident, bob: Resident
) -> None:
    assert "You have no instance yet" in (await alice.lab(gateway)).out
    await alice.lab(gateway, "create", "box")
    ran = await alice.lab(gateway)
    assert ran.code == 0, ran
    assert f"You are {alice.name} (member)." in ran.out
    assert "box" in ran.out
    assert "running" in ran.out
    assert "ssh lab gpu take 1 --on box" in ran.out
    shown = json.loads((await alice.lab(gateway, "overview", "--json")).out)
    assert [each["name"] for each in shown["instances"]] == ["box"]
    assert "box" not in (await bob.lab(gateway, "list")).out


async def test_a_machines_life_is_the_same_as_with_hutch(gateway: Running, alice: Resident) -> None:
    made = await alice.lab(gateway, "create", "box", "--cpus", "1", "--memory", "1GiB")
    assert made.code == 0, made
    assert f"ssh -J lab.example.org:{gateway.port} {alice.name}@box" in made.out
    assert "hutch ssh" not in made.out
    (listed,) = json.loads((await alice.lab(gateway, "list", "--json")).out)
    assert (listed["name"], listed["state"], listed["cpus"]) == ("box", "running", 1)
    for words, said in (
        (("stop", "box"), "box is stopped."),
        (("start", "box"), "box is running."),
        (("set", "box", "--no-wake"), "box is started by"),
        (("snapshot", "create", "box", "before"), "is taken"),
        (("snapshot", "restore", "box", "before", "--yes"), "is back at before"),
        (("rebuild", "box", "--yes"), "is new again"),
        (("hutch", "delete", "box", "--yes"), "box is deleted."),
    ):
        ran = await alice.lab(gateway, *words)
        assert (ran.code, said in ran.out) == (0, True), (words, ran)


async def test_it_ends_with_the_exit_code_that_hutch_has(gateway: Running, alice: Resident) -> None:
    for words, code in (
        (("show", "nothing"), 3),
        (("user", "list"), 4),
        (("create", "No!"), 6),
        (("create",), 2),
        (("create", "--nonsense"), 2),
    ):
        ran = await alice.lab(gateway, *words)
        assert ran.code == code, (words, ran)
    ran = await alice.lab(gateway, "show", "nothing", "--json")
    assert json.loads(ran.err)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "name",
    [
        "$(touch X)",
        "`touch X`",
        ";touch X",
        "&& touch X",
        "| touch X",
        "> X",
        "*",
        "~",
        "$HOME",
        "!!",
    ],
)
async def test_characters_of_a_shell_are_only_text(
    gateway: Running, alice: Resident, name: str
) -> None:
    mark = f"touched-{alice.name}"
    given = name.replace("X", mark)
    ran = await alice.lab(gateway, "show", f"'{given}'")
    assert ran.code == 3, ran
    assert given in ran.err
    # Without quotes they are words like any others.
    ran = await alice.lab(gateway, f"show {given}")
    assert ran.code in {2, 3}, ran
    assert (await run("find", "/tmp", str(Path.cwd()), "-name", mark)).out == ""


def _leaves(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    if not isinstance(command, TyperGroup):
        yield words, command
        return
    for name, found in command.commands.items():
        yield from _leaves(found, [*words, name])


def _hostile_commands(text: str) -> Iterator[str]:
    """Each command there is, with the same text in every place that takes one."""
    for words, command in _leaves(get_command(build()), []):
        if words[0] not in OVER_SSH:
            continue
        places = [each for each in command.params if each.name not in {"help", "as_json"}]
        arguments = [text for each in places if isinstance(each, TyperArgument)]
        yield shlex.join([*words, "--", *arguments])
        for each in places:
            if isinstance(each, TyperOption) and not each.is_flag and each.opts:
                yield shlex.join([*words, f"{each.opts[0]}={text}", "--", *arguments])


@pytest.mark.parametrize(
    "text", ["$(touch X); touch X `touch X` | touch X && touch X > X", "-oX\n;touch X\n../../X"]
)
async def test_no_argument_of_any_command_reaches_a_shell(
    house: House, gateway: Running, alice: Resident, text: str
) -> None:
    mark = f"touched-{alice.name}"
    commands = list(_hostile_commands(text.replace("X", mark)))
    assert len(commands) > 100
    options = alice.options(gateway, ControlMaster="auto", ControlPath=f"{alice.key}.control")
    master = await asyncio.create_subprocess_exec("ssh", *options, "-N", "-f", "any@127.0.0.1")
    await master.wait()
    for command in commands:
        ran = await run("ssh", *options, "any@127.0.0.1", command)
        assert ran.code in set(MEANINGS) - {FAILED}, (command, ran)
        assert "Traceback" not in ran.err
    await run("ssh", *options, "-O", "exit", "any@127.0.0.1")
    for folder in ("/tmp", str(Path.cwd()), str(house.folder)):
        assert (await run("find", folder, "-name", f"*{mark}*")).out == ""


@pytest.mark.parametrize("command", ["server", "gateway", "up", "down", "login x", "ssh box"])
async def test_what_belongs_to_ones_own_machine_is_refused(
    gateway: Running, alice: Resident, command: str
) -> None:
    ran = await alice.lab(gateway, command)
    assert ran.code == 2
    assert "does not go through the gateway" in ran.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("crate box", "There is no command 'crate'. Did you mean 'create'?"),
        ("/bin/sh", "There is no command '/bin/sh'."),
        ("create 'box", "The quotes do not match"),
        ("x" * 20_000, "This is no command"),
        ("scp -t /tmp", "The gateway has no files."),
        ("rsync --server . /tmp", "The gateway has no files."),
        ("git-upload-pack 'x'", "The gateway has no files."),
    ],
)
async def test_what_is_no_command_is_said_to_be_none(
    gateway: Running, alice: Resident, command: str, said: str
) -> None:
    ran = await alice.lab(gateway, command)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


async def test_help_is_a_word_because_ssh_keeps_the_option_for_itself(
    gateway: Running, alice: Resident
) -> None:
    assert "Make an instance" in (await alice.lab(gateway, "help")).out
    ran = await alice.lab(gateway, "help", "snapshot", "create")
    assert (ran.code, "Take a snapshot" in ran.out) == (0, True)


async def test_a_copy_to_the_gateway_says_where_to_copy_to(
    gateway: Running, alice: Resident
) -> None:
    options = alice.options(gateway)
    at = options.index("-p")
    ran = await run(
        "scp", *options[:at], "-P", options[at + 1], *options[at + 2 :], "/etc/hostname",
        "anybody@127.0.0.1:",
    )  # fmt: skip
    assert ran.code != 0
    assert "The gateway has no files. Copy to a machine" in ran.err


# ---- what a command reads and sees ------------------------------------------------------------


async def test_a_key_is_added_from_standard_input_and_works_at_once(
    house: House, gateway: Running, alice: Resident
) -> None:
    second = await new_key(house.folder / f"second-{alice.name}")
    public = Path(f"{second}.pub").read_bytes()
    assert "Permission denied" in (await alice.lab(gateway, "list", key=second)).err
    ran = await alice.lab(gateway, "key", "add", "--title", "second", stdin=public)
    assert ran.code == 0, ran
    assert (await alice.lab(gateway, "list", key=second)).code == 0
    mine = await keys.list_all(house.context, alice.actor)
    assert [each.title for each in mine][-1] == "second"


async def test_no_file_of_the_lab_is_read(house: House, gateway: Running, alice: Resident) -> None:
    for file in ("/etc/passwd", str(house.folder / "secret.key"), f"{alice.key}.pub"):
        ran = await alice.lab(gateway, "key", "add", file)
        assert ran.code == 2
        assert "There are no files of yours here." in ran.err
    ran = await alice.lab(gateway, "config", "--install")
    assert f"ssh -p {gateway.port} lab.example.org config --script | sh" in ran.err


async def test_the_configuration_comes_by_ssh(gateway: Running, alice: Resident) -> None:
    await alice.lab(gateway, "create", "box")
    assert "Host box box.lab" in (await alice.lab(gateway, "config")).out
    assert (await alice.lab(gateway, "config", "--script")).out.startswith("#!/bin/sh")
    known = (await alice.lab(gateway, "ssh-config", "--known-hosts")).out
    assert known.startswith("hutch-gateway-")


async def test_a_command_waits_for_no_input_that_it_does_not_need(
    gateway: Running, alice: Resident
) -> None:
    """As on a terminal, where ssh passes on what is typed and no end comes."""
    process = await asyncio.create_subprocess_exec(
        "ssh", *alice.options(gateway), "anybody@127.0.0.1", "list",
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        assert await process.wait() == 0


async def test_more_input_than_anyone_wants_is_refused_or_dropped(
    gateway: Running, alice: Resident
) -> None:
    much = b"x" * 20_000_000
    assert (await alice.lab(gateway, "list", stdin=much)).code == 0
    assert (await alice.lab(gateway, "key", "add", stdin=much)).code == 6


async def test_a_program_in_a_machine_passes_its_exit_code(
    gateway: Running, alice: Resident
) -> None:
    await alice.lab(gateway, "create", "box")
    ran = await alice.lab(gateway, "exec", "box", "--", "false")
    assert (ran.code, ran.err) == (1, "")


async def test_who_it_is_cannot_be_set_from_outside(
    gateway: Running, alice: Resident, bob: Resident
) -> None:
    evil = " ".join(
        f"{name}=x" for name in ("HUTCH_TOKEN", "HUTCH_URL", "PYTHONSTARTUP", "LD_PRELOAD", "HOME")
    )
    ran = await alice.lab(gateway, "whoami", "--json", SetEnv=evil)
    assert json.loads(ran.out)["name"] == alice.name


async def test_the_audit_knows_where_a_command_came_from(
    house: House, gateway: Running, alice: Resident
) -> None:
    await alice.lab(gateway, "create", "box", BindAddress="127.5.6.7")
    found = await house.events("instance.create", alice.name)
    assert found[-1].address == "127.5.6.7"


# ---- a terminal ---------------------------------------------------------------------------------


async def test_a_terminal_gets_colours_its_width_and_questions(
    gateway: Running, alice: Resident
) -> None:
    await alice.lab(gateway, "create", "box")
    session = on_terminal(alice, gateway, "list")
    assert await asyncio.to_thread(session.end) == 0
    assert "\x1b[32mrunning" in session.seen
    wide, narrow = (on_terminal(alice, gateway, "help", columns=n) for n in (160, 60))
    for each in (wide, narrow):
        assert await asyncio.to_thread(each.end) == 0
    assert widest(narrow.seen) <= 60 < 100 < widest(wide.seen) <= 160

    session = on_terminal(alice, gateway, "delete", "box")
    await asyncio.to_thread(session.expect, "[y/N]")
    session.type("n\n")
    assert await asyncio.to_thread(session.end) == 130
    session = on_terminal(alice, gateway, "delete", "box")
    await asyncio.to_thread(session.expect, "[y/N]")
    session.type("y\n")
    assert await asyncio.to_thread(session.end) == 0
    assert "box is deleted." in session.seen


def widest(seen: str) -> int:
    """The longest line in characters, without what only colours it."""
    return max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines())


async def test_an_interrupt_at_the_terminal_reaches_the_command(
    gateway: Running, alice: Resident
) -> None:
    await alice.lab(gateway, "create", "box")
    session = on_terminal(alice, gateway, "delete", "box")
    await asyncio.to_thread(session.expect, "[y/N]")
    session.type("\x03")
    assert await asyncio.to_thread(session.end) == 130


async def test_a_password_is_asked_for_and_not_shown(
    house: House, gateway: Running, alice: Resident
) -> None:
    session = on_terminal(alice, gateway, "password")
    await asyncio.to_thread(session.expect, "Present password")
    session.type(f"{PASSWORD}\n")
    await asyncio.to_thread(session.expect, "New password")
    session.type("another password of tests\n")
    await asyncio.to_thread(session.expect, "again")
    session.type("another password of tests\n")
    assert await asyncio.to_thread(session.end) == 0, session.seen
    assert "password of" not in session.seen
    await sign_ins.login(
        house.context, alice.name, "another password of tests", address="192.0.2.1"
    )


# ---- what is left behind ------------------------------------------------------------------------


async def test_nothing_is_left_when_the_connection_ends(
    house: House, gateway: Running, alice: Resident
) -> None:
    await alice.lab(gateway, "whoami")
    async with asyncio.timeout(20):
        while await lent(house, alice):
            await asyncio.sleep(0.05)


async def lent(house: House, who: Resident) -> list[str]:
    async with house.context.db.read() as session:
        return [each.title for each in await tokens.list_tokens(session, who.actor.user_id)]


async def test_a_command_ends_with_its_client_and_shows_no_token_in_the_process_list(
    house: House, gateway: Running, alice: Resident
) -> None:
    session = on_terminal(alice, gateway, "password")
    await asyncio.to_thread(session.expect, "Present password")
    assert await lent(house, alice) == ["ssh session"]
    (forge,) = await children((await gateway.workers())[0])
    (command,) = await children(forge)
    for file in ("cmdline", "environ"):
        assert b"hutch_" not in Path(f"/proc/{command}/{file}").read_bytes()
    session.process.kill()
    async with asyncio.timeout(20):
        while await children(forge):
            await asyncio.sleep(0.05)
    os.close(session.terminal)


async def children(pid: int) -> list[int]:
    listed = await run("pgrep", "-P", str(pid))
    return [int(word) for word in listed.out.split()]


async def test_a_forge_that_dies_is_made_anew(gateway: Running, alice: Resident) -> None:
    session = on_terminal(alice, gateway, "password")
    await asyncio.to_thread(session.expect, "Present password")
    (forge,) = await children((await gateway.workers())[0])
    os.kill(forge, signal.SIGKILL)
    assert await asyncio.to_thread(session.end) == 1
    assert "The command was cut off." in session.seen
    assert (await alice.lab(gateway, "whoami")).code == 0


async def test_without_a_server_commands_say_so_and_ways_to_machines_stay_open(
    house: House, gateway: Running, alice: Resident
) -> None:
    await house.stop_server()
    try:
        ran = await alice.lab(gateway, "list")
        assert ran.code == 7
        assert "cannot be reached: nothing listens there" in ran.err
        assert "there is no instance" in (await alice.forward(gateway, "box:22")).err
    finally:
        await house.start_server()
    assert (await alice.lab(gateway, "list")).code == 0
