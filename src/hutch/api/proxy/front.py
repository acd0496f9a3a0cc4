"""The way into apps: who asks, for what, whether they may, and then the relay or the tunnel.

Stands before the API, whose limits and headers are not an app's. See docs/explanation/apps.md.
"""

import asyncio
import time
from dataclasses import dataclass

import structlog
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hutch.api.call import SCOPE_KEY, trusted_networks
from hutch.api.failures import failure
from hutch.api.proxy import pages
from hutch.api.proxy.asked import Asked, asked_of
from hutch.api.proxy.headers import BadHeaderError, Headers, Way, to_app
from hutch.api.proxy.inside import Inside
from hutch.api.proxy.own_pages import SIGN_IN, OwnPages
from hutch.api.proxy.relay import CutOffError, Passing, Relay, Watch
from hutch.api.proxy.sessions import Credential, Kind, Sessions
from hutch.api.proxy.tunnel import Tunnel
from hutch.api.proxy.upstream import Place, Pool
from hutch.domain.apps import (
    PATH,
    AppName,
    host_of,
    in_host,
    in_path,
    is_below,
)
from hutch.errors import (
    BadTokenError,
    HutchError,
    InternalError,
    InvalidInputError,
    NotAuthenticatedError,
    NotFoundError,
    TooManyRequestsError,
    UntrustedAppError,
)
from hutch.services import apps
from hutch.services.apps import Opening
from hutch.services.context import Context

log = structlog.get_logger("hutch.apps")

FRESH_SECONDS = 2.0
"""For how long it is believed that somebody may open an app, without looking again."""
_MOST_GRANTS = 4096


class NotAskedRightError(InvalidInputError):
    status = 400


@dataclass(frozen=True, slots=True)
class Grant:
    """An opening, and by what somebody came to it."""

    opening: Opening
    credential: Credential


