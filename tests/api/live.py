"""A server on a port of its own, in a thread: what only real HTTP can show."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from hutch.api.app import create_app, open_engine
from hutch.api.protocol import PatientProtocol
from hutch.api.serve import WEBSOCKETS
from hutch.domain.nodes import EngineKind, Node
from hutch.domain.people import Scope
from hutch.engine.base import Engine
from hutch.errors import ConfigurationError
from hutch.operations.runner import Runner
from hutch.services import tokens
from hutch.services.context import Engines
from tests import lab as labs


def open_simulated(node: Node) -> Engine:
    """As a server opens it, but never a real one: this machine's Incus is nobody's to touch."""
    if node.engine is not EngineKind.SIMULATED:
        raise ConfigurationError("There is no such engine here.")
    return open_engine(node, Path("nowhere"))


@contextmanager
def serving(url: str, folder: Path, **settings: Any) -> Iterator[tuple[str, str]]:
    """The address and an administrator's token of a server over a lab with a simulated node."""
    token = asyncio.run(fill(url, folder))
    with replica(url, folder, **settings) as address:
        yield address, token


@contextmanager
def replica(url: str, folder: Path, **settings: Any) -> Iterator[str]:
    """The address of one more server over a lab that is there. `key` makes it one of several."""
    context = replace(labs.open_context(url, folder, **settings), engines=Engines(open_simulated))
    app = create_app(context, [Runner(context)])
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=PatientProtocol, log_config=None, access_log=False, lifespan="on", **WEBSOCKETS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        app.state.stopping.set()
        thread.join(20)
        assert not thread.is_alive()


async def fill(url: str, folder: Path) -> str:
    """A lab in a migrated database; an administrator's token."""
    context = labs.open_context(url, folder)
    lab = await labs.fill(context.db, folder / "engine.db", context.settings.default_quota)
    token, _ = await tokens.create(context, lab.actors["ada"], "test", Scope.FULL, None)
    await labs.close_context(context)
    return token
