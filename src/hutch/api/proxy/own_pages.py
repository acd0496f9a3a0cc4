"""hutch's own pages about apps: sign in, sign out, the list, whom one trusts, and the way from
hutch's address to the host of an app."""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response
from starlette.types import Receive

from hutch.api.proxy import pages
from hutch.api.proxy.asked import Asked, field_of, form_of
from hutch.api.proxy.headers import cookies
from hutch.api.proxy.sessions import Kind, Sessions
from hutch.domain.apps import ON_HOST, OWN, PATH, in_host, is_local_path
from hutch.domain.people import Actor, Scope
from hutch.errors import (
    BadLoginError,
    ForbiddenError,
    HutchError,
    NotAuthenticatedError,
    NotFoundError,
    TooManyRequestsError,
)
from hutch.services import apps, tokens
from hutch.services.context import Context

SIGN_IN = "/login"


class OwnPages:
    def __init__(self, context: Context, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions
        self._domain = context.settings.apps_domain

    async def answer(self, asked: Asked, receive: Receive, *, on_host: bool) -> Response | None:
        """One of these pages; None when an app is asked for."""
        path = asked.raw_path
        if on_host:
            return self._enter_host(asked) if path.startswith(ON_HOST) else None
        match (asked.method, path):
            case ("GET" | "HEAD", "/login"):
                return await self._show_sign_in(asked)
            case ("POST", "/login"):
                return await self._sign_in(asked, receive)
            case ("GET" | "HEAD", "/apps" | "/apps/"):
                return await self._list(asked)
            case ("GET" | "HEAD", "/apps/-/enter"):
                return await self._enter(asked)
            case ("POST", "/apps/-/trust"):
                return await self._trust(asked, receive)
            case ("POST", "/apps/-/logout"):
                return await self._sign_out(asked, receive)
            case _ if path.startswith(OWN) or path == SIGN_IN:
                raise NotFoundError("page", "here", hint="Open /apps/ instead.")
            case _:
                return None

    def lead_to_sign_in(self, asked: Asked, *, on_host: bool) -> Response:
        if not asked.is_navigation:
            raise NotAuthenticatedError(
                "This needs a sign-in.", hint="Sign in with a browser, or send a token of yours."
            )
        if not on_host:
            return _sent_on(f"{SIGN_IN}?{urlencode({'next': asked.whole_path})}")
        state = secrets.token_urlsafe(16)
        query = urlencode({"host": asked.host_name, "state": state, "path": asked.whole_path})
        reply = _sent_on(f"{self._context.settings.public_url}{OWN}enter?{query}")
        reply.headers["set-cookie"] = self._sessions.cookie(
            Kind.ENTER, state, asked, timedelta(minutes=10)
        )
        return reply

    def _enter_host(self, asked: Asked) -> Response:
        """At the host of an app, on the way back from hutch's address: the cookie is given."""
        if asked.raw_path != f"{ON_HOST}enter":
            raise NotFoundError("page", "here")
        until = self._context.now() + timedelta(days=self._context.settings.login_days)
        value = None
        for state in cookies(asked.headers, self._sessions.name_of(Kind.ENTER, asked)):
            value = value or self._sessions.host_ticket(
                asked.parameter("ticket"), asked.host_name, state, until
            )
        path = asked.parameter("path")
        if value is None or not _is_plain(path):
            # It is old, or another browser's: the next try begins anew.
            return _sent_on("/")
        reply = _sent_on(path)
        lasts = timedelta(days=self._context.settings.login_days)
        for kind, content, time_ in (
            (Kind.HOST, value, lasts), (Kind.ENTER, "", timedelta(0)),
        ):  # fmt: skip
            reply.headers.append("set-cookie", self._sessions.cookie(kind, content, asked, time_))
        return reply

    async def _show_sign_in(self, asked: Asked) -> Response:
        onward = asked.parameter("next")
        onward = onward if is_local_path(onward) else PATH
        return self._sign_in_page(asked, onward)

    def _sign_in_page(
        self, asked: Asked, onward: str, *, name: str = "", error: HutchError | None = None
    ) -> Response:
        holder = secrets.token_urlsafe(16)
        token = self._sessions.form_token(holder, "sign in")
        reply = pages.sign_in(token, onward, self._forms_to(), name=name, error=error)
        reply.headers["set-cookie"] = self._sessions.cookie(Kind.SIGN_IN, holder, asked, None)
        if isinstance(error, TooManyRequestsError):
            reply.headers["retry-after"] = str(error.retry_after)
        return reply

    def _forms_to(self) -> str:
        """A sign-in may lead on to the host of an app, which a browser has to know beforehand."""
        if not self._domain:
            return "'self'"
        scheme, _, rest = self._context.settings.public_url.partition("://")
        _, colon, port = rest.rpartition(":")
        return f"'self' {scheme}://*.{self._domain}{colon + port if port.isdecimal() else ''}"

    async def _sign_in(self, asked: Asked, receive: Receive) -> Response:
        form = await form_of(asked, receive)
        asked.check_origin()
        onward = field_of(form, "next")
        onward = onward if is_local_path(onward) else PATH
        holders = cookies(asked.headers, self._sessions.name_of(Kind.SIGN_IN, asked))
        token = field_of(form, "form")
        if not any(self._sessions.is_form(token, each, "sign in") for each in holders):
            error = ForbiddenError("The form was too old. Sign in once more.")
            return self._sign_in_page(asked, onward, name=field_of(form, "name")[:64], error=error)
        name = field_of(form, "name")
        try:
            clear, _, user = await tokens.login(
                self._context, name, field_of(form, "password"), address=asked.call.address,
                request_id=asked.call.request_id, scope=Scope.BROWSER,
            )  # fmt: skip
        except (BadLoginError, TooManyRequestsError) as error:
            return self._sign_in_page(asked, onward, name=name[:64], error=error)
        asked.call.actor = user.name
        reply = _sent_on(onward, 303)
        lasts = timedelta(days=self._context.settings.login_days)
        reply.headers["set-cookie"] = self._sessions.cookie(Kind.SESSION, clear, asked, lasts)
        return reply

    async def _list(self, asked: Asked) -> Response:
        actor = await self._sessions.known(asked)
        if actor is None:
            return _sent_on(f"{SIGN_IN}?{urlencode({'next': PATH})}")
        asked.call.actor = actor.name
        links = [
            pages.Link(
                instance.owner_name,
                instance.name,
                port.name,
                port.target_port,
                apps.url_of(self._context.settings, actor, instance, port),
            )
            for instance, port in await apps.list_all(self._context, actor)
        ]
        token = self._sessions.form_token(actor.token_id or "", "sign out")
        return pages.listing(actor.name, links, token)

    async def _enter(self, asked: Asked) -> Response:
        """At hutch's address, on the way to the host of an app."""
        actor = await self._sessions.known(asked)
        if actor is None:
            return _sent_on(f"{SIGN_IN}?{urlencode({'next': asked.whole_path})}")
        asked.call.actor = actor.name
        host, state, path = (asked.parameter(each) for each in ("host", "state", "path"))
        name = in_host(host, self._domain)
        if name is None or not state or not _is_plain(path):
            raise NotFoundError("app", host)
        opening = await apps.open_app(self._context, actor, name)
        # Who may open it at another host is sent there from this one, where they are let in first.
        ticket = self._sessions.enter_ticket(actor.token_id or "", host.lower(), state)
        base = apps.url_of(self._context.settings, actor, opening.instance, opening.port)
        scheme, _, rest = base.partition("://")
        port = rest.partition("/")[0].partition(":")[2]
        query = urlencode({"ticket": ticket, "path": path})
        return _sent_on(f"{scheme}://{host}{':' + port if port else ''}{ON_HOST}enter?{query}")

    async def _trust(self, asked: Asked, receive: Receive) -> Response:
        actor, form = await self._own_form(asked, receive)
        owner, onward = field_of(form, "owner"), field_of(form, "next")
        holder = actor.token_id or ""
        if not self._sessions.is_form(field_of(form, "form"), holder, f"trust {owner}"):
            raise ForbiddenError("The form was too old.", hint="Open the app once more.")
        await apps.trust(self._context, actor, owner)
        return _sent_on(onward if is_local_path(onward) else PATH, 303)

    async def _sign_out(self, asked: Asked, receive: Receive) -> Response:
        actor, form = await self._own_form(asked, receive)
        if not self._sessions.is_form(field_of(form, "form"), actor.token_id or "", "sign out"):
            raise ForbiddenError("The form was too old.", hint="Open /apps/ once more.")
        await tokens.end_browser(self._context, actor)
        reply = _sent_on(SIGN_IN, 303)
        reply.headers["set-cookie"] = self._sessions.cookie(Kind.SESSION, "", asked, timedelta(0))
        return reply

    async def _own_form(
        self, asked: Asked, receive: Receive
    ) -> tuple[Actor, Mapping[str, list[str]]]:
        asked.check_origin()
        actor = await self._sessions.known(asked)
        if actor is None:
            raise NotAuthenticatedError("This needs a sign-in.", hint="Open /login.")
        asked.call.actor = actor.name
        return actor, await form_of(asked, receive)


def _is_plain(path: str) -> bool:
    """Whether somebody may be sent on to a path of the same host."""
    return path.startswith("/") and path.isprintable() and path[1:2] not in {"/", "\\"}


def _sent_on(url: str, status: int = 302) -> Response:
    # Percent-encodes nothing that is so already.
    return RedirectResponse(url, status, {"cache-control": "no-store"})
