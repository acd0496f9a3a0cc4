"""Answers: JSON written once, straight from plain values.

Handlers return finished responses. FastAPI would otherwise validate every value again and walk it
twice more before writing it; for a list of two thousand instances that is most of the work. The
schemas are `TypedDict`s, so the type checker holds handlers to what OpenAPI promises.
"""

from typing import Any

from fastapi import Response
from pydantic_core import to_json


class JsonResponse(Response):
    media_type = "application/json"


def reply(value: Any, status: int = 200) -> Response:
    """An answer with a JSON body."""
    return JsonResponse(to_json(value), status)


def no_content() -> Response:
    return Response(status_code=204)
