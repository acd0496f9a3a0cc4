"""Every failure in the one shape: what hutch raises, what the framework raises, and the rest."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope
from typing_extensions import TypedDict

from hutch.api.answers import reply
from hutch.api.call import SCOPE_KEY, Call
from hutch.errors import (
    EngineConflictError,
    HutchError,
    InternalError,
    InvalidInputError,
    TooLargeError,
    TooManyRequestsError,
)

RETRY_SECONDS = 2
"""When to ask again after 503: a database that restarts or a lock that is held takes about that."""


class ErrorDetail(TypedDict):
    """What went wrong, and what to do."""

    code: Annotated[str, Field(description="Stable: programs may rely on it.")]
    message: Annotated[str, Field(description="What happened and why, for people.")]
    hint: Annotated[str, Field(description="What to do now; may be empty.")]
    detail: Annotated[dict[str, Any], Field(description="More, for programs.")]
    request_id: Annotated[str, Field(description="Names the request in logs and events.")]


class Error(TypedDict):
    """The one shape of every failure."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "error": {
                    "code": "not_found",
                    "message": "There is no instance 'web'.",
                    "hint": "`hutch list` shows what there is.",
                    "detail": {"noun": "instance", "name": "web"},
                    "request_id": "5f2c9d0a41b7e836",
                }
            }
        }
    )
    error: ErrorDetail


class NoSuchPathError(HutchError):
    code = "not_found"
    status = 404


class MethodNotAllowedError(HutchError):
    code = "method_not_allowed"
    status = 405


def failure(error: HutchError, scope: Scope) -> Response:
    """The answer to a request that ended in this error."""
    call: Call | None = scope.get(SCOPE_KEY)
    body = error.as_dict() | {"request_id": call.request_id if call else ""}
    # The engine being busy with something that hutch did not begin passes by itself.
    status = 503 if isinstance(error, EngineConflictError) else error.status
    answer = reply({"error": body}, status)
    if isinstance(error, TooManyRequestsError):
        answer.headers["Retry-After"] = str(error.retry_after)
    elif status == 503:
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
    elif status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def internal_failure(scope: Scope) -> Response:
    """The answer to a request that met a mistake of ours: nothing of it is told."""
    return failure(
        InternalError(
            "Something went wrong inside hutch.",
            hint="Tell your administrator the request id; the log says more.",
        ),
        scope,
    )


def handle_failures(app: FastAPI) -> None:
    """Let `app` answer everything that is raised in the one shape."""
    app.exception_handler(HutchError)(_on_hutch_error)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(HTTPException)(_on_http_error)


async def _on_hutch_error(request: Request, error: HutchError) -> Response:
    return failure(error, request.scope)


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    return failure(explained(error.errors()), request.scope)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    answer = failure(_translated(request, error), request.scope)
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Every method of the path; the framework names those of the first route alone."""
    path: str = request.scope["path"]
    routes = (route for route in request.app.routes if isinstance(route, APIRoute))
    found = [route.methods or () for route in routes if route.path_regex.match(path)]
    return sorted({method for methods in found for method in methods})


def _translated(request: Request, error: HTTPException) -> HutchError:
    """What the framework complains about, in hutch's words."""
    if error.status_code == 404:
        return NoSuchPathError(
            "There is nothing at this address.", hint="/api/v1/openapi.json lists what there is."
        )
    if error.status_code == 405:
        return MethodNotAllowedError(
            f"{request.method[:16]} is not possible here.",
            hint="The header Allow names what is.",
        )
    if error.status_code == 413:
        return TooLargeError("The request's body is too large.", hint="Send less at once.")
    # Everything else is raised while the body is read: not UTF-8, too deep, a number too long.
    return InvalidInputError("The request's body cannot be read as JSON.", hint=_JSON_HINT)


_JSON_HINT = "Send one JSON object in UTF-8, with the header Content-Type: application/json."


def explained(errors: Sequence[Mapping[str, Any]]) -> HutchError:
    """The first of pydantic's complaints as a sentence, all of them in the detail.

    What was given is not repeated: it may be a password.
    """
    places = [(_place(each), _reason(each)) for each in errors]
    field, reason = places[0]
    if not field:
        return InvalidInputError(f"The request's body is not valid: {reason}.", hint=_JSON_HINT)
    return InvalidInputError(
        f"{field}: {reason}.",
        hint="/api/v1/openapi.json describes every field.",
        field=field,
        errors=[{"field": where, "message": why} for where, why in places],
    )


def _place(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return ""
    location = cast("Sequence[object]", error["loc"])
    # Without "body", "query" or "path"; a field that someone invented is cut short.
    return ".".join(str(part) for part in location[1:])[:80].encode(errors="replace").decode()


def _reason(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind == "json_invalid":
        return "it is not JSON"
    if kind == "missing":
        return "it is missing"
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "model_attributes_type":
        return "it must be a JSON object"
    return str(error["msg"]).removeprefix("Value error, ").rstrip(".")
