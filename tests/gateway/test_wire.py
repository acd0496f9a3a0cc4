"""What a connection does on the wire."""

import asyncio
import socket
from typing import Any

import asyncssh

from hutch.gateway.wire import Connection


class Listener(asyncssh.SSHServer):
    """Lets everybody in, and answers what they say."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> Any:
        return lambda stdin, stdout, stderr: _echo(stdin, stdout)


async def _echo(stdin: Any, stdout: Any) -> None:
    async for line in stdin:
        stdout.write(line)
    stdout.channel.exit(0)


class Socket:
    """What was set on it."""

    def __init__(self) -> None:
        self.set: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        assert len(option) == 3
        self.set.append(option)


async def test_what_arrives_is_acknowledged_at_once_until_somebody_is_logged_in() -> None:
    loop = asyncio.get_running_loop()
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=Listener, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")]
    )
    kernel = Socket()

    class Watched(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._socket = kernel  # pyright: ignore

    server = await loop.create_server(lambda: Watched(loop, options), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.connect(
        "127.0.0.1", port, username="x", client_keys=[key], known_hosts=None, config=None
    ) as client:
        until_login = list(kernel.set)
        # At least after the greeting, the exchange of keys, and the key.
        assert len(until_login) >= 3
        assert set(until_login) == {(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)}
        ran = await client.run(input="hello\n" * 10_000)
        assert ran.stdout == "hello\n" * 10_000
        assert kernel.set == until_login
    server.close()
    await server.wait_closed()
