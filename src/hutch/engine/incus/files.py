"""Reads files of a container, which are its owner's to put there: pipes, folders, endless ones."""

import asyncio

import httpx

from hutch.engine.incus.client import Client, part
from hutch.errors import EngineError

_WITHIN = 10.0
"""Seconds for reading a file: one that is a pipe inside the container would never end."""


async def read(client: Client, name: str, path: str, *, most: int) -> bytes | None:
    """The first `most` bytes of a regular file, None when it is of another kind.

    Raises EngineNotFoundError when there is none, or no such container.
    """
    try:
        async with asyncio.timeout(_WITHIN):
            return await _read(client, name, path, most)
    except TimeoutError:
        raise EngineError(
            f"{path} could not be read within {_WITHIN:g} s in {name}.", container=name
        ) from None


async def _read(client: Client, name: str, path: str, most: int) -> bytes | None:
    async with client.stream(f"/instances/{part(name)}/files", {"path": path}) as answer:
        if _file_type(answer) != "file":
            return None
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) >= most:
                break
        return bytes(content[:most])


def _file_type(answer: httpx.Response) -> str:
    return answer.headers.get("X-Incus-type") or answer.headers.get("X-LXD-type") or ""
