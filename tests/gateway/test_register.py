"""Somebody's first key, from the command line: plain ssh, with a name and a password."""

import asyncio
import os
import pty
import select
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.domain.people import SYSTEM
from hutch.services import keys, users
from tests.conftest import DATABASES
from tests.gateway.conftest import open_on
from tests.gateway.house import PASSWORD, House, Resident, Running
from tests.system.site import Ran, new_key, run

ASK = """#!/bin/sh
# Answers the questions of ssh, one line of a file after the other.
read -r line < "$ANSWERS"
sed -i 1d "$ANSWERS"
printf '%s\\n' "$1" >> "$ANSWERS.asked"
printf '%s\\n' "$line"
"""


@dataclass
class Newcomer:
    """Somebody with an account and a password, and keys that nobody knows."""

    house: House
    who: Resident
    folder: Path

    async def register(
        self, gateway: Running, *answers: str, identities: tuple[Path, ...] = (),
        stdin: bytes = b"", user: str = "register", more: tuple[str, ...] = (), prompts: int = 1,
    ) -> Ran:  # fmt: skip
        """ssh, with a program that answers what it asks."""
        ask, said = self.folder / "ask", self.folder / "answers"
        ask.write_text(ASK)
        ask.chmod(0o755)
        said.write_text("".join(f"{each}\n" for each in answers))
        options = ["-F", "none", "-p", str(gateway.port), "-o", "IdentitiesOnly=yes",
                   "-o", f"UserKnownHostsFile={self.house.known_hosts(gateway)}",
                   "-o", "StrictHostKeyChecking=yes",
                   "-o", f"NumberOfPasswordPrompts={prompts}"]  # fmt: skip
        options += identity_options(identities)
        env = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "",
               "ANSWERS": str(said), "SSH_AUTH_SOCK": ""}  # fmt: skip
        return await run("ssh", *options, f"{user}@127.0.0.1", *more, env=env, stdin=stdin)

    @property
    def asked(self) -> str:
        """Every question that was asked."""
        return (self.folder / "answers.asked").read_text()

    async def keys(self) -> set[str]:
        return {each.public for each in await keys.list_all(self.house.context, self.who.actor)}


def identity_options(identities: tuple[Path, ...]) -> list[str]:
    """Else ssh offers what whoever runs the tests has, also beside a file that is not there."""
    return [word for each in identities or ("none",) for word in ("-o", f"IdentityFile={each}")]


@pytest_asyncio.fixture(scope="module", params=DATABASES)
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    async with open_on(request, tmp_path_factory) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def gateway(house: House) -> Running:
    return await house.gateway()


@pytest.fixture
async def newcomer(house: House, tmp_path: Path) -> Newcomer:
    who = await house.person()
    for key in await keys.list_all(house.context, who.actor):
        await keys.remove(house.context, who.actor, key.id)
    return Newcomer(house, who, tmp_path)


def public(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


async def test_the_key_that_ssh_offers_is_registered_and_works_at_once(
    house: House, gateway: Running, newcomer: Newcomer
) -> None:
    key = await new_key(newcomer.folder / "mine")
    name = newcomer.who.name
    ran = await newcomer.register(gateway, name, PASSWORD, "y", identities=(key,))
    assert ran.code == 0, ran
    fingerprint = (await run("ssh-keygen", "-lf", str(key))).out.split()[1]
    assert f"{fingerprint} opens your machines from now on, {name}" in ran.out
    assert fingerprint in newcomer.asked
    assert PASSWORD not in ran.err + newcomer.asked
    assert await newcomer.keys() == {public(key)}
    event, *_ = await house.events("key.add", name)
    assert event.detail["fingerprint"] == fingerprint
    assert (event.address, event.result) == ("127.0.0.1", "ok")
    assert (await newcomer.who.lab(gateway, "help", key=key)).code == 0


async def test_of_several_keys_one_is_chosen(gateway: Running, newcomer: Newcomer) -> None:
    first, second = [await new_key(newcomer.folder / name) for name in ("first", "second")]
    answers = (newcomer.who.name, PASSWORD, "7", "2", "yes")
    ran = await newcomer.register(gateway, *answers, identities=(first, second))
    assert ran.code == 0, ran
    assert "1-2" in newcomer.asked
    assert await newcomer.keys() == {public(second)}


async def test_who_has_no_key_there_sends_one(gateway: Running, newcomer: Newcomer) -> None:
    key = await new_key(newcomer.folder / "elsewhere")
    line = Path(f"{key}.pub").read_bytes()
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD, stdin=line)
    assert ran.code == 0, ran
    assert await newcomer.keys() == {public(key)}
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD)
    assert (ran.code, "There was no key" in ran.err) == (1, True)


async def test_a_key_that_is_declined_is_not_registered(
    gateway: Running, newcomer: Newcomer
) -> None:
    key = await new_key(newcomer.folder / "mine")
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD, "n", identities=(key,))
    assert ran.code == 1
    assert await newcomer.keys() == set()


