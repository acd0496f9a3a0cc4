"""Answers that say no, turned back into the errors that the server raised."""

import json
from collections.abc import Iterator
from typing import Any, cast

from hutch.errors import (
    ForbiddenError,
    HutchError,
    InternalError,
    InvalidInputError,
    NotAuthenticatedError,
    TooLargeError,
    TooManyRequestsError,
    UnavailableError,
)

_BY_STATUS: dict[int, type[HutchError]] = {
    400: InvalidInputError,
    401: NotAuthenticatedError,
    403: ForbiddenError,
    413: TooLargeError,
    422: InvalidInputError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
"""For codes that this client does not know yet, and for what a proxy answers."""


def from_answer(url: str, status: int, body: bytes) -> HutchError:
    """The error in an answer of status 400 or more.

    Message, hint and detail are the server's. `request_id`, by which an administrator finds the
    request in the log, is put into the detail.
    """
    error = _error_object(body)
    if error is None:
        return _not_hutch(url, status)
    detail = error.get("detail")
    known: dict[str, Any] = dict(cast("dict[str, Any]", detail)) if isinstance(detail, dict) else {}
    if error.get("request_id"):
        known["request_id"] = error["request_id"]
    return rebuild(
        str(error.get("code", "")),
        str(error.get("message", "")),
        str(error.get("hint", "")),
        known,
        status=status,
    )


def rebuild(
    code: str, message: str, hint: str, detail: dict[str, Any], *, status: int = 500
) -> HutchError:
    """An error of the class that has this code, without what that class would compose itself."""
    kind = _classes().get(code) or _newer(code, _BY_STATUS.get(status, InternalError))
    error = kind.__new__(kind)
    HutchError.__init__(error, message, hint=hint)
    error.detail = detail
    if isinstance(error, TooManyRequestsError):
        wait = detail.get("retry_after")
        error.retry_after = wait if isinstance(wait, int) else 1
    return error


def _newer(code: str, kind: type[HutchError]) -> type[HutchError]:
    """A class for a code that a newer server has: what is known about it is its kind."""
    return type(kind.__name__, (kind,), {"code": code or kind.code})


def _error_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    error = cast("dict[str, Any]", answer).get("error")
    return cast("dict[str, Any]", error) if isinstance(error, dict) else None


def _not_hutch(url: str, status: int) -> HutchError:
    if status in {502, 503, 504}:
        return UnavailableError(
            f"A proxy in front of hutch at {url} answered {status}: hutch itself does not answer.",
            hint="Is `hutch server` running there? Try again in a moment.",
            url=url,
        )
    return UnavailableError(
        f"What answers at {url} is not hutch (HTTP {status}).",
        hint="Check the address: `hutch login --url URL`, or HUTCH_URL.",
        url=url,
    )


def _classes() -> dict[str, type[HutchError]]:
    # Made when an error comes, not at start: most runs never need it. Those of `_newer` are left
    # out: what they were made from decides what they are, each time anew.
    known = (kind for kind in _family(HutchError) if kind.__module__ == HutchError.__module__)
    return {kind.code: kind for kind in known}


def _family(kind: type[HutchError]) -> Iterator[type[HutchError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)
