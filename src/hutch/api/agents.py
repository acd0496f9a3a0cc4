"""The server's end of the connection that each node's agent holds."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, WebSocket
from pydantic_core import to_json
from starlette.websockets import WebSocketDisconnect, WebSocketDisconnected

from hutch.api import PREFIX
from hutch.api.agent_messages import Accelerators, Done, Hello, Readings, parse
from hutch.api.call import SCOPE_KEY
from hutch.api.deps import bearer
from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.nodes import Node
from hutch.errors import HutchError, InvalidInputError, UnavailableError
from hutch.services import accelerators, agents
from hutch.services.context import Context
from hutch.services.telemetry import Recorder
from hutch.store.revocations import Revocation

log = structlog.get_logger("hutch.agents")
router = APIRouter(prefix=PREFIX)
T = TypeVar("T")

HELLO_SECONDS = 10.0
"""How long an agent may take to say who it is."""
WRITE_SECONDS = 2.0
"""What a node tells is written down at most this often."""
STOCK_SECONDS = 60.0
"""How often what a node has is compared anew: what somebody held may have been let go since."""

POLICY, LATER, REPLACED = 1008, 1013, 4409
"""Codes of closing: something wrong was said; the server cannot; another connection counts."""


class _OverError(Exception):
    """The conversation ends, with a code for the other end; None: that has gone."""

    def __init__(self, code: int | None, error: HutchError | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.error = error


@router.websocket("/agent")
async def connect(websocket: WebSocket) -> None:
    """Refused with 401 unless the bearer token is that of a node's agent."""
    context: Context = websocket.app.state.context
    node = await agents.authenticate(context, bearer(websocket.headers.get("authorization")))
    websocket.scope[SCOPE_KEY].actor = f"agent of {node.name}"
    await websocket.accept()
    over = await _run(_Conversation(context, websocket, node))
    log.info("an agent is gone", node=node.name, code=over.code,
             reason=over.error.message if over.error else "")  # fmt: skip
    if over.code is not None:
        await _close(websocket, over)


async def _run(conversation: "_Conversation") -> _OverError:
    over: _OverError | None = None
    try:
        await conversation.run()
    except* _OverError as group:
        # Several ends of one conversation are one end.
        over = _first(group)
    assert over is not None, "a conversation ends by saying so"  # noqa: S101
    return over


def _first(group: ExceptionGroup[_OverError]) -> _OverError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _close(websocket: WebSocket, over: _OverError) -> None:
    with suppress(WebSocketDisconnect, WebSocketDisconnected, RuntimeError):
        if over.error is not None:
            told = {"type": "error", "code": over.error.code, "message": over.error.message}
            await websocket.send_text(to_json(told).decode())
        await websocket.close(over.code or POLICY)


class _Conversation:
    """One connection, from its first message on."""

    def __init__(self, context: Context, websocket: WebSocket, node: Node) -> None:
        self._context = context
        self._websocket = websocket
        self._node = node
        self._found: list[FoundAccelerator] = []
        self._is_news = False
        """Whether `_found` has not been written down yet."""
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Raises _OverError, in a group or alone."""
        connection = await self._greet()
        recorder = Recorder(self._context, self._node, connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(recorder))
                group.create_task(self._pass_orders_on(connection))
                group.create_task(self._write_down(connection, recorder))
        finally:
            # Shielded by nothing: a server that is stopped has a moment for this, a crash has not.
            with suppress(HutchError):
                await recorder.flush(last=True)

    async def _greet(self) -> str:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await self._receive()
        except TimeoutError:
            raise _OverError(POLICY, InvalidInputError("Say hello first.")) from None
        if not isinstance(hello, Hello):
            raise _OverError(POLICY, InvalidInputError("The first message is `hello`."))
        self._found = [each.parsed() for each in hello.accelerators]
        connection = await _or_over(
            accelerators.record_hello(
                self._context,
                self._node,
                self._found,
                version=hello.version,
                has_nvidia_driver=hello.nvidia_container,
            )
        )
        # One that was there before learns at once that it no longer counts.
        agents.hint(self._context, self._node.id)
        log.info("an agent signed in", node=self._node.name, version=hello.version,
                 accelerators=len(self._found))  # fmt: skip
        now = self._context.now().timestamp()
        await self._say({"type": "welcome", "node": self._node.name, "now": now})
        return connection

    async def _listen(self, recorder: Recorder) -> None:
        while True:
            match await self._receive():
                case Readings() as told:
                    recorder.add((each.parsed() for each in told.readings), told.seconds)
                    self._told.set()
                case Accelerators() as told:
                    self._found = [each.parsed() for each in told.accelerators]
                    self._is_news = True
                    recorder.outdate()
                    self._told.set()
                case Done() as told:
                    done = told.parsed()
                    await _or_over(agents.answer(self._context, self._node.id, told.id, done))
                case Hello():
                    raise _OverError(POLICY, InvalidInputError("Say hello once."))

    async def _pass_orders_on(self, connection: str) -> None:
        async for order in agents.orders(self._context, self._node.id, connection):
            await self._say(_as_json(order))
        raise _OverError(REPLACED)

    async def _write_down(self, connection: str, recorder: Recorder) -> None:
        loop = asyncio.get_running_loop()
        stock_at = loop.time() + STOCK_SECONDS
        while True:
            await self._told.wait()
            self._told.clear()
            counts = True
            try:
                if self._is_news or loop.time() >= stock_at:
                    self._is_news = False
                    stock_at = loop.time() + STOCK_SECONDS
                    counts = await accelerators.record_found(
                        self._context, self._node, connection, self._found
                    )
                counts = counts and await recorder.flush()
            except UnavailableError as error:
                # It is kept, and written with what comes next.
                self._is_news = True
                log.warning("what an agent told could not be written", node=self._node.name,
                            reason=error.message)  # fmt: skip
            if not counts:
                raise _OverError(REPLACED)
            await asyncio.sleep(WRITE_SECONDS)

    async def _receive(self) -> Hello | Accelerators | Readings | Done:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise _OverError(None)
        text = message.get("text")
        if text is None:
            raise _OverError(POLICY, InvalidInputError("Messages are text."))
        try:
            return parse(text)
        except InvalidInputError as error:
            raise _OverError(POLICY, error) from None

    async def _say(self, message: dict[str, Any]) -> None:
        try:
            await self._websocket.send_text(to_json(message).decode())
        except (WebSocketDisconnect, WebSocketDisconnected):
            raise _OverError(None) from None


def _as_json(order: Revocation) -> dict[str, Any]:
    return {
        "type": "do",
        "id": order.id,
        "verb": order.verb,
        "container": order.container,
        "devices": [asdict(each) for each in order.devices],
        "until": order.created_at.timestamp() + agents.ORDER_SECONDS,
    }


async def _or_over(work: Awaitable[T]) -> T:
    """What cannot be written down ends the conversation: the agent begins anew."""
    try:
        return await work
    except HutchError as error:
        raise _OverError(LATER, error) from error
