"""A WebSocket to a shell in an instance, and the tickets with which a page opens one.

docs/reference/terminal.md has the protocol.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, cast

import structlog
from fastapi import APIRouter, Response, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketDisconnected, WebSocketState
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.call import SCOPE_KEY, Call
from hutch.api.deps import ContextDep, allowed, bearer
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import (
    BadTokenError,
    EngineUnavailableError,
    ForbiddenError,
    HutchError,
    InvalidInputError,
    NotFoundError,
)
from hutch.services import terminals, tokens
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.shells import Session

log = structlog.get_logger("hutch.terminals")
router = APIRouter(prefix=f"{PREFIX}/instances/{{instance}}/terminal", tags=["terminal"])

ENDED, WRONG, BROKEN, RESTARTING = 1000, 1008, 1011, 1012
NO_LONGER, IDLE, ELSEWHERE = 4403, 4408, 4409
"""Codes of closing, beside the usual ones."""
_MOST_CELLS = 1000
_WINDOW = (16 * 1024, 16 * 1024 * 1024)


class Ticket(TypedDict):
    """Opens one terminal of this instance in place of the token, shown this once."""

    ticket: str
    expires_at: datetime


@router.post("/ticket", response_model=Ticket, status_code=201, summary="Ask for a ticket")
async def create_ticket(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.INSTANCE_EXEC)], instance: str
) -> Response:
    """For the WebSocket of a page, which cannot send the header: `?ticket=`, once, within 30 s."""
    text, until = await terminals.give_ticket(context, actor, instance)
    answer: Ticket = {"ticket": text, "expires_at": until}
    return reply(answer, 201)


@router.websocket("")
async def connect(websocket: WebSocket, instance: str) -> None:
    """Refused with the API's own errors before it is accepted."""
    context: Context = websocket.app.state.context
    actor, ticket = await _who(context, websocket)
    asked = _Asked(websocket.query_params)
    over: tuple[int, HutchError | None]
    try:
        async with terminals.opened(
            context, actor, instance, asked.session,
            columns=asked.columns, rows=asked.rows, ticket=ticket,
        ) as (session, is_new):  # fmt: skip
            await websocket.accept()
            over = await _Conversation(context, websocket, session, asked, is_new).run()
    except HutchError as error:
        if websocket.application_state is WebSocketState.CONNECTING:
            raise
        over = _code(error), error
    await _close(websocket, *over)


async def _who(context: Context, websocket: WebSocket) -> tuple[Actor, terminals.Ticket | None]:
    """Who asks, by the header or by a ticket."""
    call: Call = websocket.scope[SCOPE_KEY]
    header = websocket.headers.get("authorization")
    given = websocket.query_params.getlist("ticket")
    ticket: terminals.Ticket | None = None
    if not given:
        # Whichever page it is: none can send this header.
        actor = await tokens.authenticate(
            context, bearer(header), address=call.address, request_id=call.request_id
        )
    elif header is not None or len(given) > 1:
        raise InvalidInputError(
            "There is more than one proof of who asks.", hint="Send a token or a ticket."
        )
    else:
        _check_origin(websocket, context.settings.public_url)
        actor, ticket = await terminals.present(
            context, given[0], address=call.address, request_id=call.request_id
        )
    call.actor = actor.name
    require(actor, Action.INSTANCE_EXEC)
    return actor, ticket


def _check_origin(websocket: WebSocket, public_url: str) -> None:
    """Raise ForbiddenError for a page that is not at hutch's own address.

    Every browser says whose page opens a WebSocket; a program that has a ticket need not.
    """
    own = {websocket.headers.get("host", ""), public_url.partition("://")[2]} - {""}
    for origin in websocket.headers.getlist("origin"):
        scheme, _, host = origin.partition("://")
        if scheme not in {"http", "https"} or host.lower() not in {each.lower() for each in own}:
            raise ForbiddenError(
                "The page that asks for this is not at hutch's own address.",
                hint="Serve the page from there.",
            )


def _code(error: HutchError) -> int:
    if isinstance(error, BadTokenError | ForbiddenError | NotFoundError):
        return NO_LONGER
    return BROKEN if isinstance(error, EngineUnavailableError) else ENDED


async def _close(websocket: WebSocket, code: int, error: HutchError | None) -> None:
    with suppress(WebSocketDisconnect, WebSocketDisconnected, RuntimeError):
        if error is not None:
            told = {"type": "error", "code": error.code, "message": error.message}
            await websocket.send_text(json.dumps(told))
        await websocket.close(code)


