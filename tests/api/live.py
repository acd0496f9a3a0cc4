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
from hutch.domain.people import Scope
from hutch.operations.runner import Runner
from hutch.services import tokens
from hutch.services.context import Engines
from tests import lab as labs


@contextmanager
def serving(url: str, folder: Path, **settings: Any) -> Iterator[tuple[str, str]]:
    """The address and an administrator's token of a server over a lab with a simulated node."""
    token = asyncio.run(fill(url, folder))
    engines = Engines(lambda node: open_engine(node, folder / "certificates"))
    context = replace(labs.open_context(url, folder, **settings), engines=engines)
    app = create_app(context, [Runner(context)])
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", token
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
