"""The description of the API is complete, stable and the one that is published."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hutch.api.app import describe_api
from tests.api.conftest import Send

PUBLISHED = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
DOCUMENT: dict[str, Any] = describe_api()
OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


def test_the_published_document_is_the_present_one():
    # `python -m hutch.api.openapi` writes it.
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == DOCUMENT


async def test_the_served_document_is_the_present_one(send: Send):
    assert (await send("GET", "/openapi.json")).json() == DOCUMENT


def test_operations_are_named_noun_verb_and_once():
    names = [operation.values[2]["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+_[a-z_]+", name) for name in names)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_says_what_it_is_for_and_how_it_fails(
    path: str, method: str, operation: dict[str, Any]
):
    assert operation["summary"]
    assert len(operation["tags"]) == 1
    answers = operation["responses"]
    error = {"$ref": "#/components/schemas/Error"}
    for status, answer in answers.items():
        if status >= "400":
            assert answer["content"]["application/json"]["schema"] == error
    assert {"422", "500", "503"} <= set(answers)
    if operation["security"]:
        assert {"401", "403"} <= set(answers)
        assert operation["x-permission"]
    if method != "get":
        assert {"409", "413"} <= set(answers)
    body = operation.get("requestBody")
    if body is not None:
        content = "octet-stream" if operation["operationId"] == "file_upload" else "json"
        assert body["content"].keys() == {f"application/{content}"}


def test_every_body_has_an_example():
    schemas = DOCUMENT["components"]["schemas"]
    for operation in OPERATIONS:
        body = operation.values[2].get("requestBody")
        if body is None or "application/json" not in body["content"]:
            continue
        schema = body["content"]["application/json"]["schema"]
        name = json.dumps(schema).rpartition("/")[2].split('"')[0]
        assert schemas[name]["additionalProperties"] is False
        assert "examples" in schemas[name] or name in {"NewPassword", "Rebuild"}, name
