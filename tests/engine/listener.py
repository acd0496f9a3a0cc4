"""What listens inside a container for the tests of streams.

It runs in a real container as a program (`python3 listener.py PORT`), and in the tests' own process
for a simulated one. The first line of a connection says what becomes of it.
"""

import asyncio
import hashlib
import json
import sys

PIECE = bytes(range(256)) * 256


class Listener:
    def __init__(self) -> None:
        self.open = 0
        """Connections that `echo` has."""
        self.sent = 0
        """Bytes that the last `give` has handed over."""
        self.kept = ""
        """The hash of what the last `keep` was sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readline()).decode().split()
            if line:
                await getattr(self, line[0])(reader, writer, *map(int, line[1:]))
        except OSError:
            pass
        finally:
            writer.close()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send back what comes, until the other side has closed."""
        self.open += 1
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        finally:
            self.open -= 1

    async def give(
        self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int
    ) -> None:
        """Send so many bytes, and close at once."""
        self.sent = 0
        while self.sent < size:
            piece = PIECE[: size - self.sent]
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()

    async def take(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int
    ) -> None:
        """Read so many bytes, and answer with their hash."""
        digest = hashlib.sha256()
        while size:
            piece = await reader.read(min(size, 65536))
            digest.update(piece)
            size -= len(piece)
        writer.write(digest.hexdigest().encode())

    async def keep(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Keep what comes until the other side has closed."""
        self.kept = ""
        digest = hashlib.sha256()
        while piece := await reader.read(65536):
            digest.update(piece)
        self.kept = digest.hexdigest()

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say so, and read nothing more."""
        writer.write(b"held")
        await writer.drain()
        await asyncio.sleep(3600)

    async def tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What there is to tell."""
        told = {"open": self.open, "kept": self.kept, "sent": self.sent}
        writer.write(json.dumps(told).encode())


async def main() -> None:
    server = await asyncio.start_server(Listener().serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
