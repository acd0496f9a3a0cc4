"""OpenSSH's own programs, through the real gateway, to a real machine."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hutch.setup.private import PrivateIncus
from tests.gateway.house import Running
from tests.system.door import Door, Visitor
from tests.system.site import Person, Ran, Site, free_port, open_site, run

pytestmark = pytest.mark.incus

PROMPT = 5.0
"""Seconds within which who is shut out must be out."""
SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from inside " + self.path.encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
"""


@pytest_asyncio.fixture(scope="module")
async def site(
    incus: PrivateIncus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port = str(free_port())
    async with open_site(
        incus, folder, f"sqlite:///{folder / 'hutch.db'}",
        gateway_port=port, gateway_address=f"127.0.0.1:{port}", gateway_silence_seconds="6",
    ) as opened:  # fmt: skip
        yield opened


@pytest_asyncio.fixture(scope="module")
async def door(site: Site) -> AsyncIterator[Door]:
    opened = Door(site, int(site.settings["gateway_port"]))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module")
async def gateway(door: Door) -> Running:
    return await door.gateway()


@pytest_asyncio.fixture(scope="module")
async def box(alice: Person) -> str:
    """A running machine of alice's."""
    await alice.ok("create", "box", "--memory", "512MiB", "--disk", "3GiB", "--cpus", "1")
    return "box"


@pytest_asyncio.fixture
async def visitor(door: Door, gateway: Running, alice: Person, box: str) -> Visitor:
    return await door.visitor(alice)


@pytest_asyncio.fixture(scope="module")
async def bob(site: Site) -> Person:
    return await site.person("bob")


# ---- in and out -------------------------------------------------------------------------------


async def test_a_machine_is_reached_by_its_name(visitor: Visitor) -> None:
    assert await visitor.says("box", "whoami; hostname") == "alice\nbox\n"
    # By hand, as `ssh -J` does it.
    assert await visitor.ok("ssh", "-J", "lab", "alice@box.lab", "hostname") == "box\n"
    ran = await visitor.run("ssh", "box", "exit 7")
    assert ran.code == 7


async def test_a_terminal_of_ones_own(visitor: Visitor) -> None:
    said = await visitor.ok("ssh", "-tt", "box", stdin=b"tty; stty size; exit\n")
    assert "/dev/pts/" in said


async def test_files_go_and_come_with_scp_sftp_and_rsync(visitor: Visitor, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(20_000_000))
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()
    await visitor.ok("scp", "-q", str(sent), "box:by_scp")
    await visitor.ok("scp", "-q", "-O", str(sent), "box:by_old_scp")
    await visitor.ok("sftp", "-q", "-b", "-", "box", stdin=f"put {sent} by_sftp\n".encode())
    shell = f"ssh -F {visitor.config}"
    ran = await visitor.other("rsync", "-e", shell, str(sent), "box:by_rsync")
    assert ran.code == 0, ran
    sums = await visitor.says("box", "sha256sum by_*")
    assert [line.split() for line in sums.splitlines()] == [
        [digest, name] for name in ("by_old_scp", "by_rsync", "by_scp", "by_sftp")
    ]
    await visitor.ok("scp", "-q", "box:by_sftp", str(tmp_path / "back"))
    ran = await visitor.other("rsync", "-a", "-e", shell, "box:by_scp", f"{tmp_path}/again")
    assert ran.code == 0, ran
    for name in ("back", "again"):
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    await visitor.says("box", "rm by_*")


async def test_git_pushes_and_clones(visitor: Visitor, tmp_path: Path) -> None:
    how = {"GIT_SSH_COMMAND": f"ssh -F {visitor.config}", "GIT_CONFIG_GLOBAL": "/dev/null"}
    await visitor.says("box", "git init -q --bare work.git")
    work, back = tmp_path / "work", tmp_path / "back"
    (work / "folder").mkdir(parents=True)
    (work / "folder/file").write_text("text\n")
    me = ("-c", "user.name=Alice", "-c", "user.email=alice@example.org")
    for argv in (
        ("init", "-q", "-b", "main", "."),
        ("add", "."),
        (*me, "commit", "-q", "-m", "One"),
        ("push", "-q", "box:work.git", "main"),
        ("clone", "-q", "-b", "main", "box:work.git", str(back)),
    ):
        ran = await visitor.other("git", "-C", str(work), *argv, **how)
        assert ran.code == 0, (argv, ran)
    assert (back / "folder/file").read_text() == "text\n"


# ---- forwards ---------------------------------------------------------------------------------


async def fetch(port: int, *more: str) -> str:
    """What an HTTP server says, once there is one."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
        "--noproxy", "", *more, f"http://127.0.0.1:{port}/path",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


async def test_a_port_inside_is_forwarded_to_here(visitor: Visitor) -> None:
    here = free_port()
    await visitor.says("box", "cat > serve.py", stdin=SERVE.encode())
    argv = ("-L", f"{here}:127.0.0.1:8765", "box", "python3 serve.py 8765")
    async with visitor.session(*argv) as session:
        assert await session.line() == "listening on 8765"
        assert await fetch(here) == "from inside /path"


async def test_a_port_here_is_forwarded_to_inside(visitor: Visitor) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nfrom outside")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        here = server.sockets[0].getsockname()[1]
        said = await visitor.ok(
            "ssh", "-R", f"8766:127.0.0.1:{here}", "box", "curl -s http://127.0.0.1:8766/"
        )
    assert said == "from outside"


async def test_whatever_is_inside_is_reached_by_a_dynamic_forward(visitor: Visitor) -> None:
    here = free_port()
    argv = ("-D", str(here), "-o", "ExitOnForwardFailure=yes", "box", "python3 serve.py 8767")
    await visitor.says("box", "cat > serve.py", stdin=SERVE.encode())
    async with visitor.session(*argv) as session:
        assert await session.line() == "listening on 8767"
        assert await fetch(8767, "--socks5-hostname", f"127.0.0.1:{here}") == "from inside /path"


async def test_ones_agent_comes_along(visitor: Visitor) -> None:
    public = Path(f"{visitor.person.key}.pub").read_text().split()[1]
    assert public in await visitor.ok("ssh", "-A", "box", "ssh-add -L")
    # What it signs there is good: into the machine again, with the key that is only here.
    again = "ssh -o StrictHostKeyChecking=no -o BatchMode=yes alice@localhost hostname"
    assert await visitor.ok("ssh", "-A", "box", again) == "box\n"


EDITOR = """
uname -sm
mkdir -p .editor/bin
cat > .editor/bin/server.py <<'END'
{serve}
END
if [ -f .editor/port ]; then
    echo "found running server"
else
    nohup python3 .editor/bin/server.py 0 > .editor/log 2>&1 < /dev/null &
    echo $! > .editor/pid
    until grep -q listening .editor/log; do sleep 0.1; done
    sed 's/listening on //' .editor/log > .editor/port
fi
echo "listeningOn==$(cat .editor/port)=="
echo "end of the script"
"""
"""What an editor does that works on another machine: it looks around, puts a server there, starts
it so that it outlives the connection, and tells at which port it listens."""


async def test_an_editor_installs_its_server_and_works_over_one_connection(
    visitor: Visitor, tmp_path: Path
) -> None:
    script = EDITOR.format(serve=SERVE).encode()
    socks, control = free_port(), str(tmp_path / "c")
    # A dry run first, then the script on standard input of a shell, with a forward for everything.
    assert (await visitor.ok("ssh", "-T", "box", "echo ready")) == "ready\n"
    argv = ("-T", "-D", str(socks), "-o", "ConnectTimeout=60", "-M", "-S", control, "box", "bash")
    async with visitor.session(*argv) as session:
        assert session.process.stdin is not None
        session.process.stdin.write(script)
        lines = [await session.line() for _ in range(3)]
        assert lines[0].startswith("Linux")
        assert lines[2] == "end of the script"
        port = int(lines[1].split("==")[1])
        proxy = ("--socks5-hostname", f"127.0.0.1:{socks}")
        # Many small requests at once, as its windows make them.
        said = await asyncio.gather(*(fetch(port, *proxy) for _ in range(20)))
        assert set(said) == {"from inside /path"}
        # A second window and a forward, over the same connection.
        here = free_port()
        on = ("-S", control, "box")
        assert await visitor.ok("ssh", *on, "hostname") == "box\n"
        await visitor.ok("ssh", "-O", "forward", "-L", f"{here}:127.0.0.1:{port}", *on)
        assert await fetch(here) == "from inside /path"
    # The connection is gone, and its server is found when the next one comes.
    again = await visitor.ok("ssh", "-T", "box", "bash", stdin=script)
    assert "found running server" in again
    await visitor.says("box", "kill $(cat .editor/pid); rm -r .editor")


# ---- what ends, and what does not -------------------------------------------------------------


async def test_a_session_outlives_the_server_and_new_ones_come_without_it(
    site: Site, visitor: Visitor
) -> None:
    async with visitor.session("box", "cat") as session:
        await session.echoes("before")
        await site.kill()
        try:
            await session.echoes("without a server")
            assert await visitor.says("box", "hostname") == "box\n"
        finally:
            await site.start()
        await session.echoes("with the next one")


async def test_a_session_outlives_the_gateway_that_hands_over(
    door: Door, gateway: Running, visitor: Visitor
) -> None:
    old = await door.gateway()
    # Whichever of the two takes it: the other has gone when it is over.
    async with visitor.session("box", "cat") as one, visitor.session("box", "cat") as two:
        await one.echoes("before")
        await two.echoes("before")
        old.signal(signal.SIGHUP)
        assert await old.ended() == 0
        await one.echoes("after")
        await two.echoes("after")
        assert await visitor.says("box", "hostname") == "box\n"


async def test_a_stopped_machine_is_started_and_that_is_said(
    alice: Person, visitor: Visitor
) -> None:
    await alice.ok("stop", "box")
    ran = await visitor.run("ssh", "box", "hostname")
    assert (ran.code, ran.out) == (0, "box\n"), ran
    assert "box is stopped. Going there starts it" in ran.err


async def test_who_is_stopped_while_in_is_told(alice: Person, visitor: Visitor) -> None:
    async with visitor.session("box", "cat") as session:
        await session.echoes("before")
        await alice.ok("stop", "box")
        assert "box" in await session.ended()
    await alice.ok("start", "box")


async def test_a_machine_without_its_ssh_server_is_said_to_be(
    site: Site, alice: Person, visitor: Visitor
) -> None:
    dead = "systemctl mask --runtime --now ssh"
    await alice.ok("exec", "box", "--", "sudo", "sh", "-c", dead)
    ran = await visitor.run("ssh", "box", "hostname")
    back = "systemctl unmask --runtime ssh; systemctl start ssh"
    await alice.ok("exec", "box", "--", "sudo", "sh", "-c", back)
    assert ran.code == 255
    assert "nothing answers at its SSH port on node1: connection refused" in ran.err


async def test_who_is_in_when_the_machine_goes_silent_is_told_and_does_not_hang(
    site: Site, visitor: Visitor
) -> None:
    link = await link_of_box(site)
    async with visitor.session("box", "cat") as session:
        await session.echoes("before")
        # As if the node's power had failed: nobody says goodbye.
        assert (await run("ip", "link", "set", link, "down")).code == 0
        try:
            assert "box no longer answers" in await session.ended()
            ran = await visitor.run("ssh", "box", "hostname")
        finally:
            await run("ip", "link", "set", link, "up")
    assert ran.code == 255
    assert "nothing answers at its SSH port on node1" in ran.err
    assert await visitor.says("box", "hostname") == "box\n"


async def link_of_box(site: Site) -> str:
    """The node's end of the machine's cable."""
    (name,) = await site.engine_names()
    shown = await site.incus_command("config", "get", name, "volatile.eth0.host_name")
    return shown.out.strip()


# ---- others -----------------------------------------------------------------------------------


async def test_a_colleague_is_in_when_shared_with_and_out_when_not(
    door: Door, alice: Person, bob: Person, visitor: Visitor
) -> None:
    colleague = await door.visitor(bob)
    refused = await bob_at(colleague)
    assert refused.code == 255
    assert "there is no instance 'box.alice'" in refused.err
    await alice.ok("share", "box", "bob")
    colleague = await door.visitor(bob)
    assert await colleague.says("box.alice", "whoami") == "alice\n"
    async with colleague.session("box.alice", "cat") as session:
        await session.echoes("in")
        await alice.ok("unshare", "box", "bob")
        assert "no longer shared with you" in await session.ended(PROMPT)
    assert (await bob_at(colleague)).code == 255


async def bob_at(colleague: Visitor) -> Ran:
    return await colleague.run("ssh", "-W", "box.alice:22", "lab")


async def test_a_removed_key_and_a_person_shut_out_end_open_sessions(
    site: Site, door: Door, ada: Person, bob: Person, visitor: Visitor
) -> None:
    await bob.ok("create", "mine", "--memory", "256MiB", "--disk", "3GiB", "--cpus", "1")
    his = await door.visitor(bob)
    async with his.session("mine", "cat") as session, visitor.session("box", "cat") as hers:
        await session.echoes("in")
        await hers.echoes("in")
        (key,) = (await bob.ok("key", "list", "--json")).json()
        await bob.ok("key", "remove", key["id"])
        assert "no longer opens this gateway" in await session.ended(PROMPT)
        await bob.ok("key", "add", f"{bob.key}.pub")
        async with his.session("mine", "cat") as again:
            await again.echoes("in again")
            await ada.ok("user", "disable", "bob", "--yes")
            assert "no longer opens this gateway" in await again.ended(PROMPT)
        assert (await his.run("ssh", "mine", "true")).code == 255
        await hers.echoes("nobody else is touched")
    await ada.ok("user", "enable", "bob")
    # Their sign-ins ended too.
    await site.person("bob")


async def test_a_machine_that_is_deleted_ends_its_sessions(
    door: Door, bob: Person, gateway: Running
) -> None:
    await bob.ok("create", "brief", "--memory", "256MiB", "--disk", "3GiB", "--cpus", "1")
    his = await door.visitor(bob)
    async with his.session("brief", "cat") as session:
        await session.echoes("in")
        await bob.ok("delete", "brief", "--yes")
        assert "brief" in await session.ended()
