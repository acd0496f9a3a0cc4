"""The description of the API: FastAPI's, with who may ask and how each request can fail."""

import json
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from hutch import __version__
from hutch.api.deps import Allowed
from hutch.api.failures import Error
from hutch.domain.permissions import Action

_REASONS = {
    401: "Not signed in, or the token is unknown, expired or revoked",
    403: "The person or the token may not do this",
    404: "It does not exist, or belongs to someone else",
    409: "It does not fit what is there: a name is taken, a quota full, an operation in progress",
    413: "The body is too large",
    416: "The file has none of the bytes that were asked for",
    422: "Something in the request is not valid",
    429: "Too many failures, or too much at once; the header Retry-After says when to try again",
    500: "A mistake inside hutch, or an engine refused",
    503: "The database or an engine does not answer; the header Retry-After says when to try again",
}
_LIMITED = frozenset({"login_create", "profile_change_password"})
"""Operations that count failures."""


def action_of(route: APIRoute) -> Action | None:
    """The action that a route declares; None where no login is needed."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, Allowed):
            return dependency.call.action
    return None


def operation_id(route: APIRoute) -> str:
    """`noun_verb`, from the module's tag and the handler's name; stable, clients are named so."""
    return f"{route.tags[0]}_{route.name.removesuffix('_all')}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="hutch",
            version=__version__,
            summary="A machine of one's own for every person in a lab.",
            description=(
                "Long work answers 202 with an operation, which `GET /operations/{operation}` "
                "waits for. Memory and disk are bytes in answers. Every failure has one shape."
            ),
            routes=app.routes,
        )
        _complete(document, app)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(document: dict[str, Any], app: FastAPI) -> None:
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    shape = TypeAdapter(Error).json_schema(ref_template="#/components/schemas/{model}")
    schemas |= cast("dict[str, Any]", shape.pop("$defs"))
    schemas["Error"] = shape
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "From `POST /login` or `POST /tokens`.",
        }
    }
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete_operation(document["paths"][route.path_format][method.lower()], route)


def _complete_operation(operation: dict[str, Any], route: APIRoute) -> None:
    action = action_of(route)
    operation["operationId"] = operation_id(route)
    operation["security"] = [] if action is None else [{"token": []}]
    if action is not None:
        operation["x-permission"] = action.value
    answers: dict[str, Any] = operation["responses"]
    operation["responses"] = {
        status: answer for status, answer in answers.items() if status.startswith("2")
    } | {
        str(status): {
            "description": _REASONS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in sorted(_failures(route, action))
    }


def _failures(route: APIRoute, action: Action | None) -> set[int]:
    statuses = {422, 500, 503}
    if action is not None:
        statuses |= {401, 403}
    if "{" in route.path_format or action is not None:
        statuses.add(404)
    if "GET" not in (route.methods or ()):
        statuses |= {409, 413}
    if route.tags[0] == "file":
        # The instance may be in another state; one person has so many files under way at once.
        statuses |= {409, 416, 429}
    if operation_id(route) in _LIMITED:
        statuses |= {401, 429}
    return statuses


def write(file: Path) -> None:
    """Write the document where the reference and the UI's types are made from it."""
    # Imported here: app.py imports this module.
    from hutch.api.app import describe_api

    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(describe_api(), indent=2, ensure_ascii=False, sort_keys=True)
    file.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path("docs/reference/openapi.json"))
