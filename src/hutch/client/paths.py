"""Where in the API a thing is, by the names that people give it."""

from urllib.parse import quote

from hutch.errors import NotFoundError


def instance(ref: str) -> str:
    return f"/instances/{part('instance', ref)}"


def share(ref: str, person: str) -> str:
    return f"{instance(ref)}/shares/{part('share', person)}"


def port(ref: str, name: str) -> str:
    return f"{instance(ref)}/ports/{part('port', name)}"


def user(name: str) -> str:
    return f"/users/{part('user', name)}"


def accelerator(ref: str) -> str:
    return f"/accelerators/{part('accelerator', ref)}"


def group(name: str) -> str:
    return f"/groups/{part('group', name)}"


def member(of_group: str, name: str) -> str:
    return f"{group(of_group)}/members/{part('user', name)}"


def part(noun: str, text: str) -> str:
    """A text as one part of a path, whatever characters it has.

    Raises NotFoundError for texts that a path cannot carry, and which name nothing: an empty one
    would ask for the whole list, and dots would ask for another place.
    """
    if text in {"", ".", ".."}:
        raise NotFoundError(noun, text)
    return quote(text, safe="", errors="replace")