class Front:
    """One server's way into apps."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._domain = context.settings.apps_domain
        self._trusted = trusted_networks(context.settings.trusted_proxies)
        self._sessions = Sessions(context)
        self._pages = OwnPages(context, self._sessions)
        self._pool = Pool()
        self._grants: dict[tuple[str, Credential, AppName, bool], tuple[float, Opening]] = {}
        self._open: set[Relay | Tunnel] = set()

    def end_open(self) -> None:
        """Break off what may go on for ever: the server stops."""
        for each in list(self._open):
            if isinstance(each, Tunnel) or each.is_endless:
                each.end()
        self._pool.close()

    def is_meant(self, path: str, host: str) -> bool:
        """Whether a request is for an app, or for hutch's pages about them."""
        return (
            path.startswith(PATH)
            or path in {PATH.rstrip("/"), SIGN_IN}
            or is_below(host_of(host), self._domain)
        )

    # -- over HTTP -------------------------------------------------------------------------------

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        asked = asked_of(scope, self._trusted)
        status = 0
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            reply = await self._answer(asked, receive, send_noting)
            if isinstance(reply, Response):
                status = reply.status_code
                await self._send(reply, asked, scope, receive, send)
            else:
                status = reply
        except CutOffError:
            status = 499
        except HutchError as error:
            reply = self._refuse(error, asked, scope)
            status = reply.status_code
            await self._send(reply, asked, scope, receive, send)
        except Exception:
            log.exception("An app's request met an unexpected error", method=asked.method)
            status = 500
            if not begun:
                error = InternalError("Something went wrong inside hutch.")
                await self._send(self._refuse(error, asked, scope), asked, scope, receive, send)
        finally:
            self._log(asked, status, time.perf_counter() - began)

    async def _send(
        self, reply: Response, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        reply.headers["x-request-id"] = asked.call.request_id
        await reply(scope, receive, send)

    def _refuse(self, error: HutchError, asked: Asked, scope: Scope) -> Response:
        if asked.is_navigation:
            reply = pages.refusal(error, asked.call.request_id)
        else:
            scope[SCOPE_KEY] = asked.call
            reply = failure(error, scope)
        if isinstance(error, TooManyRequestsError):
            reply.headers["retry-after"] = str(error.retry_after)
        return reply

    def _log(self, asked: Asked, status: int, seconds: float) -> None:
        # Neither the path nor the host: they hold what is the app's.
        write = log.warning if status >= 500 else log.info
        write("app request", method=asked.method, status=status, actor=asked.call.actor,
              duration_ms=round(seconds * 1000, 2), address=asked.call.address,
              request_id=asked.call.request_id)  # fmt: skip

    async def _answer(self, asked: Asked, receive: Receive, send: Send) -> Response | int:
        _check(asked)
        on_host = is_below(asked.host_name, self._domain)
        own = await self._pages.answer(asked, receive, on_host=on_host)
        own = own or await self._ask_trust(asked, on_host=on_host)
        if own is not None:
            return own
        found = await self._find(asked)
        if isinstance(found, Response):
            return found
        return await self._relay(asked, found, receive, send)

    async def _find(self, asked: Asked) -> Grant | Response:
        """The app that is asked for; or an answer that leads to where it can be had."""
        on_host = is_below(asked.host_name, self._domain)
        name = in_host(asked.host_name, self._domain) if on_host else in_path(asked.raw_path)
        if name is None:
            raise NotFoundError("app", "here", hint="`hutch app list` shows what there is.")
        grant = await self._grant(asked, name, on_host=on_host)
        if grant is None:
            return self._pages.lead_to_sign_in(asked, on_host=on_host)
        moved = self._moved(asked, name, grant.opening, on_host=on_host)
        return moved or grant

    def _moved(
        self, asked: Asked, name: AppName, opening: Opening, *, on_host: bool
    ) -> Response | None:
        """Where the app is instead, if it is not to be had under this address."""
        if on_host:
            if opening.is_own or name.ref == opening.instance.id:
                return None
            target = self._url(opening).rstrip("/") + asked.whole_path
        elif self._domain:
            rest = asked.whole_path
            if not opening.port.keeps_path:
                rest = rest.removeprefix(name.prefix) or "/"
            target = self._url(opening).rstrip("/") + ("" if rest.startswith("/") else "/") + rest
        elif asked.raw_path == name.prefix:
            # What is relative there would otherwise lead out of the app.
            target = f"{name.prefix}/{asked.whole_path.removeprefix(name.prefix)}"
        else:
            return None
        return RedirectResponse(target, 307)

    def _url(self, opening: Opening) -> str:
        return apps.url_of(self._context.settings, opening.actor, opening.instance, opening.port)

    # -- whether they may -------------------------------------------------------------------------

    async def _grant(self, asked: Asked, name: AppName, *, on_host: bool) -> Grant | None:
        """None when nobody is signed in. Raises what `services.apps.open_app` raises."""
        kind = Kind.HOST if on_host else Kind.SESSION
        for credential in self._sessions.shown(asked, kind):
            if credential.is_cookie:
                asked.check_origin()
            try:
                opening = await self._opening(asked, name, credential, on_host=on_host)
            except BadTokenError:
                if not credential.is_cookie:
                    raise
                continue
            asked.call.actor = opening.actor.name
            return Grant(opening, credential)
        return None

    async def _opening(
        self, asked: Asked, name: AppName, credential: Credential, *, on_host: bool
    ) -> Opening:
        # A browser keeps apps apart at hosts of their own, and programs run nothing of theirs.
        only_trusted = credential.kind is Kind.SESSION and not self._domain
        key = (asked.host_name if on_host else "", credential, name, only_trusted)
        now = time.monotonic()
        known = self._grants.get(key)
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[1]
        actor = await self._sessions.actor(asked, credential)
        opening = await apps.open_app(self._context, actor, name, only_trusted=only_trusted)
        if len(self._grants) >= _MOST_GRANTS:
            self._grants.clear()
        self._grants[key] = (now, opening)
        return opening

    async def _still(self, asked: Asked, grant: Grant) -> None:
        """Raise when somebody may no longer have open what they have."""
        actor = await self._sessions.actor(asked, grant.credential)
        opening = grant.opening
        if actor.user_id != opening.actor.user_id:
            raise BadTokenError
        await apps.still_open(self._context, opening)

    # -- passing on -------------------------------------------------------------------------------

    def _way(self, asked: Asked, grant: Grant) -> Way:
        opening = grant.opening
        name = None if is_below(asked.host_name, self._domain) else in_path(asked.raw_path)
        ports = {opening.port.target_port, opening.host_port}
        inside = [f"{opening.host}:{opening.host_port}"]
        inside += [f"{host}:{port}" for host in ("127.0.0.1", "localhost", "0.0.0.0")  # noqa: S104
                   for port in ports]  # fmt: skip
        return Way(
            host=asked.host,
            scheme="https" if self._sessions.is_secure(asked) else asked.scheme,
            address=asked.call.address,
            user=opening.actor.name,
            prefix=name.prefix if name else "",
            keeps_path=opening.port.keeps_path,
            inside=tuple(inside),
        )

    def _target(self, asked: Asked, way: Way) -> bytes:
        path = asked.raw_path
        if way.prefix and not way.keeps_path:
            path = path.removeprefix(way.prefix)
        return (f"{path}?{asked.query}" if asked.query else path).encode("latin-1")

    async def _relay(self, asked: Asked, grant: Grant, receive: Receive, send: Send) -> int:
        opening, way = grant.opening, self._way(asked, grant)
        length = asked.header(b"content-length")
        passing = Passing(
            method=asked.method,
            target=self._target(asked, way),
            headers=_passed_on(asked, way),
            length=None if length is None else length.encode("latin-1"),
            chunked=asked.header(b"transfer-encoding") is not None,
            way=way,
        )
        place = _place(opening)
        relay = Relay(self._pool, passing, place, self._context.settings.apps_answer_seconds)
        with self._context.apps.take(opening.actor.user_id):
            watch = Watch(lambda: self._still(asked, grant), relay.end)
            self._open.add(relay)
            try:
                await relay.run(receive, send)
            finally:
                self._open.discard(relay)
                watch.stop()
        return relay.status

    # -- WebSockets -------------------------------------------------------------------------------

    async def tunnel(self, scope: Scope, transport: asyncio.Transport) -> None:
        """Lead a connection that is to become a WebSocket to an app, as it is."""
        began = time.perf_counter()
        asked = asked_of(scope, self._trusted)
        tunnel = Tunnel(transport)
        try:
            tunnel.status = await self._tunnel(asked, tunnel)
        except HutchError as error:
            tunnel.refuse(error.status)
        except Exception:
            log.exception("An app's WebSocket met an unexpected error")
            tunnel.refuse(500)
        finally:
            tunnel.end()
            self._log(asked, tunnel.status, time.perf_counter() - began)

    async def _tunnel(self, asked: Asked, tunnel: Tunnel) -> int:
        _check(asked)
        if asked.method != "GET":
            raise NotAskedRightError("A WebSocket is asked for with GET.")
        found = await self._find(asked)
        if isinstance(found, Response):
            # A WebSocket is sent nowhere else: who is not signed in is refused.
            raise NotAuthenticatedError("This needs a sign-in.", hint="Open the app's page.")
        opening, way = found.opening, self._way(asked, found)
        headers = _passed_on(asked, way, upgrade=b"websocket")
        with self._context.apps.take(opening.actor.user_id):
            watch = Watch(lambda: self._still(asked, found), tunnel.end)
            self._open.add(tunnel)
            try:
                return await tunnel.run(_place(opening), self._target(asked, way), headers, way)
            finally:
                self._open.discard(tunnel)
                watch.stop()

    async def _ask_trust(self, asked: Asked, *, on_host: bool) -> Response | None:
        """Before the first app of somebody else at this address, where a person sees it."""
        name = in_path(asked.raw_path)
        if name is None or on_host or self._domain or not asked.is_navigation:
            return None
        try:
            await self._grant(asked, name, on_host=False)
        except UntrustedAppError as error:
            actor = await self._sessions.known(asked)
            if actor is None:
                return None
            owner: str = error.detail["owner"]
            token = self._sessions.form_token(actor.token_id or "", f"trust {owner}")
            return pages.ask_trust(owner, asked.whole_path, token)
        return None


def _place(opening: Opening) -> Place:
    if opening.engine is None:
        return opening.host, opening.host_port
    return Inside(opening.engine, opening.container, opening.port.target_port)


def _passed_on(asked: Asked, way: Way, *, upgrade: bytes = b"") -> Headers:
    try:
        return to_app(asked.headers, way, upgrade=upgrade)
    except BadHeaderError:
        raise NotAskedRightError("A header is not valid.", hint="Leave it out.") from None


def _check(asked: Asked) -> None:
    """Raise for what could be read in two ways."""
    hosts = [value for name, value in asked.headers if name == b"host"]
    if len(hosts) != 1 or not asked.host_name:
        raise NotAskedRightError("A request names one host.", hint="Send one Host header.")
    encodings = [value.lower() for name, value in asked.headers if name == b"transfer-encoding"]
    if encodings not in ([], [b"chunked"]):
        raise NotAskedRightError("A body comes in chunks, or has a length.", hint="Use no other.")
    if "\0" in asked.raw_path or "%00" in asked.raw_path:
        raise NotAskedRightError("The address contains a NUL character.", hint="Leave it out.")


class Apps:
    """The application's middleware: what is meant for apps never reaches the API, nor its edge."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        front: Front | None = getattr(scope["app"].state, "front", None)
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if front is None or not front.is_meant(scope["path"], host.decode("latin-1")):
            await self._app(scope, receive, send)
            return
        await front.answer(scope, receive, send)
