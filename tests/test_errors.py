"""The tree in the docstring of `errors.py` is what people and clients rely on: it must be true."""

import inspect
import re

import pytest

from hutch import errors
from hutch.errors import HutchError

_LINE = re.compile(
    r"^ {4}(?P<bars>[│├└─ ]*)(?P<name>\w+)(?: +(?P<status>\d{3}))?(?: +(?P<code>[a-z_]+))?$"
)


def _all(of: type[HutchError] = HutchError) -> list[type[HutchError]]:
    """Every error of the module with its subclasses, in the order in which they are defined."""
    inside = [each for each in of.__subclasses__() if each.__module__ == errors.__name__]
    return [of, *(found for each in inside for found in _all(each))]


def _drawn() -> list[tuple[str, str | None, int, str]]:
    """(name, parent, status, code) of each line drawn; without a status it has its parent's."""
    rows: list[tuple[str, str | None, int, str]] = []
    above: list[tuple[str, int]] = []
    for line in inspect.getdoc(errors).splitlines():
        match = _LINE.match(line)
        if not match or not match["name"].endswith("Error"):
            continue
        depth = len(match["bars"]) // 4
        del above[depth:]
        parent = above[-1] if above else None
        status = int(match["status"] or (parent[1] if parent else 500))
        rows.append((match["name"], parent[0] if parent else None, status, match["code"] or ""))
        above.append((match["name"], status))
    return rows


def test_the_drawing_is_the_tree():
    real = [
        (
            each.__name__,
            None if each is HutchError else each.__bases__[0].__name__,
            each.status,
            "" if each is HutchError else each.code,
        )
        for each in _all()
    ]
    assert _drawn() == real


def test_nothing_in_the_module_stands_outside_the_tree():
    defined = {
        each
        for each in vars(errors).values()
        if inspect.isclass(each) and each.__module__ == errors.__name__
    }
    assert defined == set(_all())


def test_codes_are_unique_and_of_one_form():
    codes = [each.code for each in _all()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", code) for code in codes)


def test_every_name_ends_in_error():
    assert all(each.__name__.endswith("Error") for each in _all())


def test_every_status_is_one_of_failure():
    assert {each.status for each in _all()} <= {
        401, 403, 404, 409, 413, 416, 422, 429, 500, 502, 503, 504,
    }  # fmt: skip


MADE = [
    errors.InvalidNameError("instance", "A" * 500, "a-z"),
    errors.InvalidSizeError("9" * 500, "a number"),
    errors.InvalidLimitError("cpus", "0", "at least 1"),
    errors.NodeTooSmallError("gpu1", "memory", 1024),
    errors.BadLoginError(),
    errors.BadTokenError(),
    errors.NotFoundError("instance", "x" * 500),
    errors.NotFoundError("image", "x"),
    errors.NameTakenError("an instance", "x"),
    errors.BusyError("Instance x", "0123456789abcdef", "instance_stop"),
    errors.QuotaExceededError("memory", "4GiB", "4GiB", "1GiB"),
    errors.NoPortLeftError(20000, 20999),
    errors.NoAddressLeftError("10.0.0.0/29"),
    errors.TooManyRequestsError("Too many attempts.", retry_after=3),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_says_what_happened_and_what_to_do(error: HutchError):
    told = error.as_dict()
    assert set(told) == {"code", "message", "hint", "detail"}
    assert told["message"] == str(error)
    assert told["message"].endswith(".")
    assert len(told["message"]) < 250
    assert told["hint"].endswith((".", "`"))


def test_detail_travels_along():
    error = errors.EngineError("Refused.", hint="Look.", container="hutch-1", code_of_incus=400)
    assert error.as_dict() == {
        "code": "engine_error",
        "message": "Refused.",
        "hint": "Look.",
        "detail": {"container": "hutch-1", "code_of_incus": 400},
    }
