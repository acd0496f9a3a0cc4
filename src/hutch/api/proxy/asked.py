"""A request that is meant for an app, or for hutch's own pages about apps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.types import Receive, Scope

from hutch.api.call import Call, Network, client_address, is_trusted, request_id
from hutch.api.proxy.headers import Header
from hutch.domain.apps import host_of
from hutch.errors import ForbiddenError, InvalidInputError, TooLargeError

LARGEST_FORM = 8 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    raw_path: str
    """As it was sent, not decoded, without the query."""
    query: str
    headers: list[Header]
    host: str
    """With its port, as the browser said it."""
    scheme: str
    """Of the browser's own connection."""
    call: Call
    is_upgrade: bool = False

    @property
    def host_name(self) -> str:
        return host_of(self.host)

    @property
    def whole_path(self) -> str:
        return f"{self.raw_path}?{self.query}" if self.query else self.raw_path

    @property
    def is_navigation(self) -> bool:
        """Whether a person sees the answer as a page."""
        mode = self.header(b"sec-fetch-mode")
        wants = self.header(b"accept") or ""
        if self.is_upgrade or self.method not in {"GET", "HEAD"}:
            return False
        return mode == "navigate" if mode else "text/html" in wants

    def header(self, name: bytes) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def parameter(self, name: str) -> str:
        """A parameter of the query; nothing when it is not there."""
        try:
            return _only(parse_qs(self.query, max_num_fields=20), name)
        except ValueError:
            return ""

    def check_origin(self) -> None:
        """Raise ForbiddenError for what another site's page has asked for in somebody's name.

        A cookie comes with it. So may what a link does, and nothing else, no frame either: the
        other apps of a domain count as other sites here, though browsers call them the same.
        """
        site = self.header(b"sec-fetch-site")
        origin = self.header(b"origin")
        is_link = self.is_navigation and self.header(b"sec-fetch-dest") in {None, "document"}
        foreign = site in {"cross-site", "same-site"} and not is_link
        if origin is not None:
            foreign = foreign or origin.partition("://")[2].lower() != self.host.lower()
        elif self.is_upgrade:
            # Every browser says where a WebSocket is asked from.
            foreign = True
        if foreign:
            raise ForbiddenError(
                "The page that asks for this is not the app's own.",
                hint="Open the app itself, from its own address.",
            )


def asked_of(scope: Scope, trusted: tuple[Network, ...]) -> Asked:
    """A request as the server hands it over."""
    headers: list[Header] = list(scope["headers"])
    known: dict[bytes, str] = {}
    for name, value in headers:
        text = value.decode("latin-1")
        # Several lines are one list (RFC 9110 section 5.3); a second Host is none at all.
        known[name] = f"{known[name]},{text}" if name in known else text
    peer = scope.get("client")
    address = peer[0] if peer else ""
    call = Call(
        request_id(known.get(b"x-request-id")),
        client_address(address, known.get(b"x-forwarded-for"), trusted),
    )
    scheme: str = scope.get("scheme") or "http"
    said = known.get(b"x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    if said in {"http", "https"} and (not address or is_trusted(address, trusted)):
        scheme = said
    return Asked(
        method=scope.get("method", "GET"),
        raw_path=scope["raw_path"].decode("ascii"),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        host=known.get(b"host", ""),
        scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),
        call=call,
        is_upgrade=scope["type"] == "websocket",
    )


async def form_of(asked: Asked, receive: Receive) -> Mapping[str, list[str]]:
    """What a form of hutch's own pages sends. Raises TooLargeError and InvalidInputError."""
    kind = (asked.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInputError("This is not a form.", hint="Use the page's own button.")
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_FORM:
            raise TooLargeError("The form is too large.", hint="Use the page's own button.")
        if not message.get("more_body", False):
            break
    try:
        return parse_qs(body.decode(), max_num_fields=20, keep_blank_values=True)
    except ValueError:
        raise InvalidInputError("The form cannot be read.", hint="Send it once more.") from None


def field_of(form: Mapping[str, list[str]], name: str) -> str:
    return _only(form, name)


def _only(found: Mapping[str, list[str]], name: str) -> str:
    values = found.get(name, [])
    return values[0] if len(values) == 1 and "\0" not in values[0] else ""


def phrase(status: int) -> str:
    """The words for a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"


def joined(headers: Iterable[Header]) -> bytes:
    """Headers as they are sent."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)
