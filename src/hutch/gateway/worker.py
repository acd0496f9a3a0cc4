"""One gateway process, as `hutch gateway` starts them: `python -m hutch.gateway.worker`.

Its settings come on standard input. When that ends, whoever started it is gone: it hands over to
the one that comes next, or to none.
"""

import asyncio
import gc
import json
import os
import sys

import structlog
import uvloop

from hutch.domain.nodes import Node
from hutch.engine.base import Engine
from hutch.gateway.board import Board
from hutch.gateway.server import Gateway, open_sockets
from hutch.logs import configure_logs
from hutch.services.context import Context, Engines
from hutch.services.vault import open_vault
from hutch.settings import Settings
from hutch.store import migrate
from hutch.store.db import Database

_LOOK_SECONDS = 0.5

log = structlog.get_logger("hutch.gateway")


async def _serve(settings: Settings, board: Board) -> None:
    context = Context(
        db=Database(settings.database),
        settings=settings,
        vault=open_vault(settings.data / "secret.key"),
        engines=Engines(_no_engine),
    )
    try:
        await _until_migrated(context)
        sockets = open_sockets(settings.gateway_host, settings.gateway_port)
        gateway = Gateway(context, board)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _starter_is_gone, gateway)
        _calm_collector()
        await gateway.run(sockets)
    finally:
        await context.db.close()


def _no_engine(node: Node) -> Engine:
    raise NotImplementedError(f"The gateway does not speak to the engine of {node.name}.")


async def _until_migrated(context: Context) -> None:
    """Wait until the server has brought the database up to date, as after an upgrade."""
    told = False
    while True:
        async with context.db.read() as session:
            if await migrate.at_head(session):
                return
        if not told:
            log.info("Waiting for the server to bring the database up to date")
            told = True
        await asyncio.sleep(_LOOK_SECONDS)


def _starter_is_gone(gateway: Gateway) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        gateway.hand_over()


def _calm_collector() -> None:
    """Let Python look for cycles seldom, and never among what stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def main() -> None:
    settings = Settings.model_validate_json(sys.stdin.buffer.readline())
    # The memory that it shares with the other processes: an open file, its own row, all rows.
    file, row, rows = json.loads(sys.stdin.buffer.readline())
    board = Board.of(file, row, rows)
    os.close(file)
    configure_logs(settings.log_level, settings.log_format)
    os.umask(0o077)
    uvloop.run(_serve(settings, board))


if __name__ == "__main__":
    main()
