"""Through the gateway to a machine, by name and by key; and to nothing else."""

import asyncio
import hashlib
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import SYSTEM, Role
from hutch.gateway.server import CIPHERS
from hutch.services import gateway as services
from hutch.services import keys, users
from tests.conftest import DATABASES
from tests.gateway.conftest import open_on
from tests.gateway.house import House, Resident, Running
from tests.system.site import free_port, new_key, run


@pytest_asyncio.fixture(scope="module", params=DATABASES)
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    async with open_on(request, tmp_path_factory) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def gateway(house: House) -> Running:
    return await house.gateway()


@pytest.mark.parametrize("user", ["anybody", "root", "box", "register-me", "a.b"])
async def test_a_key_leads_to_its_owners_machine_whatever_the_user_name(
    gateway: Running, alice: Resident, box: Instance, user: str
) -> None:
    ran = await alice.ssh(gateway, box.name, "echo", "hello", user=user)
    assert (ran.code, ran.out) == (0, "hello\n"), ran


async def test_a_machine_is_also_known_by_its_id_and_with_its_owner(
    gateway: Running, alice: Resident, box: Instance
) -> None:
    for name in (box.id, f"{box.name}.{alice.name}", box.name.upper()):
        assert (await alice.ssh(gateway, name, "echo here")).out == "here\n", name


async def test_exit_codes_streams_and_input_pass(
    gateway: Running, alice: Resident, box: Instance
) -> None:
    ran = await alice.ssh(gateway, box.name, "cat; echo problem >&2; exit 7", stdin=b"typed")
    assert (ran.code, ran.out, ran.err) == (7, "typed", "problem\n")


async def test_nobody_else_gets_there_and_hears_no_more_than_that_it_is_not_there(
    gateway: Running, alice: Resident, bob: Resident, box: Instance
) -> None:
    said: set[str] = set()
    for name in (box.name, box.id, f"{box.name}.{alice.name}", "nothing"):
        ran = await bob.forward(gateway, f"{name}:22")
        assert ran.code != 0
        said.add(ran.err.replace(name, "NAME"))
    assert len(said) == 1, said
    assert "there is no instance 'NAME'" in said.pop()


async def test_an_administrator_names_others_machines_with_their_owner(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    ada = await house.person(role=Role.ADMIN)
    assert (await ada.ssh(gateway, f"{box.name}.{alice.name}", "echo here")).out == "here\n"
    assert (await ada.ssh(gateway, box.name, "echo here")).code != 0, "that is none of ada's own"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "::1", "0.0.0.0", "::ffff:127.0.0.1", "2130706433", "0x7f000001",
        "localhost.localdomain", "127.1", "169.254.169.254", "metadata.google.internal",
        "fe80::1%lo", "ip6-localhost", "192.0.2.1", "example.org", "..", "box/../box", "a\tb",
        "x" * 300, "::", "0:0:0:0:0:0:0:1", "::ffff:169.254.169.254", "fd00:ec2::254", "localhost.",
        "LOCALHOST", "box.localhost", "127.0.0.1.nip.io", "017700000001", "node1", "box@127.0.0.1",
    ],
)  # fmt: skip
async def test_nothing_but_a_machine_is_reached(
    gateway: Running, alice: Resident, box: Instance, host: str
) -> None:
    shown = f"[{host}]" if ":" in host else host
    # Ports of services that this very machine has: its own gateway, and the machine's server.
    for port in (22, gateway.port, box.ssh_port):
        ran = await alice.forward(gateway, f"{shown}:{port}")
        assert ran.code != 0
        assert ran.out == ""
        assert "there is no instance" in ran.err, ran


async def test_of_a_machine_only_its_ssh_server_is_reached(
    gateway: Running, alice: Resident, box: Instance
) -> None:
    ran = await alice.forward(gateway, f"box:{box.ssh_port}")
    assert ran.code != 0
    assert "only the SSH port of box is reached here" in ran.err


async def test_other_forwards_are_refused(gateway: Running, alice: Resident) -> None:
    port = free_port()
    options = alice.options(gateway, ExitOnForwardFailure="yes")
    ran = await run("ssh", *options, "-N", "-R", f"{port}:localhost:22", "anybody@127.0.0.1")
    assert ran.code == 255
    assert "remote port forwarding failed" in ran.err


