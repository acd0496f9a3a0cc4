"""What of a request an app sees, and what of its answer a browser sees.

No input or output. hutch's own cookies and tokens never go to an app; an app's cookies stay below
its own path; and what would hold for all of hutch's address is left out where the app shares it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from hutch.services.vault import TOKEN_PREFIX

Header = tuple[bytes, bytes]
Headers = list[Header]

COOKIE_PREFIX = "hutch_"
"""What hutch's own cookies are called begins so, behind `__Host-` or `__Secure-`."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
# RFC 9110 section 7.6.1, and what is older than it.
_HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
# Said anew by hutch, or to be believed from hutch alone.
_SAID_BY_HUTCH = frozenset(
    (
        b"expect", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port",
        b"x-forwarded-prefix", b"x-forwarded-proto", b"x-forwarded-user", b"x-real-ip",
    )
)  # fmt: skip
# Of an answer: what hutch's server says itself, and what would hold for other apps as well.
_NEVER_BACK = frozenset((b"date", b"alt-svc", b"strict-transport-security"))
_FOR_A_WHOLE_ORIGIN = frozenset(
    (
        b"clear-site-data", b"cross-origin-opener-policy", b"nel", b"origin-agent-cluster",
        b"report-to", b"reporting-endpoints", b"service-worker-allowed",
    )
)  # fmt: skip


class BadHeaderError(Exception):
    """A header that another server could read in another way."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a request comes to an app."""

    host: str
    """As the browser said it, with its port."""
    scheme: str
    """Of the browser's connection, also where a trusted proxy stands in between."""
    address: str
    """The browser's."""
    user: str
    prefix: str
    """`/apps/box/8888`, or nothing at a host of the app's own."""
    keeps_path: bool
    inside: tuple[str, ...] = ()
    """What the app may take for its own address: hosts with their ports."""


def to_app(headers: Iterable[Header], way: Way, *, upgrade: bytes = b"") -> Headers:
    """A request's headers as the app gets them, but for those that frame its body.

    `upgrade` is the protocol to change to, where that is to be. Raises BadHeaderError.
    """
    known = list(headers)
    left_out = _HOP_BY_HOP | _SAID_BY_HUTCH | _named_in_connection(known) | {b"content-length"}
    sent: Headers = []
    for name, value in known:
        check(name, value)
        # With an underscore many an app's server takes it for the same (WSGI and CGI do).
        if name in left_out or name.replace(b"_", b"-") in _SAID_BY_HUTCH:
            continue
        if name == b"cookie":
            value = _without_own_cookies(value)
            if not value:
                continue
        elif name == b"authorization" and _is_own_token(value):
            continue
        sent.append((name, value))
    sent += [
        (b"x-forwarded-for", way.address.encode()),
        (b"x-forwarded-host", way.host.encode()),
        (b"x-forwarded-proto", way.scheme.encode()),
        (b"x-forwarded-user", way.user.encode()),
    ]
    if way.prefix:
        sent.append((b"x-forwarded-prefix", way.prefix.encode()))
    if upgrade:
        sent += [(b"connection", b"Upgrade"), (b"upgrade", upgrade)]
    return sent


def to_browser(headers: Iterable[Header], way: Way) -> Headers:
    """An answer's headers as the browser gets them. Raises BadHeaderError."""
    known = [(name.lower(), value) for name, value in headers]
    left_out = set(_HOP_BY_HOP | _NEVER_BACK) | _named_in_connection(known)
    if way.prefix:
        left_out |= _FOR_A_WHOLE_ORIGIN
    if any(name == b"transfer-encoding" for name, _ in known):
        # It came in chunks, whatever length it says besides.
        left_out.add(b"content-length")
    sent: Headers = []
    for name, value in known:
        check(name, value)
        if name in left_out:
            continue
        if name == b"set-cookie":
            confined = _confined(value.decode("latin-1"), way)
            if confined is None:
                continue
            value = confined.encode("latin-1")
        elif name in {b"location", b"content-location"}:
            value = _led_back(value.decode("latin-1"), way).encode("latin-1")
        sent.append((name, value))
    return sent


def check(name: bytes, value: bytes) -> None:
    """Raise BadHeaderError for a header that is none."""
    if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
        raise BadHeaderError("A header is not valid.")


def _named_in_connection(headers: Sequence[Header]) -> set[bytes]:
    return {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }


def _is_own_token(value: bytes) -> bool:
    _, _, token = value.strip().partition(b" ")
    return token.strip().startswith(TOKEN_PREFIX.encode())


# -- cookies -----------------------------------------------------------------------------------


def is_own_cookie(name: str) -> bool:
    """Whether a cookie is hutch's: no app gets it, and none may set it."""
    plain = name.strip().lower()
    for prefix in ("__host-", "__secure-"):
        plain = plain.removeprefix(prefix)
    return plain.startswith(COOKIE_PREFIX)


def cookies(headers: Iterable[Header], name: str) -> Iterator[str]:
    """Every value that a request's cookies of a name have."""
    for header, value in headers:
        if header == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                found, _, content = pair.strip().partition("=")
                if found == name:
                    yield content


def _without_own_cookies(value: bytes) -> bytes:
    pairs = value.decode("latin-1").split(";")
    kept = [pair.strip() for pair in pairs if not is_own_cookie(pair.partition("=")[0])]
    return "; ".join(pair for pair in kept if pair).encode("latin-1")


def _confined(cookie: str, way: Way) -> str | None:
    """A cookie that an app sets, held to its host and its path; None when it is to be left out."""
    pair, *attributes = cookie.split(";")
    name = pair.partition("=")[0].strip()
    if is_own_cookie(name):
        return None
    if way.prefix and name.lower().startswith("__host-"):
        # It holds for the whole host, or not at all.
        return None
    kept: list[str] = []
    path = ""
    for attribute in attributes:
        key, _, content = attribute.strip().partition("=")
        match key.strip().lower():
            case "domain":
                continue
            case "path":
                path = content.strip()
            case _:
                kept.append(attribute.strip())
    if way.prefix:
        path = _below(path, way)
    if path:
        kept.append(f"Path={path}")
    return "; ".join([pair.strip(), *kept])


def _below(path: str, way: Way) -> str:
    """A cookie's path below the prefix, as the browser has it."""
    inside = path == way.prefix or path.startswith(f"{way.prefix}/")
    if way.keeps_path and inside:
        return path
    if way.keeps_path or not path.startswith("/"):
        return f"{way.prefix}/"
    return way.prefix + path


# -- addresses ---------------------------------------------------------------------------------


def _led_back(location: str, way: Way) -> str:
    """Where an app sends somebody on to, in the browser's words."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    if parts.netloc:
        if parts.netloc.lower() not in {way.host.lower(), *way.inside}:
            return location
        # The app knows neither the browser's scheme nor, it may be, its host. Without them a
        # second slash would name another host.
        path = "/" + parts.path.lstrip("/")
        location = urlunsplit(("", "", path, parts.query, parts.fragment))
    elif not location.startswith("/"):
        return location
    if not way.prefix or way.keeps_path:
        return location
    return way.prefix + location
