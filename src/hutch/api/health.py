"""Whether the server lives, and whether it can do its work."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from typing_extensions import TypedDict

from hutch.api.answers import reply
from hutch.api.background import Background
from hutch.api.deps import ContextDep
from hutch.errors import HutchError, UnavailableError
from hutch.services.context import Context
from hutch.store.migrate import at_head

router = APIRouter(tags=["health"])


class Alive(TypedDict):
    status: Literal["ok"]


class Checks(TypedDict):
    """What was looked at; `ok`, or what is wrong."""

    database: str
    migrations: str
    workers: str


class Ready(TypedDict):
    status: Literal["ready"]
    checks: Checks


@router.get("/healthz", response_model=Alive, summary="Whether the server lives")
async def alive() -> Response:
    """Says nothing of the database or the engines: restarting hutch would not mend those."""
    answer: Alive = {"status": "ok"}
    return reply(answer)


@router.get("/readyz", response_model=Ready, summary="Whether the server can do its work")
async def ready(request: Request, context: ContextDep) -> Response:
    """503 and the checks in `detail` when it cannot."""
    database, migrations = await _look_at_database(context)
    background: Background = request.app.state.background
    workers = "ok" if not background.broken else f"restarting: {', '.join(background.broken)}"
    checks: Checks = {"database": database, "migrations": migrations, "workers": workers}
    if any(result != "ok" for result in (database, migrations, workers)):
        raise UnavailableError("The server is not ready.", hint="The log says more.", checks=checks)
    answer: Ready = {"status": "ready", "checks": checks}
    return reply(answer)


async def _look_at_database(context: Context) -> tuple[str, str]:
    try:
        async with context.db.read() as session:
            migrated = await at_head(session)
    except HutchError as error:
        # Nobody has signed in to see this: the code says enough.
        return error.code, "unknown"
    return "ok", "ok" if migrated else "the tables are not those of this version"
