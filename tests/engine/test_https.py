"""A real Incus that is reached as that of another machine is: over HTTPS, with certificates."""

import asyncio
import datetime
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hutch.engine.base import Power
from hutch.engine.incus import Certificates, IncusEngine
from hutch.errors import EngineError, EnginePortClosedError, EngineUnavailableError
from hutch.setup.private import PrivateIncus
from tests.engine.contract import Site
from tests.engine.streams_contract import CLOSED, PORT, everything, listen, pattern
from tests.system.site import free_port

pytestmark = pytest.mark.incus

_PATIENCE = 30.0
_SIZE = 4_000_000


def new_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    public, private = folder / f"{name}.crt", folder / f"{name}.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


def command(incus: PrivateIncus, *argv: str) -> None:
    subprocess.run(
        ["incus", *argv], env=os.environ | incus.environment(), check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def url(incus: PrivateIncus) -> str:
    address = f"127.0.0.1:{free_port()}"
    command(incus, "config", "set", "core.https_address", address)
    return f"https://{address}"


def engine_at(url: str, incus: PrivateIncus, certificates: Certificates) -> IncusEngine:
    return IncusEngine(
        url, project=incus.project, pool=incus.pool, network=incus.network,
        certificates=certificates,
    )  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def engine(incus: PrivateIncus, url: str, folder: Path) -> AsyncIterator[IncusEngine]:
    certificate, key = new_certificate(folder, "client")
    command(incus, "config", "trust", "add-certificate", str(certificate))
    shutil.copy(incus.folder / "server.crt", folder / "server.crt")
    made = engine_at(url, incus, Certificates(certificate, key, folder / "server.crt"))
    yield made
    await made.close()
    command(incus, "config", "unset", "core.https_address")


@pytest_asyncio.fixture(scope="module")
async def running(engine: IncusEngine, incus_site: Site) -> AsyncIterator[str]:
    spec = incus_site.spec()
    await engine.create(spec, start=True)
    yield spec.name
    await engine.delete(spec.name)


async def test_containers_are_made_run_and_stopped(engine: IncusEngine, incus_site: Site) -> None:
    spec = incus_site.spec()
    changes = engine.changes()
    try:
        async with asyncio.timeout(_PATIENCE):
            await engine.create(spec, start=True)
            while (await anext(changes)).name != spec.name:
                pass
        seen = await engine.get(spec.name)
        assert seen is not None
        assert seen.power is Power.RUNNING
        ran = await engine.exec(spec.name, ["cat"], stdin=b"there and back")
        assert (ran.code, ran.stdout) == (0, b"there and back")
        await engine.stop(spec.name, timeout=0)
    finally:
        await engine.delete(spec.name)
    assert await engine.get(spec.name) is None


async def test_connections_into_one_are_carried(engine: IncusEngine, running: str) -> None:
    await listen(engine, running)
    async with engine.connect(running, PORT) as stream:
        await stream.write(f"give {_SIZE}\n".encode())
        assert await everything(stream) == pattern(_SIZE)
    async with engine.connect(running, PORT) as stream, asyncio.timeout(_PATIENCE):
        await stream.write(b"echo\nx")
        assert await stream.read() == b"x"
    with pytest.raises(EnginePortClosedError):
        async with engine.connect(running, CLOSED):
            pass


async def test_a_terminal_is_opened(engine: IncusEngine, running: str) -> None:
    said = b""
    async with (
        engine.terminal(running, ["cat"], environment={}, columns=80, rows=24) as terminal,
        asyncio.timeout(_PATIENCE),
    ):
        await terminal.write(b"hello\n")
        while b"hello\r\nhello\r\n" not in said:
            said += await terminal.read()


async def test_files_come_and_go(engine: IncusEngine, running: str) -> None:
    content = pattern(_SIZE)
    async with engine.files(running) as files, asyncio.timeout(_PATIENCE):
        async with files.writing(b"/root/large", offset=None) as writing:
            await writing.write(content)
        async with files.reading(b"/root/large") as reading:
            came = b"".join([piece async for piece in reading.read(0, len(content))])
    assert came == content


async def test_a_stranger_is_refused(
    incus: PrivateIncus, engine: IncusEngine, url: str, folder: Path, running: str
) -> None:
    certificate, key = new_certificate(folder, "stranger")
    stranger = engine_at(url, incus, Certificates(certificate, key, folder / "server.crt"))
    try:
        for asked in (stranger.exec(running, ["true"]), stranger.containers()):
            with pytest.raises(EngineError):
                await asked
    finally:
        await stranger.close()


async def test_another_server_in_its_place_is_not_believed(
    incus: PrivateIncus, engine: IncusEngine, url: str, folder: Path, running: str
) -> None:
    another, _ = new_certificate(folder, "another")
    fooled = engine_at(
        url, incus, Certificates(folder / "client.crt", folder / "client.key", another)
    )
    try:
        for asked in (fooled.exec(running, ["true"]), fooled.containers()):
            with pytest.raises(EngineUnavailableError, match="certificate"):
                await asked
    finally:
        await fooled.close()