async def test_an_unknown_key_is_refused_and_told_in_the_audit(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    stranger = await new_key(house.folder / f"stranger-of-{alice.name}")
    ran = await alice.ssh(gateway, box.name, "true", key=stranger)
    assert ran.code == 255
    assert "Permission denied" in ran.err
    fingerprint = (await run("ssh-keygen", "-lf", str(stranger))).out.split()[1]
    async with asyncio.timeout(90):
        while not any(
            fingerprint in each.detail.get("fingerprints", ())
            for each in await house.events("gateway.login", "nobody")
        ):
            await asyncio.sleep(0.1)


async def test_a_login_is_an_event_with_the_keys_fingerprint_and_the_address(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    await alice.ssh(gateway, box.name, "true")
    async with asyncio.timeout(30):
        while not (found := await house.events("gateway.login", alice.name)):
            await asyncio.sleep(0.05)
    fingerprint = (await run("ssh-keygen", "-lf", str(alice.key))).out.split()[1]
    assert found[0].detail["fingerprint"] == fingerprint
    assert (found[0].address, found[0].result) == ("127.0.0.1", "ok")
    assert found[0].request_id


async def test_a_key_that_was_removed_and_one_of_a_person_shut_out_are_refused(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    (key,) = await keys.list_all(house.context, alice.actor)
    await keys.remove(house.context, alice.actor, key.id)
    assert "Permission denied" in (await alice.ssh(gateway, box.name, "true")).err
    await keys.add(house.context, alice.actor, Path(f"{alice.key}.pub").read_text())
    assert (await alice.ssh(gateway, box.name, "true")).code == 0
    await users.disable(house.context, SYSTEM, alice.name)
    assert "Permission denied" in (await alice.ssh(gateway, box.name, "true")).err


@pytest.mark.parametrize("end", ["key", "person", "machine"])
async def test_an_open_session_ends_when_its_right_does(
    house: House, gateway: Running, alice: Resident, box: Instance, end: str
) -> None:
    other = await house.person()
    theirs = await house.machine(other)
    session = await _open(alice, gateway, box)
    others = await _open(other, gateway, theirs)
    if end == "key":
        (key,) = await keys.list_all(house.context, alice.actor)
        await keys.remove(house.context, alice.actor, key.id)
    elif end == "person":
        await users.disable(house.context, SYSTEM, alice.name)
    else:
        await house.remove(box)
    async with asyncio.timeout(5):
        assert await session.wait() == 255
    assert others.returncode is None, "somebody else's goes on"
    others.stdin.close()
    assert await others.wait() == 0


async def _open(who: Resident, gateway: Running, box: Instance) -> Process:
    """A session that is open: `cat` has answered."""
    process = await asyncio.create_subprocess_exec(
        "ssh", *who.through(gateway), f"{who.name}@{box.name}", "cat",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await _echo(process)
    return process


async def _echo(process: Process) -> None:
    process.stdin.write(b"ping\n")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ping\n"


# ---- machines that do not run -----------------------------------------------------------------


async def test_a_stopped_machine_is_started_and_who_names_it_is_told(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    await house.set_state(box, InstanceState.STOPPED)
    coming = asyncio.create_task(alice.ssh(gateway, "box", "echo up", user="box", LogLevel="INFO"))
    async with asyncio.timeout(20):
        while await house.state(box) is not InstanceState.STARTING:
            await asyncio.sleep(0.05)
    assert not coming.done(), "it waits until the machine runs"
    await house.set_state(box, InstanceState.RUNNING)
    ran = await coming
    assert (ran.code, ran.out) == (0, "up\n")
    assert "box is stopped. Going there starts it" in ran.err


async def test_nothing_is_said_of_a_machine_that_runs_or_is_not_named(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    assert (await alice.ssh(gateway, "box", "true", user="box")).err == ""


async def test_a_machine_whose_owner_does_not_want_it_is_not_started(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    await services.set_wake(house.context, alice.actor, "box", wake=False)
    await house.set_state(box, InstanceState.STOPPED)
    ran = await alice.forward(gateway, "box:22")
    assert "box is stopped; start it: ssh lab start box" in ran.err
    assert await house.state(box) is InstanceState.STOPPED


async def test_a_machine_that_could_not_be_made_is_said_to_be(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    await house.set_state(box, InstanceState.FAILED)
    assert "box is failed" in (await alice.forward(gateway, "box:22")).err


async def test_a_machine_whose_ssh_server_is_dead_is_said_to_be(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    house.machines[box.id].close()
    await house.machines[box.id].wait_closed()
    ran = await alice.forward(gateway, "box:22")
    assert "nothing answers at its SSH port on node1: connection refused" in ran.err


async def test_a_machine_that_goes_away_ends_the_session(
    house: House, gateway: Running, alice: Resident, box: Instance
) -> None:
    session = await _open(alice, gateway, box)
    for connection in house.connections:
        connection.abort()
    async with asyncio.timeout(20):
        assert await session.wait() == 255


# ---- what is carried --------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", CIPHERS)
async def test_every_byte_arrives_with_every_cipher_and_through_new_keys(
    gateway: Running, alice: Resident, box: Instance, cipher: str
) -> None:
    sent = os.urandom(5_000_000)
    ran = await alice.ssh(
        gateway, "box", "sha256sum", stdin=sent, Ciphers=cipher, RekeyLimit="700K"
    )
    assert ran.code == 0, ran.err[-500:]
    digest, _, _ = ran.out.partition(" ")
    assert digest == hashlib.sha256(sent).hexdigest()


async def test_many_channels_of_one_connection_do_not_mix(
    gateway: Running, alice: Resident, box: Instance
) -> None:
    """As with ControlMaster: many logins over one connection to the gateway."""
    socket_path = gateway.log.with_suffix(".master")
    shared = {"ControlPath": str(socket_path), "ControlMaster": "auto", "ControlPersist": "30"}
    sent = [os.urandom(300_000 + number) for number in range(8)]
    await alice.ssh(gateway, "box", "true", **shared)
    came = await asyncio.gather(
        *(alice.ssh(gateway, "box", "sha256sum", stdin=each, **shared) for each in sent)
    )
    options = alice.options(gateway, **shared)
    await run("ssh", *options, "-O", "exit", "anybody@127.0.0.1")
    assert [ran.out.split()[0] for ran in came] == [hashlib.sha256(s).hexdigest() for s in sent]