async def test_a_weak_key_and_one_that_somebody_has_are_refused(
    house: House, gateway: Running, newcomer: Newcomer, alice: Resident
) -> None:
    weak = newcomer.folder / "weak"
    argv = ("-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(weak))
    assert (await run("ssh-keygen", *argv)).code == 0
    me = newcomer.who.name
    for line, said in (
        (public(weak), "at least 2048 bits"),
        (public(alice.key), "already registered"),
        ("nonsense", "not an SSH public key"),
        ("x" * 40_000, "not one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ):
        ran = await newcomer.register(gateway, me, PASSWORD, stdin=line.encode())
        assert ran.code in {5, 6}, ran
        assert said in ran.err, (line[:30], ran)
    assert await newcomer.keys() == set()


async def test_who_answers_wrongly_is_told_and_asked_again(
    house: House, gateway: Running, newcomer: Newcomer
) -> None:
    key = await new_key(newcomer.folder / "mine")
    me = newcomer.who.name
    ran = await newcomer.register(
        gateway, me, "wrong", me, PASSWORD, "y", identities=(key,), prompts=6
    )
    assert ran.code == 0, ran
    assert ran.err.count("The name or the password is wrong. Try again.") == 1
    assert await newcomer.keys() == {public(key)}
    await house.forget_failures()


async def test_nobody_learns_which_names_there_are_and_guesses_are_counted(
    house: House, newcomer: Newcomer
) -> None:
    # Of its own: an address that has guessed too often is told to wait everywhere.
    gateway = await house.gateway(login_failures=4)
    key = await new_key(newcomer.folder / "mine")
    gone = await house.person()
    await users.disable(house.context, SYSTEM, gone.name)
    said: set[str] = set()
    for name, password in (
        (newcomer.who.name, "wrong"), ("nobody-at-all", PASSWORD), (gone.name, PASSWORD),
        ("", ""),
    ):  # fmt: skip
        ran = await newcomer.register(gateway, name, password, "y", identities=(key,))
        assert ran.code == 255
        said.add(ran.err)
    assert len(said) == 1, said
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD, "y", identities=(key,))
    assert ran.code == 255
    assert "Too many failed sign-ins" in ran.err
    assert await newcomer.keys() == set()
    refused = await house.events("user.login", "nobody")
    assert {(each.address, each.result) for each in refused} == {("127.0.0.1", "refused")}
    await house.forget_failures()


async def test_it_registers_and_does_nothing_else(
    house: House, gateway: Running, newcomer: Newcomer
) -> None:
    await house.machine(newcomer.who)
    me = newcomer.who.name
    ran = await newcomer.register(gateway, me, PASSWORD, more=("-W", "box:22"))
    assert ran.code == 255
    assert "for registering a key" in ran.err
    ran = await newcomer.register(gateway, me, PASSWORD, more=("list",))
    assert "box" not in ran.out + ran.err


async def test_a_key_that_is_only_shown_opens_nothing(
    house: House, gateway: Running, newcomer: Newcomer, alice: Resident
) -> None:
    # Of alice's key there is only the public half here: it is offered, and never signs.
    await house.machine(alice)
    shown = newcomer.folder / "hers"
    Path(f"{shown}.pub").write_text(Path(f"{alice.key}.pub").read_text())
    ran = await newcomer.register(
        gateway, newcomer.who.name, PASSWORD, identities=(shown,), more=("list",)
    )
    assert "box" not in ran.out + ran.err
    assert ran.code == 1, ran


async def test_no_other_name_is_asked_for_a_password(gateway: Running, newcomer: Newcomer) -> None:
    key = await new_key(newcomer.folder / "mine")
    ran = await newcomer.register(
        gateway, newcomer.who.name, PASSWORD, "y", identities=(key,), user="anybody"
    )
    assert ran.code == 255
    assert "(publickey)" in ran.err


async def test_an_administrator_can_do_without(house: House, newcomer: Newcomer) -> None:
    gateway = await house.gateway(gateway_register="never")
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD)
    assert "(publickey)" in ran.err


async def test_who_takes_too_long_is_sent_away(house: House, newcomer: Newcomer) -> None:
    gateway = await house.gateway(gateway_login_seconds=3)
    ran = await newcomer.register(gateway, newcomer.who.name, PASSWORD, more=("-N",))
    assert ran.code == 255
    assert "took too long" in ran.err


async def test_at_a_terminal(house: House, gateway: Running, newcomer: Newcomer) -> None:
    key = await new_key(newcomer.folder / "elsewhere")
    line = Path(f"{key}.pub").read_text().strip()
    seen = await asyncio.to_thread(
        at_terminal,
        ["ssh", "-F", "none", "-p", str(gateway.port), *identity_options(()),
         "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={house.known_hosts(gateway)}",
         "register@127.0.0.1"],
        [("Name: ", newcomer.who.name), ("Password: ", PASSWORD), ("press Enter", line)],
    )  # fmt: skip
    assert "opens your machines from now on" in seen
    assert PASSWORD not in seen
    # What is typed is shown.
    assert line.split()[1] in seen.replace("\r\n", "")
    assert await newcomer.keys() == {public(key)}


def at_terminal(argv: list[str], answers: list[tuple[str, str]]) -> str:
    """Everything that is seen at a terminal where each prompt is answered."""
    pid, master = pty.fork()
    if pid == 0:
        os.environ.pop("SSH_AUTH_SOCK", None)
        os.execvp(argv[0], argv)
    seen, at = "", 0
    until = time.monotonic() + 60
    for prompt, answer in [*answers, ("", "")]:
        while not prompt or prompt not in seen[at:]:
            assert time.monotonic() < until, seen
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:
                data = b""
            if not data:
                os.waitpid(pid, 0)
                os.close(master)
                return seen
            seen += data.decode(errors="replace")
        at = len(seen)
        os.write(master, f"{answer}\r".encode())
    return seen
