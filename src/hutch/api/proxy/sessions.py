"""Who a browser is: the cookie of hutch's own address, and that of each app's host.

At hutch's address the cookie is a token of the scope `browser`, which the API does not take, and
it is sent below /apps alone. At the host of an app it is a ticket for that host, good as long as
that token is.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from http.cookies import SimpleCookie

from hutch.api.proxy.asked import Asked
from hutch.api.proxy.headers import cookies
from hutch.domain.people import Actor
from hutch.errors import BadTokenError
from hutch.services import tokens
from hutch.services.context import Context
from hutch.services.tickets import Tickets
from hutch.services.vault import TOKEN_PREFIX

FORM_LASTS = timedelta(hours=2)
ENTER_LASTS = timedelta(minutes=1)


class Kind(StrEnum):
    SESSION = "hutch_session"
    """At hutch's own address."""
    HOST = "hutch_app"
    """At the host of an app."""
    SIGN_IN = "hutch_sign_in"
    """Shows that a sign-in form was asked for by the browser that sends it."""
    ENTER = "hutch_enter"
    """The same of a browser that is sent to sign in from the host of an app."""
    BEARER = "bearer"
    """No cookie: a program sends a token of its own."""


_PATHS = {Kind.SESSION: "/apps", Kind.HOST: "/", Kind.SIGN_IN: "/login", Kind.ENTER: "/"}


@dataclass(frozen=True, slots=True)
class Credential:
    kind: Kind
    value: str

    @property
    def is_cookie(self) -> bool:
        return self.kind is not Kind.BEARER


class Sessions:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._hosts = Tickets(context.vault, "app host")
        self._enters = Tickets(context.vault, "app enter")
        self._forms = Tickets(context.vault, "form")

    # -- who asks ------------------------------------------------------------------------------

    def shown(self, asked: Asked, kind: Kind) -> list[Credential]:
        """What a request shows, best first: a program's token, else its cookies of a kind.

        There may be several of a name: another page of the same site may have set one.
        """
        _, _, token = (asked.header(b"authorization") or "").strip().partition(" ")
        if token.strip().startswith(TOKEN_PREFIX):
            return [Credential(Kind.BEARER, token.strip())]
        found = cookies(asked.headers, self.name_of(kind, asked))
        return [Credential(kind, value) for value in list(found)[:4]]

    async def actor(self, asked: Asked, credential: Credential) -> Actor:
        """Who shows it. Raises BadTokenError."""
        address, request_id = asked.call.address, asked.call.request_id
        if credential.kind is Kind.HOST:
            said = self._hosts.read(credential.value, self._context.now())
            token_id, _, host = (said or "").partition(" ")
            if not token_id or host != asked.host_name:
                raise BadTokenError
            return await tokens.authenticate_id(
                self._context, token_id, address=address, request_id=request_id, browser=True
            )
        return await tokens.authenticate(
            self._context, credential.value, address=address, request_id=request_id,
            browser=credential.kind is Kind.SESSION,
        )  # fmt: skip

    async def known(self, asked: Asked) -> Actor | None:
        """Who is signed in at hutch's own address in this browser."""
        for credential in self.shown(asked, Kind.SESSION):
            if credential.is_cookie:
                try:
                    return await self.actor(asked, credential)
                except BadTokenError:
                    continue
        return None

    # -- cookies -------------------------------------------------------------------------------

    def is_secure(self, asked: Asked) -> bool:
        return asked.scheme == "https" or self._context.settings.public_url.startswith("https:")

    def name_of(self, kind: Kind, asked: Asked) -> str:
        """A cookie's whole name: by these prefixes a browser lets no other host set one."""
        if not self.is_secure(asked):
            return kind.value
        return f"__Host-{kind.value}" if _PATHS[kind] == "/" else f"__Secure-{kind.value}"

    def cookie(self, kind: Kind, value: str, asked: Asked, lasts: timedelta | None) -> str:
        """A Set-Cookie header. `lasts` None: until the browser is closed; nothing: it goes."""
        morsel = SimpleCookie({self.name_of(kind, asked): value})[self.name_of(kind, asked)]
        morsel["path"] = _PATHS[kind]
        morsel["httponly"] = True
        morsel["samesite"] = "Lax"
        if self.is_secure(asked):
            morsel["secure"] = True
        if lasts is not None:
            morsel["max-age"] = int(lasts.total_seconds())
        return morsel.OutputString()

    # -- forms ---------------------------------------------------------------------------------

    def form_token(self, holder: str, purpose: str) -> str:
        """What shows that a form is one of hutch's own pages, as it was given to `holder`."""
        return self._forms.give(f"{purpose} {holder}", self._context.now() + FORM_LASTS)

    def is_form(self, token: str, holder: str, purpose: str) -> bool:
        return self._forms.read(token, self._context.now()) == f"{purpose} {holder}"

    # -- from hutch's address to the host of an app ----------------------------------------------

    def enter_ticket(self, token_id: str, host: str, state: str) -> str:
        """With it a browser that holds `state` gets its cookie at the host of an app."""
        until = self._context.now() + ENTER_LASTS
        return self._enters.give(f"{token_id} {host} {state}", until)

    def host_ticket(self, enter: str, host: str, state: str, until: datetime) -> str | None:
        """The value of the cookie at the host of an app; None when `enter` is good for none."""
        said = (self._enters.read(enter, self._context.now()) or "").split(" ")
        if len(said) != 3 or said[1:] != [host, state] or not state:
            return None
        return self._hosts.give(f"{said[0]} {host}", until)
