"""The kinds of values that requests are made of, each refused with a clear reason.

Strings cannot hold NUL (PostgreSQL cannot store it; lone surrogates are refused by pydantic), and
numbers fit into the columns that they may end up in.
"""

import base64
import binascii
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from hutch.domain.sizes import LARGEST, format_size, parse_size
from hutch.errors import InvalidSizeError

NO_NUL: JsonDict = {"pattern": "^[^\\u0000]*$"}


class Body(BaseModel):
    """A request's JSON object: no field that is not declared, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it contains a NUL character")
    return text


Text = Annotated[
    str, AfterValidator(_without_nul), Field(max_length=16384, json_schema_extra=NO_NUL)
]
Name = Annotated[str, AfterValidator(_without_nul), Field(max_length=16384)]
"""A name: the domain says which ones are good, with a better reason than a pattern could give."""

Count = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
"""An integer of 32 bits; the domain says which of them make sense."""


def _size(value: object) -> object:
    """Bytes from an integer or from a text such as `4GiB`."""
    if isinstance(value, str):
        return parse_size(value)
    return _checked_size(value, least=1)


def _size_or_zero(value: object) -> object:
    if isinstance(value, str):
        return 0 if value.strip() == "0" else parse_size(value)
    return _checked_size(value, least=0)


def _checked_size(value: object, least: int) -> object:
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        # Python refuses to write a number of thousands of digits out.
        is_short = isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**40)
        shown = str(value) if is_short else "this"
        raise InvalidSizeError(shown, f"at least {least} and at most {format_size(LARGEST)}")
    return value


def _size_schema(least: int) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": "integer", "minimum": least, "maximum": LARGEST},
            {"type": "string", "pattern": r"^[1-9][0-9]{0,2}(\.[0-9]{1,3})?[KMGT]iB$"},
        ],
        "description": "Bytes, or a text such as 512MiB or 4GiB.",
        "examples": ["4GiB"],
    }


Size = Annotated[int, BeforeValidator(_size), WithJsonSchema(_size_schema(1))]
QuotaSize = Annotated[int, BeforeValidator(_size_or_zero), WithJsonSchema(_size_schema(0))]


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("it must be a text in base64")  # noqa: TRY004 - pydantic wants this one
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None


Base64 = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "format": "byte", "contentEncoding": "base64"}),
]


def encoded(content: bytes) -> str:
    """Bytes as they travel in answers."""
    return base64.b64encode(content).decode("ascii")