class _Asked:
    """What the address asks for. Raises InvalidInputError."""

    def __init__(self, query: Mapping[str, str]) -> None:
        unknown = query.keys() - {"session", "columns", "rows", "window", "ticket"}
        if unknown:
            raise InvalidInputError(
                f"There is no parameter {min(unknown)[:40]!r} here.",
                hint="There are columns, rows, session, ticket, window.",
            )
        self.session = query.get("session")
        self.columns = _number(query, "columns", 80, 1, _MOST_CELLS)
        self.rows = _number(query, "rows", 24, 1, _MOST_CELLS)
        self.window = _number(query, "window", 0, *_WINDOW) if "window" in query else None


def _number(query: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    given = query.get(name, default)
    try:
        value = int(given)
    except (TypeError, ValueError, OverflowError):
        value = least - 1
    if isinstance(given, bool) or not least <= value <= most:
        raise InvalidInputError(f"{name} is {least} to {most}.", field=name)
    return value


class _Conversation:
    """One connection, while a shell is seen at it."""

    def __init__(
        self,
        context: Context,
        websocket: WebSocket,
        session: Session,
        asked: _Asked,
        is_new: bool,
    ) -> None:
        self._context = context
        self._websocket = websocket
        self._session = session
        self._asked = asked
        self._is_new = is_new
        self._sent = 0
        self._acknowledged = 0
        self._may_send = asyncio.Event()
        self._may_send.set()

    async def run(self) -> tuple[int, HutchError | None]:
        """How it ended: a code for the other end, and what is told beside it."""
        session, stopping = self._session, self._websocket.app.state.stopping
        await self._say({"type": "open", "session": session.id, "new": self._is_new})
        keep = self._context.settings.terminal_keep_minutes * 60
        async with session.watched(self._send, keep) as viewer:
            listening = asyncio.create_task(self._listen())
            ends: dict[asyncio.Task[Any], int] = {
                asyncio.create_task(viewer.left.wait()): ELSEWHERE,
                asyncio.create_task(stopping.wait()): RESTARTING,
                asyncio.create_task(session.ended.wait()): ENDED,
            }
            try:
                done, _ = await asyncio.wait(
                    (listening, *ends), return_when=asyncio.FIRST_COMPLETED
                )
                if listening in done:
                    if listening.result() == IDLE:
                        session.end()
                    return listening.result(), None
                code = next(ends[each] for each in ends if each in done)
                if code == ENDED and session.failure is None:
                    await self._say({"type": "exit"})
                return code, session.failure if code == ENDED else None
            finally:
                for each in (listening, *ends):
                    each.cancel()
                await asyncio.gather(listening, *ends, return_exceptions=True)

    async def _send(self, piece: bytes) -> None:
        """Send a piece once the other end has room for it."""
        if self._asked.window is not None:
            while self._sent - self._acknowledged >= self._asked.window:
                self._may_send.clear()
                await self._may_send.wait()
        self._sent += len(piece)
        await self._websocket.send_bytes(piece)

    async def _listen(self) -> int:
        idle = self._context.settings.terminal_idle_minutes * 60
        while True:
            try:
                async with asyncio.timeout(idle or None):
                    message = await self._websocket.receive()
            except TimeoutError:
                return IDLE
            if message["type"] == "websocket.disconnect":
                return ENDED
            try:
                await self._take(message)
            except InvalidInputError as error:
                log.info("a terminal was told what makes no sense", reason=error.message)
                return WRONG

    async def _take(self, message: Mapping[str, Any]) -> None:
        content, text = message.get("bytes"), message.get("text")
        if content is not None:
            await self._session.write(content)
            return
        told = _parsed(text or "")
        match told.get("type"):
            case "resize":
                columns = _number(told, "columns", 0, 1, _MOST_CELLS)
                await self._session.resize(columns, _number(told, "rows", 0, 1, _MOST_CELLS))
            case "ack":
                # Bytes in all that the other end has dealt with.
                self._acknowledged = _number(told, "bytes", -1, 0, self._sent)
                self._may_send.set()
            case _:
                raise InvalidInputError("There is no such message.")

    async def _say(self, told: Mapping[str, object]) -> None:
        await self._websocket.send_text(json.dumps(told))


def _parsed(text: str) -> dict[str, Any]:
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInputError("A text message is JSON.") from None
    if not isinstance(told, dict):
        raise InvalidInputError("A text message is a JSON object.")
    return cast("dict[str, Any]", told)
