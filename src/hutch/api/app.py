"""The composition root: everything is put together here, and taken apart when the server stops."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI, Response
from starlette.middleware import Middleware

from hutch import __version__
from hutch.api import (
    PREFIX,
    accelerators,
    agents,
    apps,
    events,
    files,
    groups,
    health,
    images,
    instances,
    keys,
    leases,
    nodes,
    notices,
    openapi,
    operations,
    ports,
    profile,
    reports,
    shares,
    sign_in,
    snapshots,
    ssh_config,
    terminals,
    tokens,
    users,
)
from hutch.api.answers import reply
from hutch.api.background import Background, Worker
from hutch.api.edge import Edge
from hutch.api.failures import handle_failures
from hutch.api.proxy import Apps, Front
from hutch.domain.nodes import EngineKind, Node
from hutch.engine.base import Engine
from hutch.services.context import Context, Engines
from hutch.services.vault import open_vault
from hutch.settings import Settings
from hutch.store.db import Database

DRAIN_SECONDS = 5.0
"""What a stopping server gives the steps in hand; a step that is broken off is only repeated."""

# In the order in which they are asked for most: the first that matches a path is taken.
_NOUNS = (
    instances,
    operations,
    snapshots,
    shares,
    ports,
    files,
    apps,
    profile,
    keys,
    ssh_config,
    tokens,
    sign_in,
    nodes,
    images,
    users,
    events,
    leases,
    accelerators,
    groups,
    notices,
    reports,
    health,
    agents,
    terminals,
)


def open_context(settings: Settings) -> Context:
    """What the use cases need, from the settings. The database must have been migrated."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Context(
        db=Database(settings.database),
        settings=settings,
        vault=open_vault(settings.data / "secret.key"),
        engines=Engines(lambda node: open_engine(node, settings.data / "certificates")),
    )


def open_engine(node: Node, certificates: Path) -> Engine:
    """The engine of a node, not yet contacted.

    One that is reached over https needs three files in the folder `certificates`: `client.crt` and
    `client.key`, which that engine was told to trust, and the engine's own as `<node>.crt`.
    """
    # Imported when needed: a server with one kind of engine does without the other.
    if node.engine is EngineKind.SIMULATED:
        from hutch.engine.simulated import SimulatedEngine

        return SimulatedEngine(Path(unquote(urlsplit(node.url).path)))
    from hutch.engine.incus import Certificates, IncusEngine

    return IncusEngine(
        node.url,
        project=node.project,
        pool=node.pool,
        network=node.network,
        certificates=Certificates(
            certificate=certificates / "client.crt",
            key=certificates / "client.key",
            server=certificates / f"{node.name}.crt",
        ),
    )


def create_app(context: Context, workers: Sequence[Worker] = ()) -> FastAPI:
    """The application. While its lifespan runs, the workers do; at its end the context is closed.

    Set `app.state.stopping` to end every request that waits.
    """
    app = assemble(context.settings)
    app.state.context = context
    app.state.stopping = asyncio.Event()
    app.state.front = Front(context)
    app.state.background = Background(workers)
    return app


def describe_api() -> dict[str, Any]:
    """The OpenAPI document, which depends on no setting."""
    return openapi.describe(assemble(Settings()))


def assemble(settings: Settings) -> FastAPI:
    """Routes, middleware and the handling of failures, without anything behind them."""
    app = FastAPI(
        title="hutch",
        version=__version__,
        lifespan=_lifespan,
        # The document has a route of its own below; the interactive pages load code from afar.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        middleware=[
            Middleware(Apps),
            Middleware(
                Edge,
                largest_body=settings.largest_body,
                trusted_proxies=settings.trusted_proxies,
            ),
        ],
    )
    for noun in _NOUNS:
        # Taken over as they are: a router that is included is searched twice for every request.
        app.router.routes.extend(noun.router.routes)
    _serve_description(app)
    handle_failures(app)
    return app


def _serve_description(app: FastAPI) -> None:
    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    async def description() -> Response:  # pyright: ignore[reportUnusedFunction]
        return reply(openapi.describe(app))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    context: Context = app.state.context
    background: Background = app.state.background
    background.start()
    ending = asyncio.create_task(_end_open(app))
    try:
        yield
    finally:
        app.state.stopping.set()
        await ending
        await background.stop(DRAIN_SECONDS)
        context.shells.close()
        await context.engines.close()
        await context.db.close()


async def _end_open(app: FastAPI) -> None:
    """What apps have open may go on for ever: it is no reason not to stop."""
    await app.state.stopping.wait()
    front: Front = app.state.front
    front.end_open()
