"""The edge: what happens to every request before and after the application sees it.

Plain ASGI, as each layer of Starlette's middleware class costs a task and a queue per request.
"""

import re
import time
from collections.abc import Iterable

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hutch.api import PREFIX
from hutch.api.call import SCOPE_KEY, Call, client_address, request_id, trusted_networks
from hutch.api.failures import failure, internal_failure
from hutch.errors import ConfigurationError, HutchError, InvalidInputError, TooLargeError

log = structlog.get_logger("hutch.api")

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Nothing here is a page, nothing is for a cache, and nothing is to be guessed at."""

_UPLOADS = re.compile(re.escape(PREFIX) + "/instances/[^/]+/files/content")

_QUIET = frozenset({"/healthz", "/readyz"})
"""Asked every few seconds by whoever watches: logged only when they fail."""


class Edge:
    """Request ids, client addresses, security headers, the body's limit and one log line each.

    Whatever the application raises ends here as an answer in the one shape of failures. The line
    of a WebSocket is written at its end; its messages have the server's limit.
    """

    def __init__(self, app: ASGIApp, *, largest_body: int, trusted_proxies: Iterable[str]) -> None:
        self._app = app
        self._largest = largest_body
        try:
            self._trusted = trusted_networks(trusted_proxies)
        except ValueError as error:
            raise ConfigurationError(
                f"trusted_proxies: {error}.", hint="Give addresses, or networks such as 10.0.0.0/8."
            ) from None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = _wanted_headers(scope)
        peer = scope.get("client")
        call = Call(
            request_id(headers.get(b"x-request-id")),
            client_address(peer[0] if peer else "", headers.get(b"x-forwarded-for"), self._trusted),
        )
        scope[SCOPE_KEY] = call
        await self._answer(scope, call, headers.get(b"content-length"), receive, send)

    async def _answer(
        self, scope: Scope, call: Call, length: str | None, receive: Receive, send: Send
    ) -> None:
        began = time.perf_counter()
        status = 0
        own = (*_HEADERS, (b"x-request-id", call.request_id.encode("ascii")))

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                    message["headers"] = [*message.get("headers", ()), *own]
                case "websocket.accept":
                    status = 101
                    message["headers"] = [*message.get("headers", ()), own[-1]]
                case "websocket.close" if status == 0:
                    # Before it was accepted: the other end sees this.
                    status = 403
                case _:
                    pass
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=call.request_id):
            try:
                refusal = self._refusal(scope, length)
                if refusal is None:
                    taken = receive if _is_upload(scope) else _limited(receive, self._largest)
                    await self._app(scope, taken, send_with_headers)
                else:
                    await failure(refusal, scope)(scope, receive, send_with_headers)
            except Exception:
                log.exception("A request met an unexpected error", method=_method(scope))
                if status == 0:
                    await internal_failure(scope)(scope, receive, send_with_headers)
            _log(scope, call, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope, length: str | None) -> HutchError | None:
        """Why a request is answered without being looked at, if it is."""
        is_long = length is not None and length.isdecimal() and int(length[:20]) > self._largest
        if is_long and not _is_upload(scope):
            return TooLargeError(
                f"The request's body is larger than {self._largest} bytes.",
                hint="Send less at once.",
                largest=self._largest,
            )
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            # PostgreSQL cannot even be asked for it.
            return InvalidInputError("The address contains a NUL character.", hint="Leave it out.")
        return None


def _is_upload(scope: Scope) -> bool:
    """Whether the body is a file's content, of any length: it is passed on as it comes."""
    return (
        scope["type"] == "http"
        and scope["method"] == "PUT"
        and _UPLOADS.fullmatch(scope["path"]) is not None
    )


def _method(scope: Scope) -> str:
    return scope["method"] if scope["type"] == "http" else "WEBSOCKET"


def _wanted_headers(scope: Scope) -> dict[bytes, str]:
    wanted = {b"x-request-id", b"x-forwarded-for", b"content-length"}
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in wanted:
            text = value.decode("latin-1")
            # Several lines of X-Forwarded-For are one list (RFC 9110 section 5.3).
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _limited(receive: Receive, largest: int) -> Receive:
    """`receive` that stops as soon as more than `largest` bytes have come, announced or not."""
    so_far = 0

    async def receive_some() -> Message:
        nonlocal so_far
        message = await receive()
        if message["type"] == "http.request":
            so_far += len(message.get("body", b""))
            if so_far > largest:
                # The one kind of exception that FastAPI lets through while it reads a body.
                raise HTTPException(413)
        return message

    return receive_some


def _log(scope: Scope, call: Call, status: int, seconds: float) -> None:
    path = scope["path"]
    if path in _QUIET and status == 200:
        return
    route = scope.get("route")
    write = log.warning if status >= 500 else log.info
    write(
        "request",
        method=_method(scope),
        # The template: it names the use, and cannot hold what somebody put into an address.
        route=getattr(route, "path", None),
        status=status,
        duration_ms=round(seconds * 1000, 2),
        actor=call.actor,
        address=call.address,
    )
