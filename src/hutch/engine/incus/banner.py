"""Waits for the SSH server behind a forwarded port."""

import asyncio
import contextlib

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.05
_CONNECT_WITHIN = 0.2
"""Seconds. A booting container drops packets to its address rather than refuse them, and the
kernel's own next try comes a second later: ours must come sooner, not to lose that second."""
_GREET_WITHIN = 2.0
"""Seconds that a server may take to greet whom it let connect: a busy node's are slow."""


async def wait_for_banner(host: str, port: int, *, timeout: float) -> bool:
    """Whether a server that greets with `SSH-` answers within `timeout` seconds."""
    pause = _FIRST_PAUSE
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while not await _greets(host, port):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            return True
    return False


async def _greets(host: str, port: int) -> bool:
    writer = None
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
        async with asyncio.timeout(_GREET_WITHIN):
            return (await reader.read(4)).startswith(b"SSH")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer:
            writer.transport.abort()
